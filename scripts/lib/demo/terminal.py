# SPDX-License-Identifier: Apache-2.0
"""What the demo shows while it runs and at the end. The moving part appears on a terminal only."""
import shutil
import time

import publication
from analysis import CAUSES, move_latencies_us
from world import PATHS

BAR_WIDTH = 24


def duration(us):
    if us is None:
        return "-"
    return f"{us:.0f} us" if us < 10_000 else f"{us / 1000:.1f} ms"


def path(change):
    if not change.moves:
        return f"{change.after} stays"
    by_daemon = change.old_path_ns is not None
    after = f" after {(change.old_path_ns - change.begin_ns) / 1e9:.1f} s" if by_daemon else ""
    return f"{change.before} -> {change.after}{after}"


class Screen:
    def __init__(self, out, world):
        self._out = out
        self._world = world
        self._live = out.isatty()
        self._live_lines = 0
        self._last = None  # The report that the rates are of,
        self._last_at = 0.0  # and when it came.
        self._rates = dict.fromkeys(PATHS, 0.0)
        self._rate = 1
        self._origin_ns = 0

    def line(self, text=""):
        self._erase()
        print(text, file=self._out, flush=True)

    def heading(self, chosen):
        self._rate = chosen.rate
        self.line(
            f"host A sends {chosen.rate} datagrams/s of {chosen.size} bytes, "
            f"{self._world.WORDS.stream}"
        )
        self.line()
        self.line(
            f"{'at':>8}  {self._world.WORDS.change:<62} {'path of the stream':<28} "
            f"{'first on it':>12}"
        )

    def start(self, origin_ns):
        """The stream began at that moment."""
        self._origin_ns = origin_ns

    def change(self, change):
        at_s = (change.begin_ns - self._origin_ns) / 1e9
        self.line(
            f"{at_s:6.2f} s  {change.command:<62} {path(change):<28} "
            f"{duration(change.latency_us):>12}"
        )

    def progress(self, report, changes):
        if not self._live:
            return
        if report is not self._last:
            self._measure(report)
        self._erase()
        rows = [
            f"  {name:<8} {self._bar(name)} {self._rates[name]:>9.0f}/s  "
            f"{self._received(report, name):>10}"
            for name in PATHS
        ]
        rows.append(
            f"  received {report['received']} by {(time.time_ns() - self._origin_ns) / 1e9:.1f} s, "
            f"{len(changes)} changes"
        )
        width = shutil.get_terminal_size().columns
        print("\n".join(row[: width - 1] for row in rows), file=self._out, flush=True)
        self._live_lines = len(rows)

    def summary(self, account, changes, folder, published=None):
        self.line()
        rows = [("submitted", account.submitted)]
        rows += account.carriers()
        rows += [
            ("sent by the kernel path", account.kernel_path),
            ("refused", account.refused),
            ("received by host B", account.received),
            *((f"  by the {path} path", n) for path, n in account.received_by_path.items()),
            ("lost", account.lost),
        ]
        rows += [
            (f"{CAUSES[cause]} (at most {each.allowance})", each.lost)
            for cause, each in account.excused.items()
        ]
        rows.append(("reordered", account.reordered))
        if published:
            rows += publication.rows(published)
        for label, count in rows:
            self.line(f"{label:<48} {count:>12}")
        if moved := move_latencies_us(changes):
            self.line(
                f"{'change to first datagram on the new path':<48} {duration(min(moved)):>12} to "
                f"{duration(max(moved))}"
            )
        self.line()
        self.line(self._world.WORDS.clock)
        self.line(f"Details: {folder / 'demo-report.json'}, picture: {folder / 'demo-report.html'}")

    def _received(self, report, path):
        arrivals = self._world.ARRIVALS
        return sum(n for name, n in report["interfaces"].items() if arrivals.get(name) == path)

    def _measure(self, report):
        now = time.monotonic()
        if self._last:
            for name in PATHS:
                count = self._received(report, name) - self._received(self._last, name)
                self._rates[name] = count / (now - self._last_at)
        self._last, self._last_at = report, now

    def _bar(self, name):
        filled = min(BAR_WIDTH, round(BAR_WIDTH * self._rates[name] / self._rate))
        return "#" * filled + "." * (BAR_WIDTH - filled)

    def _erase(self):
        if self._live_lines:
            print(f"\x1b[{self._live_lines}A\x1b[J", end="", file=self._out)
            self._live_lines = 0
