# SPDX-License-Identifier: Apache-2.0
"""Through which sources clang-tidy looks at what changed, in a scratch repository."""
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/test"))
import tidy

FILES = {
    "async/alone.hpp": "",
    "async/frames.hpp": "",
    "async/intake.hpp": "#include <cowire/async/frames.hpp>\n",
    "async/payload.cpp": "#include <cowire/async/intake.hpp>\n",
    "async/sender.cpp": "#include <cowire/async/sender.hpp>\n",
    "async/sender.hpp": "#include <cowire/ring/timer.hpp>\n#include <vector>\n",
    "bench/bench.cpp": '#include "testbed/lab.hpp"\n',
    "ring/timer.hpp": "#pragma once\n",
    "testbed/lab.hpp": "",
    "tests/route/lpm_test.cpp": '#include "world.hpp"\n#include "../support/hosts.hpp"\n',
    "tests/route/world.hpp": "",
    "tests/support/hosts.hpp": "",
    "tests/route/zeal_test.cpp": '#include "world.hpp"\n#include <cowire/ring/timer.hpp>\n',
}


class ChangedSources(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)
        patch = mock.patch.object(tidy, "ROOT", self.folder)
        patch.start()
        self.addCleanup(patch.stop)
        for name, text in FILES.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        self.git("init")
        self.git("add", ".")
        self.git("commit", "-m", "All that there is")

    def git(self, *words):
        person = ["-c", "user.name=a", "-c", "user.email=a@b"]
        command = ["git", "-C", self.folder, *person, *words]
        subprocess.run(command, check=True, capture_output=True)

    def seen(self, *names, not_compiled=()):
        """When these change: the sources, and the headers that none shows."""
        for name in names:
            with open(self.folder / name, "a") as file:
                file.write("int changed;\n")

        def is_compiled(name):
            return (self.folder / name).exists() and str(name) not in not_compiled

        sources, unseen = tidy.changed_sources("HEAD", is_compiled)
        return [str(name) for name in sources], [str(name) for name in unseen]

    def test_nothing_changed(self):
        self.assertEqual(self.seen(), ([], []))

    def test_a_source_is_looked_at_itself(self):
        self.assertEqual(self.seen("async/payload.cpp"), (["async/payload.cpp"], []))

    def test_a_header_is_seen_through_the_source_of_its_name(self):
        self.assertEqual(self.seen("async/sender.hpp"), (["async/sender.cpp"], []))

    def test_a_header_without_one_is_seen_through_the_first_source_that_includes_it(self):
        for header, source in (
            ("testbed/lab.hpp", "bench/bench.cpp"),  # From the root,
            ("tests/route/world.hpp", "tests/route/lpm_test.cpp"),  # its own folder,
            ("tests/support/hosts.hpp", "tests/route/lpm_test.cpp"),  # and another.
        ):
            self.assertEqual(self.seen(header), ([source], []), header)
            self.git("checkout", ".")

    def test_who_includes_it_directly_goes_before_who_includes_it_through_a_header(self):
        self.assertEqual(self.seen("ring/timer.hpp"), (["tests/route/zeal_test.cpp"], []))

    def test_where_headers_alone_include_it_a_source_that_includes_these_will_do(self):
        self.assertEqual(self.seen("async/frames.hpp"), (["async/payload.cpp"], []))

    def test_a_source_that_is_not_compiled_shows_nothing(self):
        left_out = ("tests/route/lpm_test.cpp", "async/payload.cpp")
        found = self.seen(*left_out, "tests/route/world.hpp", not_compiled=left_out)
        self.assertEqual(found, (["tests/route/zeal_test.cpp"], []))

    def test_a_header_that_no_source_shows_is_named(self):
        self.assertEqual(self.seen("async/alone.hpp"), ([], ["async/alone.hpp"]))
        (self.folder / "async/alone.hpp").write_text("#include <cowire/async/alone.hpp>\n")
        self.assertEqual(self.seen(), ([], ["async/alone.hpp"]))

    def test_what_git_does_not_know_yet_counts_and_what_is_gone_does_not(self):
        (self.folder / "ring/fresh.hpp").write_text("")
        (self.folder / "ring/user.cpp").write_text("#include <cowire/ring/fresh.hpp>\n")
        (self.folder / "async/alone.hpp").unlink()
        (self.folder / "async/payload.cpp").unlink()
        self.assertEqual(self.seen(), (["ring/user.cpp"], []))


unittest.main()
