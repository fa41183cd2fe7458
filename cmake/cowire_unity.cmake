# SPDX-License-Identifier: Apache-2.0
# cowire_unity(target): with COWIRE_UNITY, its sources are compiled some at a time, so that what they include is parsed and
# instantiated once. For builds from nothing: parsing is most of a room's compilation. So sources of a room share one
# unnamed namespace: what two of them need has one name and one home.

function(cowire_unity target)
  if(COWIRE_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8
      # The kernel's headers leave out what libc's define only where those come first.
      UNITY_BUILD_CODE_BEFORE_INCLUDE "#include <net/if.h>\n#include <netinet/in.h>\n")
    # What one source does not show the other, and the other presets check.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
  endif()
endfunction()
