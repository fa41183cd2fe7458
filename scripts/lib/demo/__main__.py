# SPDX-License-Identifier: Apache-2.0
"""Streams from host A to host B with `cowire send` while iproute2 moves the routes under it.

Started by scripts/demo. Exit status 0: nothing was lost. 1: something was, or it could not run.
"""
import argparse
import contextlib
import json
import os
import pathlib
import signal
import sys
import tempfile
import time

import analysis
import page
import terminal
from stream import Arrivals, Monitor, Receiver, Sender
from world import GATEWAY, MARK, SERVICE, Failure, World

VIA_PUBLIC = f"{SERVICE} via {GATEWAY['public']} dev public"
VIA_FIBER = f"{SERVICE} via {GATEWAY['fiber']} dev fiber"

COMMANDS = (
    f"route replace {VIA_FIBER} metric 10",
    f"route replace {VIA_PUBLIC} metric 10",
    f"route add {VIA_FIBER} table 100",
    f"rule add fwmark {MARK} lookup 100",
    f"rule del fwmark {MARK} lookup 100",
    "link set public down",
    "link set public up",
    f"route replace {VIA_PUBLIC} metric 10",
    "neigh flush dev public",
)


def options():
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rate", type=int, default=20000, metavar="PPS", help="datagrams a second (%(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=200, metavar="N", help="bytes of payload (%(default)s)"
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=12,
        metavar="S",
        help="seconds of streaming, over which the changes are spread (%(default)s)",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("."),
        metavar="DIR",
        help="where demo-report.json and demo-report.html go (here)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the namespaces for a look around afterwards"
    )
    parser.add_argument(
        "-j", "--json", action="store_true", help="print the report as JSON instead of the summary"
    )
    parser.add_argument("--cowire", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--receiver", required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not 100 <= chosen.rate <= 1_000_000:
        parser.error("--rate must be 100 to 1000000")
    if not 16 <= chosen.size <= 1400:
        parser.error("--size must be 16 (sequence number and time) to 1400")
    if not 2 <= chosen.duration <= 600:
        parser.error("--duration must be 2 to 600")
    return chosen


class Demo:
    """One run, from the first datagram to the account."""

    def __init__(self, chosen, world, records_path, screen):
        self.chosen = chosen
        self.world = world
        self.screen = screen
        self.records_path = records_path
        self.arrivals = Arrivals(records_path)
        self.changes = []
        self.origin_ns = 0  # When the first datagram was submitted.
        self.names = world.interface_names()
        self.indices = {name: index for index, name in self.names.items()}

    def run(self):
        chosen = self.chosen
        with contextlib.ExitStack() as stack:
            receiver = stack.enter_context(
                Receiver(self.world.b, chosen.receiver, self.records_path)
            )
            receiver.wait_for(0, timeout_s=10)
            monitor = stack.enter_context(Monitor(self.world.a, chosen.cowire))
            shell = stack.enter_context(self.world.shell())
            sender = stack.enter_context(
                Sender(
                    self.world.a,
                    chosen.cowire,
                    chosen.rate,
                    chosen.size,
                    longest_s=chosen.duration + 60,
                )
            )
            receiver.wait_for(1, timeout_s=20, sender=sender)
            self._stream(receiver, monitor, sender, shell)
            totals = sender.stop()
            time.sleep(0.2)  # What has left A is in B's socket buffer long before.
            receiver.finish_reading()
        self.arrivals.update()
        self._note_arrivals(monitor)
        return analysis.settle(totals, self.arrivals, self.changes, chosen.rate)

    def _stream(self, receiver, monitor, sender, shell):
        """Changes the world step by step under the running stream."""
        pause_s = self.chosen.duration / (len(COMMANDS) + 1)
        self.arrivals.update()
        self.origin_ns = min(self.arrivals.submitted_ns)
        self.screen.start(self.origin_ns)
        self._watch(receiver, monitor, sender, pause_s)
        device = "public"
        for command in COMMANDS:
            begin_ns, end_ns, new_device = shell.change(command)
            downs = command.split()[2] if command.endswith(" down") else None
            self.changes.append(
                analysis.Change(command, begin_ns, end_ns, device, new_device, downs)
            )
            device = new_device
            self._watch(receiver, monitor, sender, pause_s)
            self.screen.change(self.changes[-1])

    def _watch(self, receiver, monitor, sender, pause_s):
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            for program in (receiver, monitor, sender):
                program.fail_if_ended()
            self.arrivals.update()
            self._note_arrivals(monitor)
            self.screen.progress(receiver.report, self.changes)

    def _note_arrivals(self, monitor):
        for change in self.changes:
            if change.first_ns is None:
                change.first_ns = analysis.first_arrival(
                    self.arrivals, self.indices[change.after], change.begin_ns
                )
            if change.published_ns is None:
                change.published_ns = analysis.published_at(change, monitor.changes)


def write(path, text):
    path.write_text(text)
    if "SUDO_UID" in os.environ:  # The file belongs to who called, not to root.
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))


def run(chosen):
    screen = terminal.Screen(sys.stderr if chosen.json else sys.stdout)
    with World(chosen.keep) as world, tempfile.TemporaryDirectory(prefix="cowire-demo-") as scratch:
        screen.heading(chosen)
        demo = Demo(chosen, world, pathlib.Path(scratch) / "records", screen)
        account = demo.run()
        if chosen.keep:
            screen.line(
                f"kept: namespaces {world.a} and {world.b}; remove them with `ip netns del`"
            )
    report = analysis.report(account, demo.changes, demo.origin_ns)
    write(chosen.output / "demo-report.json", json.dumps(report, indent=2) + "\n")
    write(
        chosen.output / "demo-report.html",
        page.render(account, demo.changes, demo.arrivals, demo.names, demo.origin_ns),
    )
    if chosen.json:
        print(json.dumps(report))
    else:
        screen.summary(account, demo.changes, chosen.output)
    complaints = account.complaints()
    for complaint in complaints:
        print(f"demo: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def main():
    chosen = options()
    chosen.output.mkdir(parents=True, exist_ok=True)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        return run(chosen)
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


sys.exit(main())
