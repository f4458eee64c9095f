"""The demo as a newcomer runs it, and as somebody in a hurry stops it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib

import pytest

from ihds.cli import main
from tests.conftest import ROOT


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


@pytest.fixture
def kept(tmp_path):
    """The nodes that a demo left running, as it told of them."""
    process = demo(tmp_path, "--keep")
    said = process.communicate(timeout=180)[0]
    left = [int(n) for n in re.search(r"^\s*kill ([\d ]+)$", said, re.MULTILINE)[1].split()]
    try:
        yield said
    finally:
        for number in left:
            os.kill(number, signal.SIGKILL)


def test_the_tutorial_does_what_it_says(kept, tmp_path, capsys, monkeypatch):
    """Every command and the Python lines of the tutorial are run, in order, by persons whom the demo left signed in."""
    text = (ROOT / "docs/tutorials/first-study.md").read_text()
    shell, python = re.findall(r"```(?:sh|python)\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path / "nodes")
    names = {"urn:uuid:AGREEMENT": re.search(r"agreement (urn:uuid:\S+) is in force", kept)[1]}
    ran = 0
    for line in shell.replace("\\\n", " ").splitlines():
        command, _, remark = line.partition("#")
        for placeholder, value in names.items():
            command = command.replace(placeholder, value)
        words = shlex.split(command)
        if not words or words[0] != "ihds":
            continue
        if words[1:3] == ["permit", "revoke"]:
            lines = python.replace("urn:uuid:PERMIT", names["urn:uuid:PERMIT"])
            notebook: dict = {}
            exec(compile(lines, "tutorial", "exec"), notebook)
            notebook["space"].close()
        assert main(words[1:]) == (12 if "refused" in remark else 0), command
        out = capsys.readouterr().out
        ran += 1
        if words[1] == "apply":
            names["urn:uuid:APPLICATION"] = re.search(r"urn:uuid:[0-9a-f-]{36}", out)[0]
        if words[1:3] == ["permit", "decide"] and "refused" not in remark:
            names["urn:uuid:PERMIT"] = re.search(r"urn:uuid:[0-9a-f-]{36}", out)[0]
    assert ran == 17
