# SPDX-License-Identifier: Apache-2.0
"""Runs a command of this machine under another kernel: a QEMU guest with the host's file system.

The guest sees the host's files read-only, has GRE, VLAN, VRF, bonding, netem and a NIC with zero-copy,
runs one command as root, brings its output and exit status back, and is gone. Files that the command
leaves in $LAB_OUT are in the out folder afterwards. Nothing is said about speed: it is emulated.
"""
import argparse
import os
import pathlib
import signal
import sys
import tempfile

import guest
import kernel

ROOT = pathlib.Path(__file__).resolve().parents[3]


def say(text):
    print(text, file=sys.stderr, flush=True)


def options():
    parser = argparse.ArgumentParser(
        prog="scripts/lab",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: scripts/lab run -- ip -d link show gre0\n"
        "exit status: the command's; 125 if the guest crashed, hung or ran out of time;\n"
        "126 if no guest can be had on this machine",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    run = verbs.add_parser("run", help="run one command: scripts/lab run [OPTIONS] -- COMMAND …")
    run.add_argument("command", nargs=argparse.REMAINDER, help="what to run, after --")
    shell = verbs.add_parser("shell", help="a shell in the guest; `exit` switches it off")
    verbs.add_parser("prepare", help="fetch and unpack the kernel, and stop")
    for verb in (run, shell):
        verb.add_argument(
            "--nic",
            choices=["none", "virtio", "igb"],
            default="virtio",
            help="two of these, back to back (default: virtio)",
        )
        verb.add_argument("--memory", type=int, default=2048, metavar="MB", help="default: 2048")
        verb.add_argument(
            "--out", type=pathlib.Path, help="folder for $LAB_OUT (default: none kept)"
        )
    run.add_argument(
        "--timeout", type=float, default=600, metavar="S", help="seconds it may take (default: 600)"
    )
    chosen = parser.parse_args()
    if chosen.verb == "run":
        chosen.command = [word for word in chosen.command if word != "--"] or parser.error(
            "there is no command; put it after --"
        )
    return chosen


def main():
    chosen = options()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # The guest ends with us.
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    if os.geteuid() != 0:
        sys.exit("lab: the guest reads the host's file system: run as root")
    try:
        guest_kernel = kernel.prepare(say)
    except kernel.Unavailable as reason:
        say(f"lab: {reason}")
        return 126
    if chosen.verb == "prepare":
        return 0
    accelerator = guest.best_accelerator(guest_kernel, ROOT, say)
    with tempfile.TemporaryDirectory() as scratch:
        out = (chosen.out or pathlib.Path(scratch)).resolve()
        machine = guest.guest(guest_kernel, ROOT, out, chosen.nic, chosen.memory)
        if chosen.verb == "shell":
            return machine.shell(pathlib.Path.cwd(), accelerator)
        status = machine.run(chosen.command, pathlib.Path.cwd(), chosen.timeout, accelerator)
        if status == 125:
            say("lab: the guest did not end the command; last words:")
            say(machine.last_words())
        return status


sys.exit(main())
