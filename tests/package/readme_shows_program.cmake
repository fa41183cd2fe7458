# SPDX-License-Identifier: Apache-2.0
# cmake -DPROGRAM=main.cpp -DREADME=README.md -P: fails unless the README contains the program, its SPDX line aside.
file(READ "${README}" readme)
file(READ "${PROGRAM}" program)
string(REGEX REPLACE "^// SPDX[^\n]*\n" "" program "${program}")
string(FIND "${readme}" "```cpp\n${program}```" position)
if(position EQUAL -1)
  message(FATAL_ERROR "README.md does not show ${PROGRAM} as it is; paste the program into its ```cpp block")
endif()
