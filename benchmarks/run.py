"""Federated against pooled, and over real HTTP between real nodes: ratios, seconds, memory, bytes.

Every ratio is taken against a peer in the same run; absolute seconds are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import vector

import ihds
from ihds.analysis import method
from ihds.demo import EVIDENCE, Nodes
from ihds.roles import node
from ihds.roles.config import DatasetConfig, NodeConfig, free_port
from ihds.roles.simulated import agree, grant

method.methods()["vector"] = vector  # type: ignore[assignment]
ROWS: list[dict] = []


def report(what: str, seconds: float, against: str = "", ratio: float | None = None, **more) -> None:
    row = {"what": what, "seconds": round(seconds, 4), "against": against, "ratio": ratio and round(ratio, 2), **more}
    ROWS.append(row)
    extra = ", ".join(f"{k} {v}" for k, v in more.items())
    versus = f"  {ratio:7.2f} x {against}" if ratio is not None else ""
    print(f"{what:58} {seconds:9.3f} s{versus}  {extra}", flush=True)


def timed(call):
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def survival_rows(n: int, p: int, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    beta = np.linspace(-0.3, 0.3, p)
    time_ = rng.exponential(60 * np.exp(-x @ beta))
    censor = rng.exponential(80, n)
    months = np.ceil(np.minimum(np.minimum(time_, censor), 195)).clip(1)
    frame = pd.DataFrame(x, columns=[f"x{j}" for j in range(p)])
    return frame.assign(time=months, status=((time_ <= censor) & (time_ <= 195)).astype(float))


def logistic_rows(n: int, p: int, seed: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    y = rng.random(n) < 1 / (1 + np.exp(-(x @ np.linspace(-0.5, 0.5, p) - 0.3)))
    return pd.DataFrame(x, columns=[f"x{j}" for j in range(p)]).assign(y=y.astype(float))


def numpy_cox(frame: pd.DataFrame, p: int) -> np.ndarray:
    """The plain kernel: Efron on sorted rows in one process, nothing protected."""
    x = frame[[f"x{j}" for j in range(p)]].to_numpy()
    bins = frame["time"].to_numpy().astype(int)
    event = frame["status"].to_numpy() > 0
    order = np.argsort(bins, kind="stable")
    x, bins, event = x[order], bins[order], event[order]
    first = np.searchsorted(bins, np.arange(bins.max() + 2))
    filled = np.flatnonzero(np.diff(first) > 0)
    d = np.bincount(bins[event], minlength=len(first) - 1)
    which = np.repeat(np.arange(len(d)), d)
    rank = np.arange(len(which)) - np.repeat(np.cumsum(d) - d, d)
    f = rank / d[which]
    beta = np.zeros(p)
    for _ in range(20):
        r = np.exp(x @ beta)
        rx = r[:, None] * x

        def sums(v, mask=None):
            v = v if mask is None else v * (mask[:, None] if v.ndim > 1 else mask)
            out = np.zeros((len(d), *v.shape[1:]))
            out[filled] = np.add.reduceat(v, first[filled], axis=0)
            return out

        s0, s1 = (np.cumsum(sums(v)[::-1], axis=0)[::-1] for v in (r, rx))
        d0, d1 = sums(r, event), sums(rx, event)
        a0 = s0[which] - f * d0[which]
        per = lambda v: np.bincount(which, weights=v, minlength=len(d))  # noqa: E731
        a, b = per(1 / a0), per(f / a0)
        aa, ab, bb = per(1 / a0**2), per(f / a0**2), per((f / a0) ** 2)
        weight = r * np.cumsum(a)[bins] - event * r * b[bins]
        cross = s1.T @ (ab[:, None] * d1)
        info = x.T @ (weight[:, None] * x) - (s1.T @ (aa[:, None] * s1) - cross - cross.T + d1.T @ (bb[:, None] * d1))
        step = np.linalg.solve(info, x[event].sum(axis=0) - (a @ s1 - b @ d1))
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            return beta
    raise RuntimeError("no convergence")


def numpy_logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    beta = np.zeros(x.shape[1])
    for _ in range(20):
        mean = 1 / (1 + np.exp(-(x @ beta)))
        step = np.linalg.solve((x.T * (mean * (1 - mean))) @ x, x.T @ (y - mean))
        beta = beta + step
        if np.abs(step).max() < 1e-9:
            return beta
    raise RuntimeError("no convergence")


def r_seconds(frame: pd.DataFrame, call: str) -> float | None:
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(Path(folder) / "d.csv", index=False)
        script = (
            f'd <- read.csv("{folder}/d.csv"); suppressMessages(library(survival)); '
            f"cat(system.time({call})[['elapsed']])"
        )
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True)
        return float(done.stdout.strip().split()[-1]) if done.returncode == 0 else None


def memory_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def one_process(n: int) -> None:
    p, sites = 10, 5
    names = " + ".join(f"x{j}" for j in range(p))
    for what, frame, call, params in (
        (
            "Cox Efron, monthly",
            survival_rows(n, p),
            "cox",
            {"formula": f"Surv(time, status) ~ {names}", "time_bin": 1.0, "horizon": 196.0},
        ),
        ("logistic", logistic_rows(n, p), "glm", {"formula": f"y ~ {names}", "family": "binomial"}),
    ):
        label = f"{what} {n:.0e} x {p}"
        if call == "cox":
            floor, beta = timed(lambda: numpy_cox(frame, p))  # noqa: B023
        else:
            x = np.column_stack([np.ones(n), frame[[f"x{j}" for j in range(p)]].to_numpy()])
            y = frame["y"].to_numpy()
            floor, beta = timed(lambda: numpy_logistic(x, y))  # noqa: B023
        report(f"{label}: plain numpy, pooled", floor)
        peers(label, frame, call, names, floor)
        parts = {f"s{i}": frame.iloc[i::sites].reset_index(drop=True) for i in range(sites)}
        federation = ihds.local_federation(parts, codebook=shared_codebook(frame))
        seconds, result = timed(lambda: federation.run(call, **params))  # noqa: B023
        gap = max(abs(c.estimate - b) for c, b in zip(result.coefficients, beta, strict=True))
        sent = sum(part["bytes"] for part in result.provenance["left_each_site"])
        report(
            f"{label}: ihds, {sites} sites, all protections",
            seconds,
            "numpy",
            seconds / floor,
            rounds=result.rounds,
            KiB_per_site=sent // 1024,
            peak_MiB=memory_mib(),
            gap=f"{gap:.0e}",
        )


def shared_codebook(frame: pd.DataFrame):
    from ihds.data.codebook import Codebook, Variable

    return Codebook("bench", {c: Variable(c, "number") for c in frame.columns})


def peers(label: str, frame: pd.DataFrame, call: str, names: str, floor: float) -> None:
    if call == "cox":
        try:
            from lifelines import CoxPHFitter

            seconds, _ = timed(lambda: CoxPHFitter().fit(frame, "time", "status"))
            report(f"{label}: lifelines, pooled", seconds, "numpy", seconds / floor)
        except ImportError:
            pass
        seconds = r_seconds(frame, f"coxph(Surv(time, status) ~ {names}, d)")
    else:
        try:
            import statsmodels.api as sm

            x = sm.add_constant(frame.drop(columns="y"))
            seconds, _ = timed(lambda: sm.GLM(frame["y"], x, family=sm.families.Binomial()).fit())
            report(f"{label}: statsmodels, pooled", seconds, "numpy", seconds / floor)
        except ImportError:
            pass
        seconds = r_seconds(frame, f"glm(y ~ {names}, binomial, d)")
    if seconds is not None:
        report(f"{label}: R, pooled", seconds, "numpy", seconds / floor)


# -- real nodes ------------------------------------------------------------------------------------


class Bench(Nodes):
    """Real node processes; holders' data are made up."""

    def start(self, name: str) -> None:
        log = (self.folder / name / "node.log").open("ab")
        command = [sys.executable, str(Path(__file__).parent / "node.py"), str(self.folder / name)]
        self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        log.close()


def build(folder: Path, tables: list[pd.DataFrame]) -> Bench:
    nodes = Bench(folder)
    holders = [f"h{i}" for i in range(len(tables))]
    names = ["authority", "access-body", *holders, "researcher"]
    ports = {name: free_port() for name in names}
    dids = {name: f"did:web:127.0.0.1%3A{port}" for name, port in ports.items()}

    def make(name: str, role: str, **more) -> None:
        config = NodeConfig(
            name=name,
            role=role,
            country="LU",
            base_url=f"http://127.0.0.1:{ports[name]}",
            port=ports[name],
            authority=dids["authority"],
            access_bodies=(dids["access-body"],),
            **more,
        )
        node.create(folder / name, config)
        nodes.configs[name] = config

    roles = {"access-body": "access_body", "researcher": "user", **dict.fromkeys(holders, "holder")}
    make("authority", "authority", members=tuple(f"{dids[n]} {role} LU" for n, role in roles.items()))
    make("access-body", "access_body")
    for name, table in zip(holders, tables, strict=True):
        methods = ("cox", "glm", "describe", "vector")
        held = DatasetConfig(f"data-{name}", name, methods=methods, evidence=EVIDENCE["LU"])
        make(name, "holder", datasets=(held,))
        node.load_dataset(folder / name, f"data-{name}", table, shared_codebook(table))
    make("researcher", "user", catalogues=tuple(dids[h] for h in holders))
    return nodes


def with_nodes(tables: list[pd.DataFrame], play) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ihds-bench-"))
    nodes = build(folder, tables)
    try:
        for name in nodes.configs:
            nodes.start(name)
        nodes.wait()
        researcher, body = nodes.space("researcher"), nodes.space("access-body")
        found = researcher.search("")
        asked = {
            "title": "b",
            "purpose": "scientific_research",
            "intended_use": "b",
            "benefit": "b",
            "variables": list(tables[0].columns),
            "methods": ["glm", "describe", "vector"],
            "persons": ["b"],
            "legal_basis": "b",
            "ethics": "b",
            "safeguards": "b",
            "period_months": 1,
        }
        holders = [nodes.space(name) for name, config in nodes.configs.items() if config.role == "holder"]
        agreement = agree(body, holders, researcher)
        answer = researcher.apply(datasets=[r["dataset"] for r in found], agreement=agreement, **asked)
        permit = grant(body, researcher, answer["application"], {"max_rounds": 100000})
        play(researcher, permit, folder)
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def round_seconds(folder: Path, study: str) -> list[float]:
    """Times between the committed rounds of a study, from the researcher's log."""
    from ihds.store.store import Store

    store = Store(f"sqlite:///{folder / 'researcher' / 'store.sqlite'}")
    entries = [json.loads(t) for t in store.read()]
    store.close()
    at = [
        datetime.fromisoformat(e["at"]).timestamp()
        for e in entries
        if e["kind"] in ("study.started", "study.round") and e["details"]["study"] == study
    ]
    return [b - a for a, b in zip(at, at[1:], strict=False)]


def small_round() -> None:
    def play(space, permit, folder) -> None:
        result = space.run("vector", permit=permit, size=121, repeats=60)
        times = round_seconds(folder, result.provenance["study"])[5:]
        report(
            "round over HTTP, 3 sites x 121 numbers (median)",
            statistics.median(times),
            "20 ms goal",
            statistics.median(times) / 0.020,
        )

    with_nodes([logistic_rows(100, 1, s) for s in range(3)], play)


def logistic_over_http() -> None:
    tables = [logistic_rows(100_000, 10, s) for s in range(5)]
    x = np.column_stack([np.ones(500_000), pd.concat(tables).drop(columns="y").to_numpy()])
    y = pd.concat(tables)["y"].to_numpy()
    floor, beta = timed(lambda: numpy_logistic(x, y))
    report("logistic 5e5 x 10: plain numpy, pooled", floor)
    formula = "y ~ " + " + ".join(f"x{j}" for j in range(10))

    def play(space, permit, folder) -> None:
        seconds, rounds, gap = [], 0, 0.0
        for _ in range(6):
            result = space.run("glm", permit=permit, formula=formula, family="binomial")
            seconds.append(sum(round_seconds(folder, result.provenance["study"])))
            rounds = result.rounds
            gap = max(abs(c.estimate - b) for c, b in zip(result.coefficients, beta, strict=True))
        for what, took in (("very first study", seconds[0]), ("median of five more", statistics.median(seconds[1:]))):
            report(
                f"logistic over HTTP, 5 sites x 1e5 x 10, {what}",
                took,
                "numpy",
                took / floor,
                rounds=rounds,
                gap=f"{gap:.0e}",
                goal="0.4 s",
            )

    with_nodes(tables, play)


def large_round() -> None:
    def play(space, permit, folder) -> None:
        result = space.run("vector", permit=permit, size=1_000_000, repeats=12)
        times = round_seconds(folder, result.provenance["study"])[4:]
        report(
            "round over HTTP, 10 parties x 1e6 numbers (median)",
            statistics.median(times),
            "0.2 s goal",
            statistics.median(times) / 0.2,
        )
        assert result.details["total"] == 20.0

    with_nodes([logistic_rows(100, 1, s) for s in range(10)], play)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--only", choices=("process", "small", "logistic", "large"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    parts = {
        "process": lambda: one_process(int(given.rows)),
        "small": small_round,
        "logistic": logistic_over_http,
        "large": large_round,
    }
    for name, play in parts.items():
        if given.only in (None, name):
            play()
    if given.json:
        given.json.write_text(json.dumps(ROWS, indent=2))


if __name__ == "__main__":
    main()
