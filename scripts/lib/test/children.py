# SPDX-License-Identifier: Apache-2.0
"""Has a run end with all that it started, also what is in sessions of its own.

The run is a child of the process that is started, in the same group and on the same terminal (sudo
may ask there), so that nothing new begins once it is ended: neither its threads nor those of ninja
or ctest, which would be left to init.
"""
import collections
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time

ENDING = {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 10  # A guest or a soak takes its world down within one.


def descendants():
    """Of this process, those that have not ended, as far as one look shows them: their command
    lines by their ids."""
    children, commands = collections.defaultdict(list), {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            commands[int(stat.parent.name)] = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has just gone.
        if state != "Z":
            children[int(parent)].append(int(stat.parent.name))
    found = list(children[os.getpid()])
    for pid in found:  # Which grows meanwhile.
        found += children[pid]
    return {pid: commands[pid] for pid in found}


def send(number, pids):
    denied = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            denied.append(str(pid))
    if denied:  # What sudo has started.
        command = ["sudo", "-n", "kill", f"-{int(number)}", *denied]
        subprocess.run(command, stderr=subprocess.DEVNULL)


def any_left():
    """Whether there is a child; there is while there is a descendant, once orphans become ours."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
        return True
    except ChildProcessError:
        return False


def end_all(patience_s=PATIENCE_S):
    """Asks all to end; kills those that have not after this long."""
    # What loses its parent now becomes a child of this process, not of init.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGKILL):
        told = set()
        give_up = time.monotonic() + patience_s
        while any_left() and time.monotonic() < give_up:
            # A shell that is about to become another program may take it for itself.
            found = set(descendants().items())
            send(number, [pid for pid, _ in found - told])
            told |= found
            time.sleep(0.02)


def supervise(work, patience_s=PATIENCE_S):
    """Does the work in a child; the exit status, as a shell has it."""
    # What nohup has it ignore stays ignored; blocked, it would be told all the same.
    ending = {number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*ending, signal.SIGCHLD})
    worker = os.fork()
    if worker == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        sys.exit(work())
    while True:
        ended, status = os.waitpid(worker, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        number = signal.sigwait({*ending, signal.SIGCHLD})
        if number in ending:
            end_all(patience_s)
            return 128 + number
