"""Play all pairings with a real Eclipse EDC and write docs/conformance/edc.md.

    python scripts/interop_edc.py

EDC is fetched from Maven Central and runs on Java 17. Each line played is checked; the first that
does not hold ends the run with status 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.kit import edc_node  # noqa: E402
from tests.kit.edc_peer import VERSION, Edc, call, fetch  # noqa: E402

from ihds.roles.config import free_port  # noqa: E402

PARTICIPANT = "edc-peer"
ENDED = ("TERMINATED", "DEPROVISIONED", "COMPLETED")


class Ours:
    """The node, through its management API."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.address, self.did = f"{self.base}/dsp/2025-1", f"did:web:127.0.0.1%3A{self.port}"
        command = [sys.executable, "-m", "tests.kit.edc_node", str(folder), str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT)
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.base}/health", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        sys.exit("the node does not answer")

    def api(self, command: str, **arguments: Any) -> Any:
        """Run a management command."""
        key = (self.folder / "api.key").read_text().strip()
        status, answer = call("POST", f"{self.base}/api/{command}", arguments, {"Authorization": f"Bearer {key}"})
        if status >= 400:
            raise RuntimeError(f"ihds: {command} was answered {status} {answer}")
        return answer

    def wait(self, kind: str, pid: str, *states: str) -> dict[str, Any]:
        """Wait until a negotiation or transfer is in one of the states."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            shown = self.api(f"{kind}.show", pid=pid)
            if shown["state"] in states:
                return shown
            time.sleep(0.02)
        raise RuntimeError(f"ihds: {kind} {pid} stays {shown['state']}, wanted {states}")


def pull(endpoint: str, token: str) -> tuple[int, bytes]:
    """Fetch with a token; return status and bytes."""
    request = urllib.request.Request(endpoint, headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until(check: Callable[[], bool]) -> bool:
    """Wait until something holds."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.05)
    return False


class Run:
    """The lines played, each with its verdict."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str, float]] = []
        self.since = time.monotonic()

    def hold(self, pairing: str, what: str, holds: object, shown: object = "") -> None:
        """Record a line, or end the run and show what was found."""
        taken, self.since = time.monotonic() - self.since, time.monotonic()
        print(f"{'ok  ' if holds else 'FAIL'} {pairing}: {what} ({taken:.2f} s)", flush=True)
        if not holds:
            raise SystemExit(f"found: {shown}")
        self.rows.append((pairing, what, taken))


def we_consume(run: Run, ours: Ours, edc: Edc) -> None:
    """Ihds consumes, EDC provides."""
    who = "ihds consumes from EDC"
    found = ours.api("negotiation.request", counterparty=PARTICIPANT, address=edc.address, dataset="edc-open")
    run.hold(who, "catalogue read, negotiation FINALIZED", found["state"] == "FINALIZED", found)
    started = ours.api("transfer.request", agreement=found["agreement"], format="HttpData-PULL")
    run.hold(who, "transfer STARTED", started["state"] == "STARTED", started)
    pid = started["pid"]
    given = ours.api("transfer.address", pid=pid)
    status, data = pull(given["endpoint"], given["token"])
    run.hold(who, f"{len(data)} bytes pulled, equal to the source", (status, data) == (200, edc_node.DATA))
    ours.api("transfer.move", pid=pid, event="suspend", reasons=["pause"])
    theirs = edc.provided(pid)
    edc.wait("transferprocesses", theirs, "SUSPENDED")
    run.hold(who, "suspended by ihds, the token is refused", pull(given["endpoint"], given["token"])[0] == 403)
    ours.api("transfer.move", pid=pid, event="start")
    fresh = lambda: ours.api("transfer.address", pid=pid)["token"] != given["token"]  # noqa: E731
    run.hold(who, "resumed by ihds, EDC gives a fresh token", until(fresh))
    given = ours.api("transfer.address", pid=pid)
    run.hold(who, "bytes pulled again", pull(given["endpoint"], given["token"]) == (200, edc_node.DATA))
    edc.move(theirs, "suspend")
    run.hold(who, "suspended by EDC", ours.wait("transfer", pid, "SUSPENDED"))
    edc.move(theirs, "resume")
    run.hold(who, "resumed by EDC", ours.wait("transfer", pid, "STARTED"))
    edc.wait("transferprocesses", theirs, "STARTED")
    ours.api("transfer.move", pid=pid, event="complete")
    run.hold(who, "completed by ihds", edc.wait("transferprocesses", theirs, *ENDED))
    second = ours.api("transfer.request", agreement=found["agreement"], format="HttpData-PULL")["pid"]
    edc.wait("transferprocesses", edc.provided(second), "STARTED")
    edc.move(edc.provided(second), "terminate")
    run.hold(who, "terminated by EDC", ours.wait("transfer", second, "TERMINATED"))
    refused = ours.api("negotiation.request", counterparty=PARTICIPANT, address=edc.address, dataset="edc-denied")
    said = json.dumps(refused["reasons"])
    run.hold(who, "a policy EDC refuses ends TERMINATED with its reason", "not fulfilled" in said)


def they_consume(run: Run, ours: Ours, edc: Edc) -> None:
    """EDC consumes, ihds provides."""
    who = "EDC consumes from ihds"
    found = edc.negotiate(ours.address, ours.did, edc_node.OPEN)
    run.hold(who, "catalogue read, negotiation FINALIZED", found["state"] == "FINALIZED", found)
    theirs = edc.transfer(ours.address, found["contractAgreementId"])
    run.hold(who, "transfer STARTED", True)
    endpoint, token = edc.address_of(theirs)
    status, data = pull(endpoint, token)
    run.hold(who, f"{len(data)} bytes pulled, equal to the source", (status, data) == (200, edc_node.DATA))
    pids = {t["pid"] for t in ours.api("transfer.list") if t["role"] == "provider" and t["state"] == "STARTED"}
    ours_pid = pids.pop()
    edc.move(theirs, "suspend")
    ours.wait("transfer", ours_pid, "SUSPENDED")
    edc.wait("transferprocesses", theirs, "SUSPENDED")  # it hears our answer a moment after we gave it
    run.hold(who, "suspended by EDC, the token is refused", pull(endpoint, token)[0] == 401)
    edc.move(theirs, "resume")
    edc.wait("transferprocesses", theirs, "STARTED")
    endpoint, fresh = edc.address_of(theirs)
    run.hold(who, "resumed by EDC, ihds gives a fresh token", fresh != token)
    run.hold(who, "bytes pulled again", pull(endpoint, fresh) == (200, edc_node.DATA))
    ours.api("transfer.move", pid=ours_pid, event="suspend", reasons=["pause"])
    run.hold(who, "suspended by ihds", edc.wait("transferprocesses", theirs, "SUSPENDED"))
    ours.api("transfer.move", pid=ours_pid, event="start")
    run.hold(who, "resumed by ihds", edc.wait("transferprocesses", theirs, "STARTED"))
    ours.api("transfer.move", pid=ours_pid, event="complete")
    run.hold(who, "completed by ihds", edc.wait("transferprocesses", theirs, *ENDED))
    second = edc.transfer(ours.address, found["contractAgreementId"])
    edc.move(second, "terminate")
    started = [t["pid"] for t in ours.api("transfer.list") if t["role"] == "provider" and t["pid"] != ours_pid]
    run.hold(who, "terminated by EDC", ours.wait("transfer", started[-1], "TERMINATED"))
    refused = edc.negotiate(ours.address, ours.did, edc_node.DENIED)
    run.hold(who, "a policy ihds refuses ends TERMINATED", refused["state"] == "TERMINATED")


def same(run: Run, ours: tuple[Ours, Ours], edcs: tuple[Edc, Edc]) -> None:
    """Each kind with its own kind: what the mixed pairings are compared with."""
    mine, other = ours
    found = mine.api("negotiation.request", counterparty=other.did, address=other.address, dataset=edc_node.OPEN)
    given = mine.api("transfer.request", agreement=found["agreement"], format="HttpData-PULL")
    address = mine.api("transfer.address", pid=given["pid"])
    moved = pull(address["endpoint"], address["token"]) == (200, edc_node.DATA)
    run.hold("ihds consumes from ihds", "negotiation FINALIZED, bytes pulled, equal to the source", moved)
    consumer, provider = edcs
    agreed = consumer.negotiate(provider.address, provider.participant, "edc-open")
    theirs = consumer.transfer(provider.address, agreed["contractAgreementId"])
    moved = pull(*consumer.address_of(theirs)) == (200, edc_node.DATA)
    run.hold("EDC consumes from EDC", "negotiation FINALIZED, bytes pulled, equal to the source", moved)


def main() -> None:
    """Play and write the page."""
    jars = fetch()
    run = Run()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nodes = Ours(folder / "a" / "ihds"), Ours(folder / "b" / "ihds")
        edc, second = Edc(folder / "edc", PARTICIPANT), Edc(folder / "edc2", "edc-second")
        try:
            for peer in (edc, second):
                peer.start(jars)
            source = f"{nodes[0].base}/source"
            edc.offer("edc-open", source)
            party = {"leftOperand": "https://peer.example/ns/party", "operator": "eq", "rightOperand": "somebody-else"}
            edc.offer("edc-denied", source, party)
            run.since = time.monotonic()
            we_consume(run, nodes[0], edc)
            they_consume(run, nodes[0], edc)
            same(run, nodes, (second, edc))
        finally:
            for peer in (edc, second):
                peer.stop()
            for node in nodes:
                node.process.terminate()
                node.process.wait(10)
    lines = [
        "# Eclipse EDC as counterpart",
        "",
        f"`make interop-edc` fetches EDC {VERSION} from Maven Central, the newest release it serves whole, and plays",
        "it against a real `ihds` node over DSP 2025-1, in all four pairings, over EDC's mock of identities (a JSON",
        "header instead of DCP tokens), which `tests/kit/edc_node.py` speaks; all else of the node is the shipped one.",
        "",
        "| pairing | played and checked |",
        "|---|---|",
        *(f"| {pairing} | {what} |" for pairing, what, _ in run.rows),
        "",
    ]
    (ROOT / "docs/conformance/edc.md").write_text("\n".join(lines))
    print(f"{len(run.rows)} lines hold; wrote docs/conformance/edc.md")


if __name__ == "__main__":
    main()
