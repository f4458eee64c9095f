"""A holder in two zones: rows behind a firewall that lets nothing in, and a study that runs all the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ihds.cohorts import bladder_cancer
from ihds.demo import COX, pooled
from ihds.errors import IhdsError
from ihds.roles import worker
from ihds.roles.config import DatasetConfig, NodeConfig
from ihds.roles.node import verify_folder
from ihds.roles.simulated import EVIDENCE
from tests.conftest import unavailable
from tests.space import Space, build

INNER, OUTER = "10.231.77.2", "10.231.77.1"
RULES = """
table inet ihds {
  chain input { type filter hook input priority 0; policy drop; ct state established,related accept; iif lo accept; }
}
"""


class Zone:
    """A network namespace behind a veth pair; its firewall answers nothing that it did not ask."""

    def __init__(self) -> None:
        self.name = f"ihds-{os.getpid()}"
        self.outside = f"ih{os.getpid()}"

    def run(self, *command: str, **more) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["ip", "netns", "exec", self.name, *command], check=True, capture_output=True, text=True, **more
        )

    def __enter__(self) -> Zone:
        def ip(*words: str) -> None:
            subprocess.run(["ip", *words], check=True, capture_output=True)

        ip("netns", "add", self.name)
        ip("link", "add", self.outside, "type", "veth", "peer", "name", "inner0", "netns", self.name)
        ip("addr", "add", f"{OUTER}/30", "dev", self.outside)
        ip("link", "set", self.outside, "up")
        self.run("ip", "addr", "add", f"{INNER}/30", "dev", "inner0")
        self.run("ip", "link", "set", "inner0", "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("nft", "-f", "-", input=RULES)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@pytest.fixture(scope="module")
def zone():
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
        unavailable("network namespaces need root, iproute2 and nftables")
    with Zone() as made:
        yield made


class Zones(Space):
    """The demo's nodes, but the rows of ``lih`` lie with a worker."""

    def make(self, config: NodeConfig, offered=()) -> None:
        if config.name != "lih":
            super().make(config, offered)
            return
        from dataclasses import replace

        from ihds.roles import node

        outward = replace(config, worker=True, host="0.0.0.0")
        node.create(self.folder / "lih", outward)
        self.configs["lih"] = outward


def test_a_study_runs_on_rows_that_nothing_can_reach(tmp_path, zone, monkeypatch):
    monkeypatch.setattr("ihds.demo.Nodes", Zones)
    nodes = build(tmp_path)
    inner = tmp_path / "inner"
    try:
        for name in nodes.configs:
            nodes.start(name)
        nodes.wait()
        lih = nodes.space("lih")
        ticket = lih.call("worker.ticket")
        key, _ = ticket.pop("key"), ticket.pop("connector")
        connector = f"http://{OUTER}:{nodes.configs['lih'].port}"
        table, book = bladder_cancer.site_part(0, 3), bladder_cancer.codebook()
        ticket["passphrase_file"] = str(tmp_path / "secrets" / "inner")
        worker.create(inner, key, connector, {**ticket, "evidence": EVIDENCE["LU"]}, {"bladder-lih": (table, book)})
        assert "bladder-lih" not in [r["dataset"] for r in nodes.space("researcher").search("bladder")]
        start(nodes, zone, inner)
        deadline = time.monotonic() + 30
        while "bladder-lih" not in [r["dataset"] for r in nodes.space("researcher").search("bladder")]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        permit = nodes.permit()
        result = nodes.space("researcher").run("cox", permit=permit, formula=COX)
        for mine, theirs in zip(result.coefficients, pooled("cox", COX).coefficients, strict=True):
            assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-8)
        nothing_listens(zone)
        nothing_gets_in(zone)
        rounds = [e for e in entries(inner) if e["kind"] == "round.answered"]
        assert len(rounds) == result.rounds
        assert not [e for e in nodes.entries("lih") if e["kind"] == "round.answered"], "the outer zone answers no round"
        assert not (nodes.folder / "lih" / "data.duckdb").exists()
        a_dead_worker_waits_and_goes_on(nodes, zone, inner, permit)
        a_revoked_permit_is_refused_by_the_worker(nodes, permit)
        assert verify_folder(inner)["proved"]
        assert verify_folder(nodes.folder / "lih")["proved"]
    finally:
        nodes.stop()


def start(nodes: Zones, zone: Zone, inner: Path) -> None:
    log = (nodes.folder / "inner.log").open("ab")
    nodes.processes["inner"] = subprocess.Popen(
        ["ip", "netns", "exec", zone.name, sys.executable, "-m", "ihds.cli", "worker", "run", str(inner)],
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()


def nothing_listens(zone: Zone) -> None:
    assert zone.run("ss", "-Hltnu").stdout.strip() == "", "the inner zone has an open port"


def nothing_gets_in(zone: Zone) -> None:
    """Even a port opened there by mistake is not reached from outside."""
    code = f"import socket; s = socket.create_server(('{INNER}', 9)); s.settimeout(5); s.accept()"
    mistake = subprocess.Popen(
        ["ip", "netns", "exec", zone.name, sys.executable, "-c", code], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 5
    while not zone.run("ss", "-Hltn").stdout.strip():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(OSError):
        socket.create_connection((INNER, 9), timeout=1)
    mistake.kill()
    mistake.wait()


def entries(folder: Path) -> list[dict]:
    from ihds.store.store import Store, sqlite_url

    store = Store(sqlite_url(folder))
    found = [json.loads(text) for text in store.read()]
    store.close()
    return found


def a_dead_worker_waits_and_goes_on(nodes: Zones, zone: Zone, inner: Path, permit: str) -> None:
    researcher = nodes.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=3)
    for _ in researcher.steps(study):
        pass
    os.killpg(nodes.processes["inner"].pid, signal.SIGKILL)
    nodes.processes["inner"].wait()
    start(nodes, zone, inner)
    assert researcher.resume(study).rounds > 3


def a_revoked_permit_is_refused_by_the_worker(nodes: Zones, permit: str) -> None:
    researcher = nodes.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=3)
    for _ in researcher.steps(study):
        pass
    nodes.space("access-body").call("permit.revoke", id=permit, reason="test")
    with pytest.raises(IhdsError, match="ended the transfer|refuse") as refused:
        researcher.resume(study)
    assert "REVOKED" in str(refused.value)


def test_a_worker_is_made_with_three_commands(tmp_path, capsys):
    from ihds.cli import main

    table = tmp_path / "bladder.csv"
    bladder_cancer.site_part(0).to_csv(table, index=False)
    outer = ["node", "init", str(tmp_path / "lih"), "--role", "holder", "--country", "LU", "--worker"]
    assert main([*outer, "--dataset", "bladder"]) == 0
    config = NodeConfig.read(tmp_path / "lih")
    assert (config.worker, config.datasets) == (True, (DatasetConfig("bladder", "bladder"),))
    ticket = tmp_path / "ticket"
    parts = {"key": "k", "connector": "http://127.0.0.1:1", "did": config.did, "country": "LU", "authority": ""}
    ticket.write_text(json.dumps({**parts, "access_bodies": [], "pinned": {}}))
    init = ["worker", "init", str(tmp_path / "inner"), "--ticket", str(ticket), "--data", str(table)]
    assert main([*init, "--person", "person_id", "--dataset", "bladder"]) == 0
    assert verify_folder(tmp_path / "inner")["proved"]
    assert main(init) == 18
    ticket.write_text("no ticket")
    assert main(["worker", "init", str(tmp_path / "other"), *init[3:]]) == 10
    assert "is no ticket" in capsys.readouterr().err
