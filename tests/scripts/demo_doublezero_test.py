# SPDX-License-Identifier: Apache-2.0
"""The story of `scripts/demo --doublezero`, told once with the programs of this build.

Arguments: the command cowire and sequence_receiver. Exit status 77 (skipped) where the demo says
that it lacks something.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

DEMO = pathlib.Path(__file__).resolve().parents[2] / "scripts/lib/demo"
# Of the stream after each step: tunnels, publication, cut, link down, repair, deletion, tunnel, routes.
PATHS = "fiber fiber public public fiber public fiber fiber fiber".split()


def main(cowire, receiver):
    with tempfile.TemporaryDirectory(prefix="cowire-demo-test-") as folder:
        command = [sys.executable, "-B", str(DEMO), "--doublezero", "--output", folder]
        command += ["--cowire", cowire, "--receiver", receiver, "--rate", "200", "--duration", "6"]
        status = subprocess.run(command).returncode
        if status != 0:
            return status
        report = json.loads((pathlib.Path(folder) / "demo-report.json").read_text())
        picture = (pathlib.Path(folder) / "demo-report.html").read_text()
    assert report["lost"] == 0, report
    assert 0 < report["lost_on_cut_fiber"] <= report["allowance"]["lost_on_cut_fiber"], report
    assert report["lost_in_downed_interface"] == 0, report
    assert [change["path_after"] for change in report["changes"]] == PATHS, report
    assert min(report["received_by_path"].values()) > 100, report
    assert report["first_on_new_path_us"]["moves"] == 5, report
    multicast = report["multicast"]
    assert multicast["lost"] == 0 and multicast["received"] > 100, multicast
    assert multicast["transmitted"]["public"] > 9 * multicast["kernel_path"], multicast
    assert picture.count('class="badge"') == len(PATHS), picture
    return 0


sys.exit(main(*sys.argv[1:]))
