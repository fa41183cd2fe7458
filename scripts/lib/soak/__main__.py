# SPDX-License-Identifier: Apache-2.0
"""Mixed traffic through one `cowire run` for a long time, while everything under it changes.

Clients come and go, IPv4 and IPv6, streams and bursts, over one way, two (ECMP) or a table of their
own, while routes, rules, neighbours and links change at random. At the end every datagram must be
accounted for, and neither memory nor descriptors may have grown. Started by scripts/soak. Exit
status 0: so it was. 1: it was not, or it could not run.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
import account
from hosts import Failure
from traffic import Changes, Client, Service, Sink, World

CLIENTS_MAX = 3  # At a time.
CLIENTS_END_S = 60  # How long the last ones may take, which is seconds.
CLIENT_END_S = 5  # How long what one has printed may take to be read, once it has ended.
PROGRESS_PERIOD_S = 10
# Memory is first looked at when caches and pools have had this share of the run to fill.
WARM_UP_SHARE = 0.25


def options():
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--duration", type=float, default=3600, metavar="S", help="seconds of traffic (%(default)s)"
    )
    parser.add_argument("--seed", type=int, help="of what happens when (default: a new one)")
    parser.add_argument(
        "--rss-allowance",
        type=int,
        default=account.Measurements.rss_allowance_kb,
        metavar="KB",
        help="by how much memory may grow after the first quarter (%(default)s)",
    )
    parser.add_argument("-j", "--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--cowire", required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if not 10 <= chosen.duration <= 1_000_000:
        parser.error("--duration must be 10 to 1000000")
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().randrange(1 << 32)
    return chosen


def say(text):
    print(text, file=sys.stderr, flush=True)


def rss_kb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def discarded_without_neighbour():
    """Datagrams that the kernel gave up because their neighbour was not resolved, in all."""
    total = 0
    for cache in ("arp_cache", "ndisc_cache"):
        names, *cpus = pathlib.Path("/proc/net/stat", cache).read_text().splitlines()
        column = names.split().index("unresolved_discards")
        total += sum(int(line.split()[column], 16) for line in cpus)
    return total


class Soak:
    """One run, from the first client to the account."""

    def __init__(self, chosen, world, socket):
        self.chosen = chosen
        self.world = world
        self.socket = socket
        self.random = random.Random(chosen.seed)
        self.changes = Changes(world, random.Random(chosen.seed + 1))
        self.clients = []
        self.sent = account.Sent()
        self.rss_begin_kb = None
        self.rss_max_kb = 0

    def run(self):
        with Sink(self.world) as sink, Service(
            self.world, self.chosen.cowire, self.socket
        ) as service, contextlib.ExitStack() as stack:
            self._wait_for_socket(service)
            pid = service.process.pid
            discarded_before = discarded_without_neighbour()
            self._serve_first_client()
            fds_begin = self._descriptors(pid)
            self._traffic(service, sink, stack)
            self._wait_for_clients()
            time.sleep(1)  # The service notices that the last client has gone.
            measured = account.Measurements(
                rss_begin_kb=self.rss_begin_kb,
                rss_end_kb=rss_kb(pid),
                rss_max_kb=self.rss_max_kb,
                fds_begin=fds_begin,
                fds_end=self._descriptors(pid),
                rss_allowance_kb=self.chosen.rss_allowance,
            )
            totals = service.stop()
            time.sleep(0.5)  # What has left A is at B long before.
            arrived, wrong = sink.arrived()
            discarded = discarded_without_neighbour() - discarded_before
        return account.Account(
            totals, self.sent, arrived, wrong, discarded, self.changes.of_links, measured
        )

    def _wait_for_socket(self, service):
        deadline = time.monotonic() + 30
        while not self.socket.exists():
            service.fail_if_ended()
            if time.monotonic() > deadline:
                raise Failure("`cowire run` had not opened its socket after 30 s")
            time.sleep(0.05)

    def _serve_first_client(self):
        """The source port that all of them use is opened for the first, and stays."""
        with self._client() as first:
            first.settle(CLIENTS_END_S, self.sent)

    def _client(self):
        return Client(self.world, self.chosen.cowire, self.socket, self.random, self.changes)

    def _wait_for_clients(self):
        deadline = time.monotonic() + CLIENTS_END_S
        while self.clients:
            if time.monotonic() > deadline:
                raise Failure(f"clients had not ended after {CLIENTS_END_S} s")
            time.sleep(0.05)
            self._forget_ended()

    @staticmethod
    def _descriptors(pid):
        return len(os.listdir(f"/proc/{pid}/fd"))

    def _traffic(self, service, sink, stack):
        begin = time.monotonic()
        next_progress = begin + PROGRESS_PERIOD_S
        while (elapsed := time.monotonic() - begin) < self.chosen.duration:
            service.fail_if_ended()
            self._forget_ended()
            if len(self.clients) < CLIENTS_MAX:
                self.clients.append(stack.enter_context(self._client()))
            self.changes.next()
            now_kb = rss_kb(service.process.pid)
            self.rss_max_kb = max(self.rss_max_kb, now_kb)
            if self.rss_begin_kb is None and elapsed >= WARM_UP_SHARE * self.chosen.duration:
                self.rss_begin_kb = now_kb
            if time.monotonic() >= next_progress:
                next_progress += PROGRESS_PERIOD_S
                say(
                    f"{elapsed:7.0f} s  {self.sent.clients + len(self.clients)} clients  "
                    f"{sum(self.changes.count.values())} changes  "
                    f"{sink.arrived()[0]} arrived  {now_kb} KiB"
                )
            time.sleep(self.random.uniform(0, 0.3))

    def _forget_ended(self):
        for client in [one for one in self.clients if one.ended()]:
            self.clients.remove(client)
            client.settle(CLIENT_END_S, self.sent)


def print_text(report):
    for name, value in report.items():
        if name == "complaints":
            continue
        if isinstance(value, dict):
            value = "  ".join(f"{key} {number}" for key, number in value.items()) or "none"
        print(f"{name.replace('_', ' '):<16} {value}")


def main():
    chosen = options()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    say(f"soak: {chosen.duration:.0f} s, seed {chosen.seed}")
    begin = time.monotonic()
    try:
        with World(keep=False) as world, tempfile.TemporaryDirectory(prefix="cowire-soak-") as here:
            soak = Soak(chosen, world, pathlib.Path(here) / "socket")
            settled = soak.run()
    except Failure as failure:
        say(f"soak: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130
    report = account.report(settled, time.monotonic() - begin, soak.changes.count)
    if chosen.json:
        print(json.dumps(report))
    else:
        print_text(report)
    for complaint in report["complaints"]:
        say(f"soak: {complaint}")
    return 1 if report["complaints"] else 0


sys.exit(main())
