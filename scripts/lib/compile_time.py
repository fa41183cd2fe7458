# SPDX-License-Identifier: Apache-2.0
"""How long the compiler takes for a source that includes cowire.hpp and awaits one send.

Beside it, in turns: the same with Asio alone, an async_send_to of its UDP socket, from the Asio
headers that cowire.hpp includes; and from the fewest that it can do with, for what those cost. CPU
time of the compiler, which depends less on what else the machine does. Prints medians and ratios,
and fails if a median exceeds AT_MOST times that of the former. Started by scripts/bench as
`compile-time`; by itself it takes another compiler:

    python3 scripts/lib/compile_time.py [--compiler g++] [--asio DIRECTORY] [--repetitions 7]
"""
import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_MOST = 1.25
LEVELS = ("-O0", "-O2")
# As cmake/cowire_module.cmake has them.
FLAGS = ("-std=c++20", "-DASIO_STANDALONE", "-DASIO_NO_DEPRECATED", "-DASIO_HAS_STD_ALIGNED_ALLOC=1")
CLANG_FLAGS = ("-DASIO_HAS_CO_AWAIT=1",)

OURS = """#include <cowire/cowire.hpp>

asio::awaitable<void> send(cowire::sender& sender, const cowire::endpoint& to) {
  co_await sender.async_send(std::string_view("hello"), to, asio::use_awaitable);
}
"""
ASIOS = """
asio::awaitable<void> send(asio::ip::udp::socket& socket, const asio::ip::udp::endpoint& to) {
  co_await socket.async_send_to(asio::buffer("hello", 5), to, asio::use_awaitable);
}
"""
FEWEST = ("asio/awaitable.hpp", "asio/buffer.hpp", "asio/ip/udp.hpp", "asio/use_awaitable.hpp")
REPETITIONS = 7


def same_headers():
    """The lines by which cowire.hpp's headers include Asio's: ring/asio.hpp, and two beside it."""
    own = (ROOT / "ring/asio.hpp").read_text()
    begin, end = own.index("#include <asio/"), own.index("#endif") + len("#endif")
    return own[begin:end] + "\n#include <asio/buffer.hpp>\n#include <asio/ip/udp.hpp>\n"


def sources(directory):
    """Name of each to its file; ours is the first."""
    texts = {
        "cowire": OURS,
        "asio": same_headers() + ASIOS,
        "fewest_headers": "".join(f"#include <{header}>\n" for header in FEWEST) + ASIOS,
    }
    out = {}
    for name, text in texts.items():
        out[name] = directory / f"{name}.cpp"
        out[name].write_text(text)
    return out


def seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr}\ncompile-time: `{' '.join(command)}` failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(compiler, asio, repetitions):
    """CPU seconds of each compilation, by level and source."""
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        (directory / "cowire").symlink_to(ROOT)
        flags = [*FLAGS, *(CLANG_FLAGS if "clang" in compiler else ())]
        if asio:
            flags.append(f"-I{asio}")
        took = {(level, who): [] for level in LEVELS for who in sources(directory)}
        for _ in range(repetitions):
            for level, who in took:
                source = str(directory / f"{who}.cpp")
                flags_now = [*flags, level, f"-I{directory}", "-c", source, "-o", "/dev/null"]
                took[level, who].append(seconds([compiler, *flags_now]))
    return took


def benchmarks(took):
    """As Google Benchmark prints them, which scripts/bench reads."""
    return [
        {
            "name": f"compile_time/{who}/{level}",
            "run_name": f"compile_time/{who}/{level}",
            "run_type": "iteration",
            "real_time": one * 1e9,
            "time_unit": "ns",
        }
        for (level, who), values in took.items()
        for one in values
    ]


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compiler", default="g++", metavar="NAME")
    parser.add_argument("--asio", type=pathlib.Path, metavar="DIRECTORY", help="another Asio's headers")
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main():
    chosen = options()
    took = measure(chosen.compiler, chosen.asio, chosen.repetitions)
    medians = {key: statistics.median(values) for key, values in took.items()}
    within = True
    for level in LEVELS:
        ours, peer = medians[level, "cowire"], medians[level, "asio"]
        within = within and ours <= peer * AT_MOST
        told = f"{level}: cowire {ours:.2f} s, Asio {peer:.2f} s: {ours / peer:.3f} x, at most {AT_MOST}"
        fewest = medians[level, "fewest_headers"]
        print(f"{told}; from its fewest headers {fewest:.2f} s: {ours / fewest:.3f} x", file=sys.stderr)
    if chosen.json:
        print(json.dumps({"benchmarks": benchmarks(took)}))
    if not within and not chosen.json:
        sys.exit("compile-time: cowire.hpp costs too much (clang's -ftime-trace tells where)")


if __name__ == "__main__":
    main()
