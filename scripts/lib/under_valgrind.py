# SPDX-License-Identifier: Apache-2.0
"""Runs a program under valgrind's memcheck, with epoll instead of io_uring.

    under_valgrind.py PROGRAM [ARGUMENT...]

Programs that it starts run without. Exit status: the program's, 9 where memcheck found anything
(wrong reads and writes, and what is lost for good), 77 without valgrind.
"""
import os
import shutil
import sys

from without_io_uring import refuse_io_uring

if not shutil.which("valgrind"):
    print("valgrind is missing (scripts/setup installs it)")
    sys.exit(77)
refuse_io_uring()
OPTIONS = [
    "--quiet",
    "--error-exitcode=9",
    "--leak-check=full",
    "--show-leak-kinds=definite",
    "--errors-for-leak-kinds=definite",
    "--fair-sched=yes",  # A core that polls would keep the others waiting.
]
os.execvp("valgrind", ["valgrind", *OPTIONS, *sys.argv[1:]])
