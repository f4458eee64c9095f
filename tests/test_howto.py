"""The how-to pages: what they say is what the commands take; the newcomer's ten minutes are run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ihds.cli import build_parser, main
from ihds.governance.policy import validate
from ihds.roles.config import free_port
from tests.conftest import ROOT

PAGES = [*sorted((ROOT / "docs/how-to").glob("*.md")), ROOT / "README.md", ROOT / "docs/tutorials/first-study.md"]


def blocks(path: Path, kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", path.read_text(), re.DOTALL) + [
        "\n".join(line.strip() for line in block.splitlines())
        for block in re.findall(rf"   ```{kind}\n(.*?)   ```", path.read_text(), re.DOTALL)
    ]


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.stem)
def test_every_command_of_a_page_is_one(path):
    parser = build_parser()
    for block in blocks(path, "sh"):
        for line in re.split(r"\n|&&|\|\|", block.replace("\\\n", " ")):
            words = shlex.split(re.split(r"#| >", line)[0].replace("&", ""))
            if words[:1] == ["ihds"]:
                parser.parse_args(words[1:])


def test_the_policy_of_the_page_is_sound(tmp_path, capsys):
    policy = json.loads(blocks(ROOT / "docs/how-to/policies.md", "json")[0])
    assert validate(policy) == []
    (tmp_path / "offer.json").write_text(json.dumps(policy))
    call = ["policy", "explain", "--offer", str(tmp_path / "offer.json"), "--fact", "permitStatus=GRANTED"]
    assert main([*call, "--fact", "recipientCountry=US"]) == 12
    assert main([*call, "--fact", "recipientCountry=KR"]) == 0
    assert "GRANTED" in capsys.readouterr().out


def carried_out(page: str, folder: Path) -> str:
    """Run a page's lines in a shell; only the ports are others."""
    script = "\n".join(blocks(ROOT / f"docs/how-to/{page}.md", "sh"))
    for port in sorted(set(re.findall(r"\b9[12]0\d\b", script))):
        script = script.replace(port, str(free_port()))
    bins = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{bins}:{os.environ['PATH']}", "IHDS_SECRETS": str(folder / "secrets")}
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n{script}"],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_newcomer_connects_two_nodes_as_the_page_says(tmp_path):
    said = carried_out("two-connected-nodes", tmp_path)
    assert "GRANTED" in said
    assert said.count("FINALIZED") >= 2
    assert (tmp_path / "fetched.csv").read_bytes() == (tmp_path / "codebook.csv").read_bytes()


def test_a_person_opts_out_as_the_page_says(tmp_path):
    said = carried_out("opt-out", tmp_path)
    assert "Reçu" in said
    assert '"choice": "REVERSED"' in said
    assert "all: REVERSED" in said


def test_people_sign_in_as_the_page_says(tmp_path):
    said = carried_out("sign-in", tmp_path)
    assert "A. Assessor at did:web:127.0.0.1" in said
    assert "did:web:user.example is excluded until" in said
    for words in ("refused: for the officer", "refused: by a person", "nobody is signed in"):
        assert words in said
    assert not (tmp_path / "anna/session.json").exists()
