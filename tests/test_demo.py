"""The demo as a newcomer runs it, and as somebody in a hurry stops it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import tomllib

import pytest


def demo(tmp_path, *more):
    command = [
        sys.executable,
        "-m",
        "ihds.demo",
        "--folder",
        str(tmp_path / "nodes"),
        "--report",
        str(tmp_path / "r.html"),
    ]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ports(tmp_path):
    return [tomllib.loads(p.read_text())["port"] for p in (tmp_path / "nodes").glob("*/node.toml")]


def listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_demo_tells_the_whole_story_and_leaves_nothing_behind(tmp_path):
    process = demo(tmp_path)
    said = process.communicate(timeout=180)[0]
    assert process.returncode == 0, said
    assert said.count("   refused: ") == 6
    for words in (
        "Demo Officer: officer, http://127.0.0.1:",
        "Demo Operator is the operator of the secure environment of this project",
        "Demo Assessor may not be the output reviewer of this project",
        "no data permit was presented",
        "refused: EHDS 105",
        "is granted under the EHDS, in simulated time only",
        "R-53-PURPOSE",
        "REVOKED",
        "entries, proved",
        "treatment[T.thiotepa]",
    ):
        assert words in said
    report = (tmp_path / "r.html").read_text()
    assert report.count("<svg") == 2
    for words in ("What left each site", "RiskSums", "Kaplan–Meier", "lih (LU)"):
        assert words in report
    assert not re.search(r'(src|href)="http', report)
    assert not any(listening(p) for p in ports(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_its_nodes(tmp_path, number):
    process = demo(tmp_path)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (len(ports(tmp_path)) == 7 and all(map(listening, ports(tmp_path)))):
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert not any(listening(p) for p in ports(tmp_path))
