# SPDX-License-Identifier: Apache-2.0
"""demo-report.html: who carried the stream, when, and each change marked. Fetches nothing."""
import html
import pathlib
import re

from analysis import CAUSES
from terminal import duration, path
from world import PATHS

BIN_NS = 50_000_000
WIDTH = 1000
LEFT, RIGHT, TOP = 86, 12, 34
LANE_HEIGHT, LANE_GAP = 92, 26

STYLE = (pathlib.Path(__file__).parent / "page.css").read_text()


class Timeline:
    """The picture: a lane a path with its rate in bins of 50 ms, a vertical line a change."""

    def __init__(self, arrivals, paths, changes, origin_ns):
        self.changes = changes
        self.origin_ns = origin_ns
        self.span_ns = max(arrivals.arrived_ns) - origin_ns
        bins = self.span_ns // BIN_NS + 1
        self.counts = {name: [0] * bins for name in PATHS}
        for at_ns, index in zip(arrivals.arrived_ns, arrivals.interface):
            self.counts[paths[index]][max(0, at_ns - origin_ns) // BIN_NS] += 1
        # The last bin is cut off by the end of the stream, the scale leaves some air above.
        self.ceiling = 1.15 * max(max(counts) for counts in self.counts.values())

    def x(self, at_ns):
        return LEFT + (WIDTH - LEFT - RIGHT) * (at_ns - self.origin_ns) / self.span_ns

    def lane_bottom(self, lane):
        return TOP + LANE_HEIGHT * (lane + 1) + LANE_GAP * lane

    def draw(self):
        bottom = self.lane_bottom(len(PATHS) - 1)
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {bottom + 30}" role="img" '
            'aria-label="Rate of arrivals by path">'
        ]
        parts += [self._downtime(lane, name) for lane, name in enumerate(PATHS)]
        parts += [self._lane(lane, name) for lane, name in enumerate(PATHS)]
        parts += [self._axis(bottom)]
        parts += [
            self._mark(number, change, bottom) for number, change in enumerate(self.changes, 1)
        ]
        return "\n".join(parts) + "\n</svg>"

    def _lane(self, lane, name):
        bottom = self.lane_bottom(lane)
        points = [f"M{LEFT},{bottom}"]
        for number, count in enumerate(self.counts[name]):
            y = bottom - LANE_HEIGHT * count / self.ceiling
            begin = self.x(self.origin_ns + number * BIN_NS)
            end = min(self.x(self.origin_ns + (number + 1) * BIN_NS), WIDTH - RIGHT)
            points.append(f"L{begin:.1f},{y:.1f}L{end:.1f},{y:.1f}")
        points.append(f"L{WIDTH - RIGHT},{bottom}Z")
        peak = max(self.counts[name]) * 1_000_000_000 // BIN_NS
        return (
            f'<path class="{name}" d="{"".join(points)}"/>'
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>'
            f'<text class="name" x="0" y="{bottom - LANE_HEIGHT / 2}">{name}</text>'
            f'<text x="0" y="{bottom - LANE_HEIGHT / 2 + 17}">peak {peak / 1000:.0f} k/s</text>'
        )

    def _downtime(self, lane, name):
        """Shades the time between a break and its repair."""
        parts = []
        began_ns = None
        for change in self.changes:
            if change.breaks == name:
                began_ns = change.begin_ns
            elif began_ns and change.repairs == name:
                x, width = self.x(began_ns), self.x(change.begin_ns) - self.x(began_ns)
                top = self.lane_bottom(lane) - LANE_HEIGHT
                parts.append(
                    f'<rect class="down" x="{x:.1f}" y="{top}" width="{width:.1f}" '
                    f'height="{LANE_HEIGHT}"/><text class="down-text" '
                    f'x="{x + width / 2:.1f}" y="{top + LANE_HEIGHT / 2}">down</text>'
                )
                began_ns = None
        return "".join(parts)

    def _axis(self, bottom):
        step_s = max(1, round(self.span_ns / 12e9))
        parts = []
        for second in range(0, int(self.span_ns / 1e9) + 1, step_s):
            x = self.x(self.origin_ns + second * 1_000_000_000)
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" y2="{bottom + 5}"/>'
                f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{second} s</text>'
            )
        return "".join(parts)

    def _mark(self, number, change, bottom):
        x = self.x(change.begin_ns)
        label = pretty(f"{change.command}: {path(change)}, {duration(change.latency_us)}")
        return (
            f"<g><title>{label}</title>"
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="22" y2="{bottom}"/>'
            f'<circle class="badge" cx="{x:.1f}" cy="12" r="10"/>'
            f'<text class="badge-text" x="{x:.1f}" y="16">{number}</text></g>'
        )


def pretty(text):
    """The terminal's plain characters, as print would have them."""
    return html.escape(text.replace("->", "\u2192").replace(" us", " \u00b5s"))


def tiles(account):
    facts = [("submitted", account.submitted, False)]
    facts += [(label, count, False) for label, count in account.carriers()]
    facts += [
        ("kernel path", account.kernel_path, False),
        ("refused", account.refused, False),
        ("received", account.received, False),
        *((f"by the {path} path", n, False) for path, n in account.received_by_path.items()),
        ("lost", account.lost, account.lost != 0),
    ]
    facts += [
        (f"{CAUSES[cause]} (at most {each.allowance})", each.lost, each.lost > each.allowance)
        for cause, each in account.excused.items()
    ]
    facts.append(("reordered", account.reordered, False))
    items = (
        f'<div><dt>{name}</dt><dd{" class=bad" if bad else ""}>{count:,}</dd></div>'
        for name, count, bad in facts
    )
    return f"<dl>{''.join(items)}</dl>".replace(",", "\u202f")


def change_table(changes, origin_ns, heading):
    rows = []
    for number, change in enumerate(changes, 1):
        rows.append(
            f'<tr><td class="n">{number}</td>'
            f'<td class="n">{(change.begin_ns - origin_ns) / 1e9:.2f} s</td>'
            f"<td><code>{html.escape(change.command)}</code></td><td>{pretty(path(change))}</td>"
            f'<td class="n">{pretty(duration(change.latency_us))}</td></tr>'
        )
    return (
        f'<table><thead><tr><th class="n">#</th><th class="n">at</th><th>{heading}</th>'
        '<th>path of the stream, as the kernel says</th><th class="n">first datagram on it</th>'
        "</tr></thead><tbody>" + "\n".join(rows) + "</tbody></table>"
    )


def render(account, changes, arrivals, paths, origin_ns, words):
    timeline = Timeline(arrivals, paths, changes, origin_ns)
    clock = re.sub("`(.*?)`", r"<code>\1</code>", words.clock)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>cowire demo</title><style>{STYLE}</style></head><body>
<h1>{words.headline}</h1>
<p>{words.picture}</p>
{tiles(account)}
{timeline.draw()}
{change_table(changes, origin_ns, words.change)}
<p>{clock}</p>
</body></html>
"""
