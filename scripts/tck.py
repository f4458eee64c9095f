"""Run an official compatibility kit against a real node and write docs/conformance/.

    python scripts/tck.py dsp --runs 3

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

from tests.kit import scenarios  # noqa: E402

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
    names = [f"{root}.{launcher}", f"{root}.{package}.verification"]
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
                launcher = "org.eclipse.dataspacetck.dsp.system.DspSystemLauncher"
                passed, failed, said = play(
                    jars, launcher, "org.eclipse.dataspacetck.dsp.verification", properties, folder
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
        "The node's reactions, its caller's identity and the two webhooks come from `tests/kit/node.py`; the shipped",
        "node loads none of them. Protocol, state tables, outbox, store and audit log are the shipped ones.",
        "",
    ]
    if name == "dsp":
        lines += ["| test | what the node does by itself | sequence |", "|---|---|---|"]
        for scenario in scenarios.SCENARIOS:
            own = ", ".join(f"{event} → {task}" for event, task in scenario.reactions.items()) or "nothing"
            lines.append(f"| {scenario.name} | {own} | `{scenario.steps}` |")
        lines += [
            "",
            "`>` the node sends, `<` the kit sends, `!` the kit sends and must be refused, `=` the state then shown.",
            "",
        ]
    (PAGES / f"{name}.md").write_text("\n".join(lines))
    print(f"wrote docs/conformance/{name}.md")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit", choices=("dsp",))
    parser.add_argument("--runs", type=int, default=3, help="how often the kit must pass in a row")
    given = parser.parse_args()
    dsp(given.runs)


if __name__ == "__main__":
    main()
