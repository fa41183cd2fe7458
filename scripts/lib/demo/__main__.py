# SPDX-License-Identifier: Apache-2.0
"""Streams from host A to host B with `cowire send` while the routes under it move.

Started by scripts/demo. Exit status 0: nothing was lost. 1: something was, or it could not run.
77: this machine lacks what the story needs.
"""
import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import analysis
import doublezero
import page
import publication
import terminal
from hosts import Failure
from stream import Arrivals, Monitor, Receiver, Sender
from uplinks import Uplinks
from world import ROUTES_LIMIT_S

NOT_HERE = 77
REPORTS = ("demo-report.json", "demo-report.html")


def options():
    stories = (Uplinks, doublezero.DoubleZero)
    defaults = [
        "%s; with --doublezero %s" % tuple(getattr(story, name) for story in stories)
        for name in ("RATE_PPS", "DURATION_S")
    ]
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--doublezero",
        dest="story",
        action="store_const",
        const=doublezero.DoubleZero,
        default=Uplinks,
        help="the other story: GRE tunnels, BGP, a fiber that is cut; in a virtual machine if this "
        "kernel has no GRE",
    )
    parser.add_argument(
        "--rate", type=int, metavar="PPS", help=f"datagrams a second ({defaults[0]})"
    )
    parser.add_argument(
        "--size", type=int, default=200, metavar="N", help="bytes of payload (%(default)s)"
    )
    parser.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="seconds of streaming, over which the changes are spread, besides what routing "
        f"daemons take ({defaults[1]})",
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
    parser.add_argument("--lab", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.rate is None:
        chosen.rate = chosen.story.RATE_PPS
    if chosen.duration is None:
        chosen.duration = chosen.story.DURATION_S
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
        self.paths = world.paths_of_arrival()
        self.indices = {path: index for index, path in self.paths.items()}
        self.steps = []
        self.programs = []
        self.receiver = self.monitor = None
        self.next_look = 0.0
        self.published = None  # What became of what the world has sent besides.

    def run(self):
        chosen, world = self.chosen, self.world
        a, b = world.namespace("a"), world.namespace("b")
        with contextlib.ExitStack() as stack:

            def start(program):
                self.programs.append(stack.enter_context(program))
                return program

            self.receiver = start(Receiver(b, chosen.receiver, self.records_path))
            self.receiver.wait_for(0, timeout_s=10)
            self.start = start
            for daemon in world.daemons(self.records_path.parent, chosen):
                start(daemon)
            self.monitor = start(Monitor(a, chosen.cowire))
            shell = stack.enter_context(world.shell())
            self.steps = world.steps()
            longest_s = chosen.duration + 60 + ROUTES_LIMIT_S * len(self.steps)
            sender = start(Sender(world, chosen.cowire, chosen.rate, chosen.size, longest_s))
            self.receiver.wait_for(1, timeout_s=20, sender=sender)
            self._stream(shell)
            self.published = world.settle(self.changes)
            totals = sender.stop()
            time.sleep(0.2)  # What has left A is in B's socket buffer long before.
            self.receiver.finish_reading()
        self.arrivals.update()
        self._note_arrivals()
        return analysis.settle(
            totals, self.arrivals, self.changes, chosen.rate, self.paths, world.dropped()
        )

    def _stream(self, shell):
        """Changes the world step by step under the running stream."""
        pause_s = self.chosen.duration / (len(self.steps) + 1)
        self.arrivals.update()
        self.origin_ns = min(self.arrivals.submitted_ns)
        self.screen.start(self.origin_ns)
        self._watch(pause_s)
        path = "public"
        for step in self.steps:
            self.changes.append(self._perform(step, path, shell))
            path = self.changes[-1].after
            self._watch(pause_s)
            self.screen.change(self.changes[-1])

    def _perform(self, step, before, shell):
        begin_ns, end_ns, after = shell.change(step.in_a)
        old_path_ns = new_path_ns = None
        if step.starts:  # Here: a program ends with the thread that has started it.
            self.start(step.starts())
        if step.action:
            with concurrent.futures.ThreadPoolExecutor() as aside:
                action = aside.submit(step.action)
                if step.until_path:
                    old_path_ns, new_path_ns = self._wait_for_path(step, action, begin_ns, shell)
                while not action.done():
                    self._watch(0.05)
                action.result()  # Or why it failed.
            _, end_ns, after = shell.change()
        return analysis.Change(
            step.title,
            begin_ns,
            end_ns,
            before,
            after,
            step.breaks,
            step.cause,
            step.repairs,
            old_path_ns,
            new_path_ns,
        )

    def _wait_for_path(self, step, action, begin_ns, shell):
        """Returns the last moment when A was still told the old path, and the next, when not."""
        deadline = time.monotonic() + ROUTES_LIMIT_S
        old_path_ns = begin_ns
        while True:
            asked_ns, answered_ns, path = shell.change()
            if path == step.until_path:
                return old_path_ns, answered_ns
            old_path_ns = asked_ns
            if action.done():
                action.result()  # Or why it failed.
            if time.monotonic() > deadline:
                raise Failure(f"{step.title}: no {step.until_path} path after {ROUTES_LIMIT_S} s")
            self._look()
            time.sleep(0.001)

    def _watch(self, pause_s):
        end = time.monotonic() + pause_s
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            self._look()

    def _look(self):
        for program in self.programs:
            program.fail_if_ended()
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + 0.15
        self.arrivals.update()
        self._note_arrivals()
        self.screen.progress(self.receiver.report, self.changes)

    def _note_arrivals(self):
        for change in self.changes:
            if change.first_ns is None:
                change.first_ns = analysis.first_arrival(
                    self.arrivals, self.indices[change.after], change.since_ns
                )
            if change.published_ns is None:
                change.published_ns = analysis.published_at(change, self.monitor.changes)


def write(path, text):
    path.write_text(text)
    if "SUDO_UID" in os.environ:  # The file belongs to who called, not to root.
        os.chown(path, int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"]))


def run(chosen):
    world = chosen.story(chosen.keep)
    screen = terminal.Screen(sys.stderr if chosen.json else sys.stdout, world)
    with world, tempfile.TemporaryDirectory(prefix="cowire-demo-") as scratch:
        screen.heading(chosen)
        demo = Demo(chosen, world, pathlib.Path(scratch) / "records", screen)
        account = demo.run()
        if chosen.keep:
            names = ", ".join(map(world.namespace, world.HOSTS))
            screen.line(f"kept: namespaces {names}; remove them with `ip netns del`")
    report = analysis.report(account, demo.changes, demo.origin_ns)
    if demo.published:
        report["multicast"] = demo.published
    picture = page.render(
        account, demo.changes, demo.arrivals, demo.paths, demo.origin_ns, world.WORDS
    )
    for name, text in zip(REPORTS, (json.dumps(report, indent=2) + "\n", picture)):
        write(chosen.output / name, text)
    if chosen.json:
        print(json.dumps(report))
    else:
        screen.summary(account, demo.changes, chosen.output, demo.published)
    complaints = account.complaints()
    if demo.published:
        complaints += publication.complaints(demo.published)
    for complaint in complaints:
        print(f"demo: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


def run_in_lab(chosen):
    """The same under another kernel; the lab brings the reports back."""
    words = [word for word in sys.argv[1:] if word != f"--lab={chosen.lab}"]
    with tempfile.TemporaryDirectory(prefix="cowire-demo-") as folder:
        out = pathlib.Path(folder)
        limit_s = 1200 + 2 * chosen.duration
        lab = [chosen.lab, "run", "--out", folder, "--timeout", str(limit_s), "--", "bash", "-c"]
        inside = ['exec "$@" --output "$LAB_OUT"', "bash", "python3", "-B", sys.argv[0], *words]
        lab_output = sys.stderr if chosen.json else sys.stdout
        status = subprocess.run([*lab, *inside], stdout=lab_output).returncode
        for name in REPORTS:
            if (out / name).exists():
                write(chosen.output / name, (out / name).read_text())
        if chosen.json and (out / REPORTS[0]).exists():
            print(json.dumps(json.loads((out / REPORTS[0]).read_text())))
    return status


def main():
    chosen = options()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        reason = chosen.story.reason_not_here()
        if reason and not chosen.lab:
            print(f"demo: {reason}")
            return NOT_HERE
        chosen.output.mkdir(parents=True, exist_ok=True)
        if reason:
            print(f"demo: {reason}: going on in a virtual machine", file=sys.stderr)
            return run_in_lab(chosen)
        return run(chosen)
    except Failure as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


sys.exit(main())
