"""Run an official compatibility kit against a real node and write docs/conformance/.

    python scripts/tck.py dsp --runs 3
    python scripts/tck.py dcp

The kit is fetched from Maven Central with Maven and runs on Java 17. Its exit code says nothing, so
its lines are read: anything but the full number of passes and no failure, in every run, fails here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.kit import dcp_node, scenarios  # noqa: E402

from ihds.roles.config import free_port  # noqa: E402

KIT = ROOT / "tests/kit"
CACHE = ROOT / ".cache/tck"
PAGES = ROOT / "docs/conformance"


def fetch(name: str) -> tuple[Path, str]:
    """Fetch a kit's jars unless they are here; return their folder and the kit's version."""
    pom = KIT / f"{name}-pom.xml"
    version = re.search(r"<kit>(.+?)</kit>", pom.read_text()).group(1)
    for tool in ("java", "mvn"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: the kit needs Java 17 and Maven (apt-get install openjdk-17-jdk maven)")
    folder = CACHE / f"{name}-{version}"
    if not (folder / "complete").exists():
        print(f"fetching the {name.upper()} kit {version} ...", flush=True)
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
        subprocess.run([*command, "-DincludeScope=runtime"], check=True)
        (folder / "complete").touch()
    return folder, version


def start(module: str, *arguments: str, url: str) -> subprocess.Popen:
    """Start a node under test and wait until it answers."""
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, start_new_session=True)
    for _ in range(300):
        if process.poll() is not None:
            sys.exit("the node under test ended at once")
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process
    sys.exit("the node under test does not answer")


def stop(process: subprocess.Popen) -> None:
    """End a node and whatever it started."""
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(10)


def play(jars: Path, launcher: str, package: str, properties: dict[str, str], folder: Path) -> tuple[int, int, str]:
    """Run the kit once; return passed, failed and its output."""
    config = folder / "kit.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    root = "org.eclipse.dataspacetck"
    names = [f"{root}.{launcher}", f"{root}.{package}"]
    command = ["java", "-cp", f"{jars}/*", str(KIT / "RunKit.java"), *names, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    counts = [re.search(rf"^{word} tests: (\d+)", done.stdout, re.M) for word in ("Passed", "Failed")]
    passed, failed = (int(found.group(1)) if found else -1 for found in counts)
    return passed, failed, done.stdout + done.stderr


def dsp(runs: int) -> None:
    """Run the Dataspace Protocol kit."""
    jars, version = fetch("dsp")
    for run in range(1, runs + 1):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            port, kit_port = free_port(), free_port()
            base = f"http://127.0.0.1:{port}"
            node = start("tests.kit.node", str(folder / "node"), str(port), url=f"{base}/.well-known/dspace-version")
            try:
                properties = scenarios.properties(f"did:web:127.0.0.1%3A{port}", base, f"http://127.0.0.1:{kit_port}")
                passed, failed, said = play(
                    jars, "dsp.system.DspSystemLauncher", "dsp.verification", properties, folder
                )
            finally:
                stop(node)
        print(f"run {run} of {runs}: {passed} passed, {failed} failed", flush=True)
        if (passed, failed) != (scenarios.KIT_TESTS, 0):
            print("\n".join(line for line in said.splitlines() if line.startswith("FAILED")) or said[-4000:])
            sys.exit(f"the kit wants {scenarios.KIT_TESTS} passed and 0 failed")
    page(
        "dsp",
        "Dataspace Protocol 2025-1",
        version,
        f"{scenarios.KIT_TESTS} passed, 0 failed, in each of {runs} runs in a row; two tests are disabled in the kit",
    )


def dcp(runs: int) -> None:
    """Run the Decentralized Claims Protocol kit: one package of it per role a node plays."""
    jars, version = fetch("dcp")
    for run in range(1, runs + 1):
        for part, wanted in dcp_node.PARTS.items():
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                port, kit_port = free_port(), free_port()
                base, kit = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{kit_port}"
                node = start(
                    "tests.kit.dcp_node", str(folder / "node"), str(port), kit, part, url=f"{base}/.well-known/did.json"
                )
                try:
                    properties = dcp_node.properties(f"did:web:127.0.0.1%3A{port}", base, kit, part)
                    passed, failed, said = play(
                        jars, "dcp.system.DcpSystemLauncher", f"dcp.verification.{part}", properties, folder
                    )
                finally:
                    stop(node)
            print(f"run {run} of {runs}, {part}: {passed} passed, {failed} failed", flush=True)
            if (passed, failed) != (wanted, 0):
                print("\n".join(line for line in said.splitlines() if line.startswith("FAILED")) or said[-4000:])
                sys.exit(f"the kit wants {wanted} passed and 0 failed")
    page("dcp", "Decentralized Claims Protocol 1.0", version, f"{sum(dcp_node.PARTS.values())} passed, 0 failed")


def page(name: str, title: str, version: str, summary: str) -> None:
    """Write the summary of a kit's run."""
    PAGES.mkdir(exist_ok=True)
    lines = [
        f"# {title}: the official compatibility kit",
        "",
        f"`make tck-{name}` fetches kit {version} from Maven Central, runs it against a real `ihds` node and writes",
        "this page.",
        "",
        f"Result: **{summary}**.",
        "",
        *(_dsp_lines() if name == "dsp" else _dcp_lines()),
        "",
    ]
    (PAGES / f"{name}.md").write_text("\n".join(lines))
    print(f"wrote docs/conformance/{name}.md")


def _dsp_lines() -> list[str]:
    lines = [
        "The node's reactions, its caller's identity and the two webhooks come from `tests/kit/node.py`; the shipped",
        "node loads none of them. Protocol, state tables, outbox, store and audit log are the shipped ones.",
        "",
        "| test | what the node does by itself | sequence |",
        "|---|---|---|",
    ]
    for scenario in scenarios.SCENARIOS:
        own = ", ".join(f"{event} → {task}" for event, task in scenario.reactions.items()) or "nothing"
        lines.append(f"| {scenario.name} | {own} | `{scenario.steps}` |")
    return [
        *lines,
        "",
        "`>` the node sends, `<` the kit sends, `!` the kit sends and must be refused, `=` the state then shown.",
    ]


def _dcp_lines() -> list[str]:
    lines = [
        "The node is the shipped one; `tests/kit/dcp_node.py` configures it to trust the kit's issuer and adds the",
        "token endpoint the kit asks for. Three tests of presentation.cs are disabled in the kit. Maven Central",
        "serves no later kit than this one.",
        "",
        "| package | the node plays | passed |",
        "|---|---|---|",
    ]
    roles = {"presentation.verifier": "verifier", "issuance.issuer": "issuer"}
    return lines + [f"| {part} | {roles.get(part, 'holder')} | {n} |" for part, n in dcp_node.PARTS.items()]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", choices=("dsp", "dcp"))
    parser.add_argument("--runs", type=int, default=1, help="how often the kit must pass in a row")
    given = parser.parse_args()
    {"dsp": dsp, "dcp": dcp}[given.kit](given.runs)


if __name__ == "__main__":
    main()
