# SPDX-License-Identifier: Apache-2.0
"""one_thread_test.py CTEST FOLDER: the GoogleTest programs of this build with the label one-thread,
which ThreadSanitizer does not see, are those that cannot start a thread."""
import json
import pathlib
import subprocess
import sys

STARTERS = ("pthread_create", "_M_start_thread")


def tests(ctest, folder):
    """Names, programs and labels, of those programs that are made from the sources of a test."""
    command = [ctest, "--test-dir", folder, "--show-only=json-v1"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for test in json.loads(listed)["tests"]:
        program = pathlib.Path(test.get("command", [""])[0])
        if program.name == f"test_{test['name']}" and program.exists():
            labels = [p["value"] for p in test["properties"] if p["name"] == "LABELS"]
            yield test["name"], program, labels[0] if labels else []


def can_start_a_thread(program):
    imported = subprocess.run(["nm", "-D", program], check=True, capture_output=True, text=True)
    return any(starter in imported.stdout for starter in STARTERS)


def main(ctest, folder):
    wrong, seen = [], 0
    for name, program, labels in tests(ctest, folder):
        seen += 1
        if can_start_a_thread(program) == ("one-thread" in labels):
            wrong.append(name)
    assert seen > 0, "no program of a test is built"
    for name in wrong:
        print(f"{name}: ONE_THREAD where it can start threads, or the other way round")
    return 1 if wrong else 0


sys.exit(main(*sys.argv[1:]))
