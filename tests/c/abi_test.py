# SPDX-License-Identifier: Apache-2.0
"""Holds c/cowire.h and libcowire.so to the ABI that is recorded in c/cowire.abi.

    abi_test.py LIBRARY    compares; exit status 77 where it cannot
    abi_test.py --record   records what the header says now

Types come from the header: compiled as C, with functions that do nothing, its layouts and
parameters are compared with the record by abidiff. The library's definitions are held to the header
by the compiler, and abidiff compares the symbols, their version and the soname. So the library needs
no debug information: that of optimised C++ lacks parameters, and has 2 MB of what is behind the
handles.
"""
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADER, MAP, RECORD = (ROOT / "c" / name for name in ("cowire.h", "cowire.map", "cowire.abi"))
SONAME = "libcowire.so.0"
AGAIN = "If this is meant, record it: python3 -B tests/c/abi_test.py --record"
SKIPPED = 77


def run(*command, **more):
    subprocess.run([*map(str, command)], check=True, **more)


def functions_of(header):
    """A source of C that defines all that the header declares."""
    declared = re.findall(r"^COWIRE_API ([^;]+);", header, re.MULTILINE)
    bodies = ("{}" if one.startswith("void ") else "{ return 0; }" for one in declared)
    return "\n".join(f"{one} {body}" for one, body in zip(declared, bodies))


def stand_in(folder, header):
    """A library with the types of the header."""
    (folder / "cowire.h").write_text(header)
    (folder / "cowire.c").write_text(f'#include "cowire.h"\n{functions_of(header)}\n')
    out = folder / "libcowire.so"
    link = f"-Wl,-soname,{SONAME},--version-script={MAP}"
    run("cc", "-std=c11", "-g", "-shared", "-fPIC", "cowire.c", link, "-o", out, cwd=folder)
    return out


def record(header, out):
    with tempfile.TemporaryDirectory() as folder:
        library = stand_in(pathlib.Path(folder), header)
        run(
            "abidw",
            "--drop-private-types",
            *("--header-file", pathlib.Path(folder, "cowire.h")),
            *("--type-id-style", "hash"),
            *("--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed"),
            *("--out-file", out, library),
        )


def difference(old, new):
    """What abidiff has to say, of additions, too; "" = nothing."""
    done = subprocess.run(["abidiff", str(old), str(new)], capture_output=True, text=True)
    return done.stdout + done.stderr if done.returncode != 0 else ""


class Abi(unittest.TestCase):
    library = None  # Of this build.

    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.folder = pathlib.Path(made.name)

    def change_of(self, before, after):
        """What is said of a header in which that is changed."""
        header = HEADER.read_text()
        self.assertEqual(header.count(before), 1, before)
        changed = stand_in(self.folder, header.replace(before, after))
        return difference(RECORD, changed)

    def test_header_is_as_recorded(self):
        said = difference(RECORD, stand_in(self.folder, HEADER.read_text()))
        if said:
            self.fail(f"{said}{AGAIN}")

    def test_library_exports_what_is_recorded(self):
        symbols = {}
        recorded = stand_in(self.folder, HEADER.read_text())
        for name, whole in (("recorded", recorded), ("built", self.library)):
            symbols[name] = self.folder / f"{name}.so"
            run("objcopy", "--strip-debug", whole, symbols[name])
        if said := difference(symbols["recorded"], symbols["built"]):
            self.fail(f"{said}The library does not export what cowire.h declares (c/cowire.map)")

    def test_member_in_the_middle_is_reported(self):
        said = self.change_of("  size_t length;     /* In", "  int added;\n  size_t length;     /* In")
        self.assertIn("cowire_datagram", said)

    def test_other_parameter_is_reported(self):
        said = self.change_of("cowire_payload_max(const cowire_sender *s)", "cowire_payload_max(int s)")
        self.assertIn("cowire_payload_max", said)

    def test_function_that_went_is_reported(self):
        said = self.change_of("COWIRE_API const char *cowire_version(void);", "")
        self.assertIn("1 Removed function", said)

    def test_new_function_is_reported(self):
        kept = "COWIRE_API const char *cowire_version(void);"
        said = self.change_of(kept, f"{kept}\nCOWIRE_API int cowire_new(void);")
        self.assertIn("1 Added function", said)


def skip(reason):
    print(f"abi_test: not compared: {reason}")
    sys.exit(SKIPPED)


def main():
    if not shutil.which("abidiff"):
        skip("abidiff is missing (scripts/setup installs it)")
    if platform.machine() != "x86_64":
        skip(f"{RECORD.name} is that of x86_64")
    if sys.argv[1:] == ["--record"]:
        record(HEADER.read_text(), RECORD)
        return
    Abi.library = sys.argv.pop(1)
    unittest.main(verbosity=2)


if __name__ == "__main__":
    main()
