"""The connector against Eclipse EDC, in one run on one machine: ratios, seconds, memory.

    python benchmarks/connector.py [--json FILE] [--no-edc]

Both sides speak DSP 2025-1 with EDC's mock of identities, so that the same work is compared; the
figure with DCP tokens, membership credentials and their status (everything on) stands beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import httpx
from scripts.interop_edc import Ours
from tests.connector.test_dataplane import Files
from tests.kit import edc_node
from tests.kit.edc_peer import VERSION, Edc, fetch
from tests.space import Space

ROWS: list[dict] = []


def report(what: str, value: float, unit: str, against: str = "", ratio: float | None = None) -> None:
    """Print a line and keep it."""
    beside = f"  {ratio:8.2f} x {against}" if ratio is not None else f"  {against}"
    print(f"{what:66} {value:10.3f} {unit:6}{beside}", flush=True)
    ROWS.append({"what": what, "value": value, "unit": unit, "against": against, "ratio": ratio})


def quantiles(seconds: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile."""
    ordered = sorted(seconds)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def resident(pid: int) -> int:
    """Return a process's resident memory in MB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in text.splitlines() if line.startswith("VmRSS"))


def negotiations(negotiate, count: int, threads: int) -> tuple[float, float, float]:
    """Return median, 99th percentile one at a time, and negotiations per second of several at once."""
    negotiate()
    alone = []
    for _ in range(count):
        began = time.perf_counter()
        negotiate()
        alone.append(time.perf_counter() - began)
    began = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda _: negotiate(), range(count)))
    return *quantiles(alone), count / (time.perf_counter() - began)


def ours(folder: Path) -> tuple[float, float]:
    """Measure two nodes; return the median negotiation and the pull's bytes per second."""
    began = time.perf_counter()
    consumer = Ours(folder / "a" / "ihds")
    report("start-up of a node, process to first answer", time.perf_counter() - began, "s", "goal 2 s")
    provider = Ours(folder / "b" / "ihds")
    try:
        report("resident memory of a node after start", resident(provider.process.pid), "MB", "goal 150 MB")
        client = httpx.Client(timeout=60)
        key = (consumer.folder / "api.key").read_text().strip()
        found = client.post(
            f"{provider.address}/catalog/request",
            json={"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"},
            headers={"Authorization": json.dumps({"clientId": consumer.did, "region": "eu"})},
        ).json()
        entry = next(d for d in found["dataset"] if d["@id"] == edc_node.OPEN)
        asked = {"counterparty": provider.did, "address": provider.address, "dataset": edc_node.OPEN}
        asked |= {"offer": entry["hasPolicy"][0], "seconds": 60}

        def negotiate() -> str:
            answer = client.post(
                f"{consumer.base}/api/negotiation.request", json=asked, headers={"Authorization": f"Bearer {key}"}
            ).json()
            assert answer["state"] == "FINALIZED", answer
            return answer["agreement"]

        middle, late, rate = negotiations(negotiate, 200, 8)
        report("negotiation, catalogue to FINALIZED, mock identities: p50", middle, "s", "goal 0.1 s")
        report("    p99", late, "s")
        report("    eight at once", rate, "1/s", "goal 50/s")
        report("resident memory of a node after 400 negotiations", resident(provider.process.pid), "MB", "goal 150 MB")
        with (provider.folder / "open.csv").open("r+b") as file:
            file.truncate(1 << 30)
        speed = pulled(consumer, negotiate())
        return middle, speed
    finally:
        for node in (consumer, provider):
            node.process.terminate()
            node.process.wait(10)


def pulled(consumer: Ours, agreement: str) -> float:
    """Return the bytes per second of a pull of a GiB."""
    pid = consumer.api("transfer.request", agreement=agreement, format="HttpData-PULL")["pid"]
    address = consumer.api("transfer.address", pid=pid)
    return drained(address["endpoint"], address["token"])


def drained(endpoint: str, token: str) -> float:
    """Read an endpoint to its end; return bytes per second."""
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(endpoint)
    line = http.client.HTTPConnection(parts.netloc, timeout=120)
    began, got = time.perf_counter(), 0
    line.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"})
    answer = line.getresponse()
    buffer = bytearray(1 << 20)
    while count := answer.readinto(buffer):
        got += count
    line.close()
    return got / (time.perf_counter() - began)


def everything_on(folder: Path) -> None:
    """Measure negotiations between members: DCP tokens, membership credentials and their status looked up."""
    nodes = Files.made(folder)
    try:
        for name in nodes.configs:
            nodes.start(name)
        Space.wait(nodes)
        for name in ("lih", "researcher"):
            nodes.space(name).call("member.join")
        middle, late, rate = negotiations(lambda: nodes.agreement("big"), 100, 8)
        report("negotiation between members, everything on: p50", middle, "s", "goal 0.1 s")
        report("    p99", late, "s")
        report("    eight at once", rate, "1/s", "goal 50/s")
    finally:
        nodes.stop()


def catalogue(folder: Path) -> None:
    """Measure the first page of a catalogue of 10 000 datasets, and all 100 000 of a larger one, streamed."""
    from ihds.roles.config import free_port

    for size, whole in ((10_000, False), (100_000, True)):
        port = free_port()
        command = [sys.executable, "-m", "tests.kit.edc_node", str(folder / f"c{size}" / "n"), str(port), str(size)]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                try:
                    httpx.get(f"{url}/health", timeout=1)
                    break
                except httpx.HTTPError:
                    time.sleep(0.1)
            body = {"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"}
            headers = {
                "Authorization": json.dumps({"clientId": "bench", "region": "eu"}),
                "Accept-Encoding": "identity",
            }
            with httpx.Client(timeout=120) as client:
                path = f"{url}/dsp/2025-1/catalog/request"
                seconds = []
                for _ in range(1 if whole else 20):
                    before = resident(process.pid)
                    began = time.perf_counter()
                    answer = client.post(path, json=body, headers=headers, params={"limit": 0} if whole else None)
                    seconds.append(time.perf_counter() - began)
                got = len(answer.json()["dataset"])
            if whole:
                report(f"catalogue of 100 000 datasets, all {got} streamed", seconds[0], "s")
                report("    memory it took the node", resident(process.pid) - before, "MB")
            else:
                report(
                    f"catalogue of 10 000 datasets, first page of {got}", statistics.median(seconds), "s", "goal 0.05 s"
                )
        finally:
            process.terminate()
            process.wait(10)


def edc(folder: Path, middle: float, speed: float) -> None:
    """Measure two EDCs, at their default loops and at loops of 50 ms."""
    jars = fetch()
    for name, loop, count in (("default loops", None, 10), ("50 ms loops", 50, 40)):
        pair = [Edc(folder / f"{name}-{i}".replace(" ", "-"), f"edc-{i}", loop) for i in range(2)]
        began = time.perf_counter()
        try:
            pair[0].start(jars)
            report(f"EDC {VERSION}, {name}: start-up", time.perf_counter() - began, "s")
            pair[1].start(jars)
            source = upstream(folder / "gigabyte", 1 << 30)
            pair[1].offer("open", source[1])

            def negotiate(pair=pair) -> str:
                for _ in range(5):  # its two sides lose races with one another now and then
                    ended = pair[0].negotiate(pair[1].address, pair[1].participant, "open")
                    if ended["state"] == "FINALIZED":
                        return ended["contractAgreementId"]
                raise RuntimeError("EDC does not agree with itself")

            its, late, rate = negotiations(negotiate, count, 8)
            report(f"EDC {VERSION}, {name}: negotiation p50", its, "s", "ihds", its / middle)
            report("    p99", late, "s")
            report("    eight at once", rate, "1/s")
            report("    resident memory", resident(pair[1].process.pid), "MB")
            if loop:
                pid = pair[0].transfer(pair[1].address, negotiate())
                its_speed = drained(*pair[0].address_of(pid))
                report("pull of 1 GiB: EDC's data plane", its_speed / 1e6, "MB/s", "ihds", its_speed / speed)
        finally:
            for peer in pair:
                peer.stop()
            source[0].terminate()


def upstream(file: Path, size: int) -> tuple[subprocess.Popen, str]:
    """Serve a file for EDC to fetch from; EDC's data plane reads from HTTP only."""
    from ihds.roles.config import free_port

    with file.open("wb") as made:
        made.truncate(size)
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(file.parent)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.0)
    return process, f"http://127.0.0.1:{port}/{file.name}"


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--no-edc", action="store_true", help="measure ihds only")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ihds-bench-") as name:
        folder = Path(name)
        middle, speed = ours(folder)
        report("pull of 1 GiB: ihds", speed / 1e6, "MB/s")
        everything_on(folder / "members")
        catalogue(folder)
        if not given.no_edc:
            edc(folder, middle, speed)
    if given.json:
        given.json.write_text(json.dumps(ROWS, indent=1))


if __name__ == "__main__":
    main()
