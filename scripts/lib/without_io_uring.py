# SPDX-License-Identifier: Apache-2.0
"""Refuses io_uring to a program, so that it takes epoll: what valgrind 3.19 needs.

While one of a program's threads waits in io_uring_enter, that valgrind lets no other thread run.
For subprocess: preexec_fn=refuse_io_uring.
"""
import ctypes
import errno
import struct

PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
IO_URING_SETUP = 425  # The same number on every processor.
# Classic BPF (linux/bpf_common.h, linux/seccomp.h): code, jump if true, jump if false, operand.
FILTER = (
    (0x20, 0, 0, 0),  # Load the system call's number, ...
    (0x15, 0, 1, IO_URING_SETUP),  # ... compare,
    (0x06, 0, 0, 0x00050000 | errno.EPERM),  # SECCOMP_RET_ERRNO,
    (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW.
)


def refuse_io_uring():
    """From now on, to this process and what it starts."""
    code = b"".join(struct.pack("HBBI", *line) for line in FILTER)
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(FILTER), ctypes.addressof(instructions))
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_ulong(0)] * 3
    if libc.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *arguments) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), program, *arguments[1:]) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")
