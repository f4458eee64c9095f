"""Files between real nodes: pulled and pushed in bounded memory, resumed, throttled, stopped; one process or two."""

from __future__ import annotations

import hashlib
import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from ihds.errors import IhdsError
from ihds.roles import dataplane
from ihds.roles.config import DatasetConfig, NodeConfig, free_port
from ihds.roles.node import verify_folder
from ihds.wire.http import fetch
from tests.space import Space

BYTES = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(100_000))  # 3.2 MB that repeat nowhere


class Files(Space):
    """An authority, a holder of files and a user."""

    @classmethod
    def made(cls, folder: Path, **holder) -> Files:
        nodes = cls(folder)
        names = ("authority", "lih", "researcher")
        ports = {name: free_port() for name in names}
        dids = {name: f"did:web:127.0.0.1%3A{port}" for name, port in ports.items()}

        def make(name: str, role: str, country: str, **more) -> None:
            base = f"http://127.0.0.1:{ports[name]}"
            secret = str(folder / "secrets" / name)
            config = NodeConfig(
                name, role, country, base, ports[name], authority=dids["authority"], passphrase_file=secret, **more
            )
            nodes.make(config)

        make("authority", "authority", "LU", members=(f"{dids['lih']} holder LU", f"{dids['researcher']} user KR"))
        read = ("catalogue_check",)
        evidence = ("disclosure_check", "permit", "research_safeguards", "ethics_opinion")
        datasets = (
            DatasetConfig("model", "A model", file="model.bin", artefact="MODEL", evidence=evidence),
            DatasetConfig("big", "A large file", file="big.bin", artefact="METADATA", evidence=read),
            DatasetConfig("unread", "Not looked through", file="model.bin", artefact="METADATA"),
            DatasetConfig("unchecked", "Not checked", file="model.bin", artefact="MODEL"),
            DatasetConfig(
                "by-hand",
                "By hand",
                file="model.bin",
                artefact="METADATA",
                evidence=("catalogue_check",),
                approval="hand",
            ),
        )
        make("lih", "holder", "LU", datasets=datasets, **holder)
        make("researcher", "user", "KR", catalogues=(dids["lih"],))
        (folder / "lih" / "model.bin").write_bytes(BYTES)
        with (folder / "lih" / "big.bin").open("wb") as file:
            file.truncate(5 * 10**9)
        nodes.dids = dids
        return nodes

    def make(self, config: NodeConfig) -> None:
        from ihds.roles import node

        node.create(self.folder / config.name, config)
        self.configs[config.name] = config

    def agreement(self, dataset: str) -> str:
        found = self.space("researcher").call("negotiation.request", counterparty=self.dids["lih"], dataset=dataset)
        assert found["state"] == "FINALIZED", found
        return found["agreement"]

    def pull(self, dataset: str) -> tuple[str, str, str]:
        space = self.space("researcher")
        started = space.call("transfer.request", agreement=self.agreement(dataset), format="HttpData-PULL")
        assert started["state"] == "STARTED", started
        address = space.call("transfer.address", pid=started["pid"])
        return started["pid"], address["endpoint"], address["token"]

    def wait(self, name: str, pid: str, state: str) -> None:
        deadline = time.monotonic() + 30
        while self.space(name).call("transfer.show", pid=pid)["state"] != state:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def provided(self, pid: str) -> str:
        listed = self.space("lih").call("transfer.list")
        return next(t["pid"] for t in listed if t["counterparty_pid"] == pid)

    def sent(self) -> list[dict]:
        return [e["details"] for e in self.entries("lih") if e["kind"] == "data.sent"]


@pytest.fixture(scope="module", params=["one process", "two processes"])
def files(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    nodes = Files.made(folder)
    try:
        for name in nodes.configs:
            nodes.start(name)
        Space.wait(nodes)
        if request.param == "two processes":
            start_plane(nodes)
        for name in ("lih", "researcher"):
            nodes.space(name).call("member.join")
        yield nodes
    finally:
        nodes.stop()


def start_plane(nodes: Files) -> None:
    import subprocess
    import sys

    folder = nodes.folder / "plane"
    port = free_port()
    dataplane.create(folder, nodes.folder / "lih", f"http://127.0.0.1:{port}", port)
    log = (folder / "log").open("ab")
    command = [sys.executable, "-m", "ihds.cli", "dataplane", "run", str(folder)]
    nodes.processes["plane"] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    log.close()
    deadline = time.monotonic() + 30
    while not any(e["kind"] == "dataplane.registered" for e in nodes.entries("lih")):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def bearer(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def test_a_file_is_pulled_whole_and_in_parts_and_only_with_its_token(files):
    pid, endpoint, token = files.pull("model")
    assert httpx.get(endpoint, headers=bearer(token)).content == BYTES
    head = httpx.head(endpoint, headers=bearer(token))
    assert int(head.headers["content-length"]) == len(BYTES)
    part = httpx.get(endpoint, headers=bearer(token, Range="bytes=1000000-"))
    assert (part.status_code, part.content) == (206, BYTES[1_000_000:])
    assert httpx.get(endpoint, headers=bearer(token, Range="bytes=-5")).content == BYTES[-5:]
    assert httpx.get(endpoint, headers=bearer(token, Range="bytes=9999999-")).status_code == 416
    changed = bearer(token, Range="bytes=10-", **{"If-Range": '"another version"'})
    assert httpx.get(endpoint, headers=changed).content == BYTES
    for wrong in ("", "x", token[:-1] + ("a" if token[-1] != "a" else "b"), f"{pid}.guess"):
        assert httpx.get(endpoint, headers={"Authorization": f"Bearer {wrong}".strip()}).status_code == 401
    _, other, _ = files.pull("big")
    assert httpx.get(other, headers=bearer(token)).status_code == 401


def test_a_broken_download_goes_on_where_it_was(files, tmp_path):
    _, endpoint, token = files.pull("model")
    target = tmp_path / "model.bin"
    etag = httpx.head(endpoint, headers=bearer(token)).headers["etag"]
    (tmp_path / "model.bin.part").write_bytes(BYTES[:2_000_000])
    (tmp_path / "model.bin.etag").write_text(etag)
    seen = []
    assert fetch(endpoint, token, target, lambda got, total: seen.append((got, total))) == len(BYTES)
    assert target.read_bytes() == BYTES
    assert seen[0][0] > 2_000_000
    (tmp_path / "model.bin.part").write_bytes(b"of another version")
    (tmp_path / "model.bin.etag").write_text('"old"')
    fetch(endpoint, token, target, lambda got, total: None)
    assert target.read_bytes() == BYTES


def test_a_suspended_transfer_gives_nothing_and_a_resumed_one_a_fresh_token(files):
    pid, endpoint, token = files.pull("model")
    provided = files.provided(pid)
    files.space("lih").call("transfer.move", pid=provided, event="suspend", reasons=["maintenance"])
    files.wait("researcher", pid, "SUSPENDED")
    assert httpx.get(endpoint, headers=bearer(token)).status_code == 401
    with pytest.raises(IhdsError, match="the provider suspended the transfer"):
        files.space("researcher").call("transfer.move", pid=pid, event="start")
    files.space("lih").call("transfer.move", pid=provided, event="start")
    files.wait("researcher", pid, "STARTED")
    deadline = time.monotonic() + 20
    while (fresh := files.space("researcher").call("transfer.address", pid=pid))["token"] == token:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert httpx.get(endpoint, headers=bearer(fresh["token"])).content == BYTES
    assert httpx.get(endpoint, headers=bearer(token)).status_code == 401
    files.space("researcher").call("transfer.move", pid=pid, event="complete")
    files.wait("lih", provided, "COMPLETED")
    assert httpx.get(endpoint, headers=bearer(fresh["token"])).status_code == 401


def test_five_gigabytes_move_in_bounded_memory(files):
    _, endpoint, token = files.pull("big")
    serving = files.processes.get("plane") or files.processes["lih"]
    assert httpx.get(endpoint, headers=bearer(token, Range="bytes=0-9")).content == bytes(10)
    before, peak, got = memory(serving.pid), 0, 0
    parts = urlsplit(endpoint)
    line = http.client.HTTPConnection(parts.netloc, timeout=60)
    line.request("GET", parts.path, headers=bearer(token))
    answer = line.getresponse()
    buffer = bytearray(1 << 20)
    while count := answer.readinto(buffer):
        got += count
        if got % (1 << 28) < (1 << 20):
            peak = max(peak, memory(serving.pid))
    line.close()
    assert got == 5 * 10**9
    assert peak - before < 100, f"{before} MB before, {peak} MB at the peak"


def memory(pid: int) -> int:
    """Return a process's resident memory in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def test_a_file_is_pushed_to_the_consumers_inbox_and_the_transfer_ends(files):
    space = files.space("researcher")
    started = space.call("transfer.request", agreement=files.agreement("model"), format="HttpData-PUSH")
    files.wait("researcher", started["pid"], "COMPLETED")
    inbox = [p for p in (files.folder / "researcher" / "inbox").iterdir() if p.suffix == ".data"]
    assert BYTES in [p.read_bytes() for p in inbox]
    received = [e["details"] for e in files.entries("researcher") if e["kind"] == "data.received"]
    assert received[-1]["bytes"] == len(BYTES)


@pytest.mark.parametrize("dataset", ["unchecked", "unread"])
def test_what_was_not_checked_for_disclosure_does_not_leave(files, dataset):
    found = files.space("researcher").call("negotiation.request", counterparty=files.dids["lih"], dataset=dataset)
    assert found["state"] == "TERMINATED"
    assert "evidence missing" in " ".join(found["reasons"])


def test_a_file_of_persons_cannot_even_be_configured():
    with pytest.raises(IhdsError, match="does not leave its holder"):
        DatasetConfig("rows", "Rows", file="rows.csv", artefact="ROW")


def test_a_request_that_waits_for_a_person_is_agreed_by_hand(files):
    lih, user = files.space("lih"), files.space("researcher")
    with pytest.raises(IhdsError, match="left the negotiation in REQUESTED"):
        user.call("negotiation.request", counterparty=files.dids["lih"], dataset="by-hand", seconds=1)
    waiting = next(n for n in lih.call("negotiation.list") if n["dataset"] == "by-hand")
    assert waiting["state"] == "REQUESTED"
    with pytest.raises(IhdsError, match="rules' consent"):
        lih.call("negotiation.move", pid=waiting["pid"], event="agree")
    lih.call("negotiation.approve", pid=waiting["pid"])
    deadline = time.monotonic() + 20
    while lih.call("negotiation.show", pid=waiting["pid"])["state"] != "FINALIZED":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_log_is_proved_and_counts_what_was_sent(files):
    folder = files.folder / ("plane" if "plane" in files.processes else "lih")
    assert verify_folder(folder)["proved"]
    assert verify_folder(files.folder / "lih")["proved"]


def test_a_suspended_member_gets_nothing_more_and_a_throttled_stream_is_slow(tmp_path):
    nodes = Files.made(tmp_path, bytes_per_second=2e6)
    try:
        for name in nodes.configs:
            nodes.start(name)
        Space.wait(nodes)
        for name in ("lih", "researcher"):
            nodes.space(name).call("member.join")
        _, endpoint, token = nodes.pull("model")
        began = time.monotonic()
        assert httpx.get(endpoint, headers=bearer(token), timeout=30).content == BYTES
        assert time.monotonic() - began > 1.0, "3.2 MB at 2 MB/s take longer than a second"
        deadline = time.monotonic() + 10  # counted when the stream has ended on the sender's side
        while not nodes.sent():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert nodes.sent()[-1] == {**nodes.sent()[-1], "bytes": len(BYTES), "from": 0}
        nodes.space("authority").call("member.decide", did=nodes.dids["researcher"], event="suspend", reason="test")
        deadline = time.monotonic() + 60
        while (answer := httpx.get(endpoint, headers=bearer(token, Range="bytes=0-1"))).status_code == 206:
            assert time.monotonic() < deadline, "a suspended member must be refused within a minute"
            time.sleep(0.5)
        assert answer.status_code == 403
        assert "suspended" in answer.text
        with pytest.raises(IhdsError, match="suspended"):
            nodes.space("researcher").call("negotiation.request", counterparty=nodes.dids["lih"], dataset="model")
        nodes.space("authority").call("member.decide", did=nodes.dids["researcher"], event="reinstate", reason="test")
        deadline = time.monotonic() + 60
        while httpx.get(endpoint, headers=bearer(token, Range="bytes=0-1")).status_code != 206:
            assert time.monotonic() < deadline
            time.sleep(0.5)
    finally:
        nodes.stop()


def test_a_push_goes_on_after_a_kill(tmp_path):
    nodes = Files.made(tmp_path, bytes_per_second=3e6)
    try:
        for name in nodes.configs:
            nodes.start(name)
        Space.wait(nodes)
        for name in ("lih", "researcher"):
            nodes.space(name).call("member.join")
        agreement = nodes.agreement("model")
        pid = nodes.space("researcher").call("transfer.request", agreement=agreement, format="HttpData-PUSH")["pid"]
        inbox = nodes.folder / "researcher" / "inbox"
        deadline = time.monotonic() + 20
        while not any(p.stat().st_size > 1_000_000 for p in inbox.glob("*.part")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        nodes.kill("lih")
        nodes.start("lih")
        nodes.wait(name="researcher", pid=pid, state="COMPLETED")
        assert [p.read_bytes() for p in inbox.glob("*.data")] == [BYTES]
        resumed = nodes.sent()[-1]
        assert resumed["from"] > 0, "the second half must not begin at the start"
    finally:
        nodes.stop()
