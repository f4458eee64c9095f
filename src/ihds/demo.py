"""The main job, whole: seven real nodes on loopback, one survival study on the Byar trial, three refusals.

Everything goes through the commands and interfaces a person would use; nothing is short-cut.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

import ihds
from ihds.analysis.plan import Plan, run
from ihds.analysis.result import Result
from ihds.cohorts import bladder_cancer
from ihds.errors import IhdsError, PeerFailed
from ihds.governance.application import Application
from ihds.privacy.disclosure import Thresholds
from ihds.reports.html import write_report
from ihds.roles import node
from ihds.roles.accounts import CHECKER, OPERATOR, PREPARER, RESEARCHER, Login
from ihds.roles.config import NodeConfig, free_port
from ihds.roles.node import verify_folder
from ihds.roles.offered import BYAR, HOLDERS, Offered
from ihds.roles.simulated import APPLICATION, ASSESSOR, EVIDENCE, OFFICER, agree, grant, under_ehds
from ihds.roles.space import Space
from ihds.wire.http import Http

COX = "Surv(start_months, stop_months, recurrence) ~ treatment + tumour_count + largest_tumour_cm + cluster(person_id)"
CURVES = "Surv(first_months, first_recurrence) ~ treatment"


@dataclass
class Say:
    """Prints what happens in plain words, with the time it took."""

    console: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    since: float = field(default_factory=time.monotonic)
    number: int = 0

    def step(self, text: str) -> None:
        """Begin a numbered step."""
        self._go_on()
        self.number += 1
        self.console.print(f"\n[bold cyan]{self.number}. {text}[/]  [dim]{time.monotonic() - self.since:.1f} s[/]")

    def _go_on(self) -> None:
        if _interrupted.is_set():
            _interrupted.clear()
            raise KeyboardInterrupt

    def line(self, text: str) -> None:
        """Add a line to the step."""
        self._go_on()
        self.console.print("   " + text.replace("\n", "\n   "), markup=False)


@dataclass
class Nodes:
    """The running processes and their folders."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    configs: dict[str, NodeConfig] = field(default_factory=dict)
    spaces: dict[str, Space] = field(default_factory=dict)

    def make(self, config: NodeConfig, offered: Sequence[Offered] = ()) -> None:
        """Make a node's folder; a holder gets its part of every table."""
        where = self.folder / config.name
        node.create(where, config)
        self.configs[config.name] = config
        for index, (name, _country) in enumerate(HOLDERS):
            for offer in offered if name == config.name else ():
                node.load_dataset(where, offer.dataset(name).id, offer.part(index), offer.codebook)

    def start(self, name: str, kind: str = "node") -> None:
        """Start a node, or the sign-in provider, as a process of its own."""
        command = [sys.executable, "-m", "ihds.cli", kind, "run", str(self.folder / name)]
        log = (self.folder / name / "node.log").open("ab")
        single = {f"{lib}_NUM_THREADS": "1" for lib in ("OMP", "OPENBLAS", "MKL")}
        self.processes[name] = subprocess.Popen(  # noqa: S603
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **single}
        )
        log.close()

    def wait(self) -> None:
        """Wait until every node answers.

        Raises:
            PeerFailed: one ended or stays silent; its log is shown.

        """
        http = Http(timeout_seconds=2)
        deadline = time.monotonic() + 60
        for name, config in self.configs.items():
            while True:
                with contextlib.suppress(IhdsError):
                    http.get_json(f"{config.base_url}/health")
                    break
                ended = name in self.processes and self.processes[name].poll() is not None
                if ended or time.monotonic() > deadline:
                    log = (self.folder / name / "node.log").read_text()[-2000:]
                    raise PeerFailed(f"the node {name} does not run:\n{log}", remedy="see the log above")
                time.sleep(0.05)
        http.close()

    def stop(self) -> None:
        """End all processes, gently, then for certain."""
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 4
        for process in self.processes.values():
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def space(self, name: str) -> Space:
        """Return a node's management interface, the same each time; it is closed with the nodes."""
        if name not in self.spaces:
            self.spaces[name] = ihds.connect(self.folder / name)
        return self.spaces[name]

    def agree(self) -> str:
        """Have the agreement of all institutions signed by each; return its id."""
        return agree(self.space("access-body"), [self.space(h) for h, _ in HOLDERS], self.space("researcher"))

    def grant(self, application: str, **conditions: Any) -> str:
        """Give the verdicts on an application and grant it; return the id of the grant."""
        return grant(self.space("access-body"), self.space("researcher"), application, conditions)


def build(folder: Path, offered: Sequence[Offered] = (BYAR,), login: Login | None = None) -> Nodes:
    """Make the seven nodes: authority, access body, environment, three holders, researcher; people use ``login``."""
    nodes = Nodes(folder)
    names = ["authority", "access-body", "environment", *(h for h, _ in HOLDERS), "researcher"]
    ports = {name: free_port() for name in names}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    dids = {name: f"did:web:127.0.0.1%3A{port}" for name, port in ports.items()}

    def config(name: str, role: Any, country: str, **more: Any) -> NodeConfig:
        settings = {"authority": dids["authority"], "access_bodies": (dids["access-body"],), **more}
        settings["passphrase_file"] = str(folder / "secrets" / name)
        settings["people"] = login.settings(name) if login else {}
        return NodeConfig(name, role, country, urls[name], ports[name], **settings)

    roles = {"access-body": ("access_body", "LU"), "environment": ("environment", "LU"), "researcher": ("user", "LU")}
    roles |= {name: ("holder", country) for name, country in HOLDERS}
    admitted = tuple(f"{dids[name]} {role} {country}" for name, (role, country) in roles.items())
    nodes.make(config("authority", "authority", "LU", members=admitted))
    nodes.make(config("access-body", "access_body", "LU", environment=dids["environment"]))
    nodes.make(config("environment", "environment", "LU"))
    for name, country in HOLDERS:
        evidence = [term.format(dids["researcher"]) for term in EVIDENCE[country]]
        datasets = tuple(offer.dataset(name, evidence) for offer in offered)
        nodes.make(config(name, "holder", country, datasets=datasets, opt_out_registry=dids["access-body"]), offered)
    nodes.make(config("researcher", "user", "LU", catalogues=tuple(dids[h] for h, _ in HOLDERS)))
    return nodes


@contextlib.contextmanager
def running(
    folder: Path, *, keep: bool, offered: Sequence[Offered] = (BYAR,), login: Login | None = None
) -> Iterator[Nodes]:
    """Run the nodes for as long as the block lasts; with ``keep`` leave them up."""
    nodes = build(folder, offered, login)
    done = False
    try:
        for name in nodes.configs:
            nodes.start(name)
        if login:
            nodes.start(login.folder.name, "provider")
        nodes.wait()
        yield nodes
        done = True
    finally:
        for space in nodes.spaces.values():
            space.close()
        if not (keep and done):
            nodes.stop()


def play(nodes: Nodes, say: Say, report_file: Path, login: Login) -> bool:
    """Play the story; return whether the federated fit equals the pooled one."""
    say.step("Persons sign in by OpenID Connect; from here on each acts in its own name and duty")
    login.enrol(nodes.space)
    body = nodes.space("access-body")
    researcher = login.sign_in(RESEARCHER, nodes.space("researcher"))
    assessor, officer = login.sign_in(ASSESSOR, body), login.sign_in(OFFICER, body)
    for name, space in ((RESEARCHER, researcher), (ASSESSOR, assessor), (OFFICER, officer)):
        assert space.session is not None
        told = space.session.whoami()
        say.line(f"{name}: {', '.join(told['roles'])}, {told['issuer']}#{told['subject']}")

    say.step("Three catalogues are harvested and searched for 'bladder'")
    found = researcher.search("bladder")
    for row in found:
        say.line(f"{row['dataset']}: {row['title']} ({row['country']}, about {row['persons']} persons)")
    datasets = [row["dataset"] for row in found]

    say.step("A study without a permit is refused")
    _refused(say, researcher, "cox", {"formula": COX}, datasets=datasets)

    say.step("The institutions sign their agreement: joint research beside the EHDS (Art. 1(8)), the regime of today")
    agreement = nodes.agree()
    say.line(f"agreement {agreement} is in force: every party signed it with the key of its DID")

    say.step("The researcher applies under it; verdicts are given, then it is decided (simulated decision)")
    answer = researcher.apply(datasets=datasets, agreement=agreement, **APPLICATION)
    say.line(f"application {answer['application']} is {answer['state']}")
    try:
        officer.call("permit.decide", id=answer["application"], grant=True)
        return False
    except IhdsError as error:
        _reasons(say, error)
    permit = nodes.grant(answer["application"])
    for name, role in ((CHECKER, "output reviewer"), (PREPARER, "data preparer"), (ASSESSOR, "output reviewer")):
        try:
            officer.call("officer.assign", id=answer["application"], name=name, role=role)
        except IhdsError as error:
            _reasons(say, error)
    operator = login.sign_in(OPERATOR, nodes.space("environment"))
    taken = operator.call("duty.take", id=permit, role="operator of the secure environment")
    say.line(f"{taken['name']} is the {taken['role']} of this project, which the access body keeps")
    say.line(f"authorisation {permit} is granted under the agreement: scientific research, 24 months")

    say.step("The same application under the EHDS, on simulated clocks: refused today, granted from Chapter IV on")
    shown = officer.call("permit.show", id=answer["application"])["application"]
    asked = Application.from_dict({**shown, "datasets": shown["datasets"][:1]})  # only its own country's data
    for instant in (datetime.now(UTC), datetime(2029, 4, 3, 9, tzinfo=UTC)):
        say.line("\n".join(under_ehds(asked, nodes.configs["access-body"].did, instant)))

    say.step("Contracts are agreed with each holder; the environment runs the study in rounds of masked sums")
    cox = researcher.run("cox", permit=permit, report=lambda s: tell(say, s), formula=COX)
    curves = researcher.run("kaplan_meier", permit=permit, formula=CURVES)
    logrank = researcher.run("logrank", permit=permit, formula=CURVES)
    say.line(f"log-rank test of the first recurrence: p = {logrank.tests[0].p:.3f}")

    say.step("The result beside the pooled reference (the same model on all rows in one place)")
    worst = _compare(say, cox, pooled("cox", COX))

    say.step("A purpose the permit does not cover is refused")
    _refused(say, researcher, "cox", {"formula": COX}, permit=permit, purpose="improving_care")

    say.step("The permit is revoked in the middle of a study")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=3)
    _wait_paused(researcher, study)
    say.line(f"study {study} was paused after 3 rounds")
    officer.call("permit.revoke", id=permit, reason="end of the demonstration")
    say.line("the access body revoked the permit")
    try:
        researcher.resume(study)
        say.line("NOT REFUSED")
        return False
    except IhdsError as error:
        _reasons(say, error)

    say.step("Every node's audit log is proved")
    proofs = [verify_folder(nodes.folder / name) for name in nodes.configs]
    for proof in proofs:
        say.line(f"{proof['node']}: {proof['entries']} entries, proved")

    write_report(report_file, cox, curves, logrank, proofs, worst)
    say.step(f"The report: {report_file}")
    say.line(f"largest relative difference from the pooled fit: {worst:.1e}")
    return worst < 1e-8


def pooled(method: str, formula: str) -> Result:
    """Return the reference: the method on all rows together, without federation."""
    plan = Plan(method, {"formula": formula}, bladder_cancer.codebook(), Thresholds.none(), 1)
    return run(plan, [bladder_cancer.byar_trial()])


def _compare(say: Say, federated: Result, reference: Result) -> float:
    worst = 0.0
    say.line(f"{'term':24} {'federated':>14} {'pooled':>14} {'difference':>12} {'robust se':>10} {'p':>7}")
    for mine, theirs in zip(federated.coefficients, reference.coefficients, strict=True):
        gap = mine.estimate - theirs.estimate
        worst = max(worst, abs(gap) / max(abs(theirs.estimate), 1e-3))
        robust = mine.robust_se or mine.se
        say.line(
            f"{mine.term:24} {mine.estimate:14.10f} {theirs.estimate:14.10f} {gap:12.1e} {robust:10.4f} {mine.p:7.3f}"
        )
    sent = sum(part["bytes"] for part in federated.provenance["left_each_site"])
    say.line(f"{federated.rounds} rounds; {sent} masked bytes left each site; no row, no single site's sum")
    return worst


def tell(say: Say, step: dict[str, Any]) -> None:
    """Print one step of a study."""
    match step["step"]:
        case "agreement":
            say.line(f"{step['holder']}: contract agreed, {step['agreement']}")
        case "environment":
            say.line(f"the environment that the permit names opens the totals: {step['environment']}")
        case "transfer":
            say.line(f"{step['holder']}: transfer started")
        case "round":
            say.line(f"round {step['number']}: {step['contribution']}, {step['bytes']} bytes from each site")


def _refused(say: Say, space: Space, method: str, params: dict[str, Any], **more: Any) -> None:
    try:
        space.follow(space.start(method, params, **more))
    except IhdsError as error:
        _reasons(say, error)
        return
    raise PeerFailed("the study should have been refused")


def _reasons(say: Say, error: IhdsError) -> None:
    say.line(f"refused: {error.message}")
    for reason in dict.fromkeys(r.split(": ", 1)[-1] for r in error.reasons):
        say.line(f"  because {reason}")


def _wait_paused(space: Space, study: str) -> None:
    for _ in space.steps(study):
        pass


_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


_interrupted = threading.Event()


def _interrupt(*_: object) -> None:
    """End the story once; further signals must not cut the stopping of the nodes short."""
    for number in _ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    _interrupted.set()
    raise KeyboardInterrupt  # lost where Python calls back from C; the next line told ends the story then


def main() -> int:
    """Play the demo; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ihds.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to put the nodes (default: a temporary folder)")
    parser.add_argument("--report", type=Path, default=Path("ihds-report.html"))
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    given = parser.parse_args()
    for number in _ENDINGS:
        signal.signal(number, _interrupt)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="ihds-demo-"))
    say = Say()
    ok = False
    try:
        say.step("Seven nodes start, each with its own keys, DID, store and data")
        login = Login.make(folder / "login")
        with running(folder, keep=given.keep, login=login) as nodes:
            for name, config in nodes.configs.items():
                say.line(f"{name:12} {config.role:12} {config.country}  {config.base_url}  {config.did}")
            ok = play(nodes, say, given.report, login)
        if given.keep:
            say.line(
                f"\nthe nodes run on; folders are in {folder}, also those of the persons who signed in; stop with:"
            )
            say.line("kill " + " ".join(str(p.pid) for p in nodes.processes.values()))
    except KeyboardInterrupt:
        _interrupted.clear()
        say.line("interrupted; all nodes were stopped")
        return 130
    except IhdsError as error:
        say.line(str(error))
        return error.exit_status
    finally:
        if not given.keep and not given.folder:
            shutil.rmtree(folder, ignore_errors=True)
    say.console.print(f"\n[bold]{'done' if ok else 'FAILED'}[/] in {time.monotonic() - say.since:.1f} s")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
