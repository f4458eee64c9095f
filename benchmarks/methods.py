"""Methods against R and plink2 on the same data in the same run: ratios of seconds, five sites in one process.

Ours is the whole of a federated run: agreement, rounds, sums in fixed point. The peer's is the fit
alone, its data already read. A peer that is not installed is left out and said so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")

import numpy as np
import pandas as pd

from ihds.analysis.plan import Plan, run
from ihds.data.codebook import Codebook, Variable
from ihds.data.frames import InMemory
from ihds.data.plink import Bed
from ihds.data.wide import Table, Wide
from ihds.privacy.disclosure import Thresholds

ROWS: list[dict[str, Any]] = []
SITES = 5


def ours(frame: pd.DataFrame, method: str, person: str = "", **params: Any) -> float:
    """Return the seconds of a federated run on rows spread over the sites."""
    kinds = {c: "identifier" if c == person else "number" for c in frame.columns}
    book = Codebook("bench", {c: Variable(c, kind) for c, kind in kinds.items()}, person=person)
    site = (frame[person].astype(int) if person else pd.Series(range(len(frame)))) % SITES
    parts = [frame[site == s].reset_index(drop=True) for s in range(SITES)]
    return timed(method, params, book, parts)


def timed(method: str, params: dict[str, Any], book: Codebook, sites: Sequence[pd.DataFrame | Table]) -> float:
    """Return the seconds of a federated run; the faster of two, the first of which loads libraries."""
    best = float("inf")
    for _ in range(2):
        plan = Plan(method, params, book, Thresholds.none(), SITES)
        begin = time.perf_counter()
        run(plan, sites)
        best = min(best, time.perf_counter() - begin)
    return best


def r(frame: pd.DataFrame, before: str, call: str) -> float | None:
    """Return the seconds of an R call; None where R or the package is absent."""
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(Path(folder) / "d.csv", index=False)
        script = f'd <- read.csv("{folder}/d.csv"); {before}; cat(system.time({call})[["elapsed"]])'
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True)
    return float(done.stdout.strip().split()[-1]) if done.returncode == 0 and done.stdout.strip() else None


def report(what: str, seconds: float, peer: str, theirs: float | None, goal: float) -> None:
    """Print a row: our seconds, the peer's, the ratio and the goal."""
    ratio = None if theirs is None else seconds / theirs
    ROWS.append({"what": what, "seconds": seconds, "peer": peer, "peer_seconds": theirs, "ratio": ratio, "goal": goal})
    shown = f"{peer} is absent" if ratio is None else f"{ratio:6.2f} x {peer} ({theirs:.2f} s), goal {goal:g}"
    print(f"{what:52} {seconds:8.3f} s  {shown}", flush=True)


def mixed(scale: int) -> None:
    """Linear mixed models of 1e5 rows against lmer."""
    rng = np.random.default_rng(1)
    patients = 10_000 // scale
    who = np.repeat(np.arange(patients), 10)
    t, b = np.tile(np.arange(10.0), patients), rng.normal(size=(patients, 2)) * [2, 0.5]
    frame = pd.DataFrame({"id": who.astype(str), "t": t, "age": rng.normal(60, 9, patients)[who]})
    frame["y"] = 1 + 0.3 * t + 0.02 * frame["age"] + b[who, 0] + b[who, 1] * t + rng.normal(size=len(t))
    for name, term in (("random intercept", "(1 | id)"), ("random slope", "(t | id)")):
        call = f"lmer(y ~ t + age + {term}, d)"
        theirs = r(frame, "suppressMessages(library(lme4)); d$id <- factor(d$id)", call)
        seconds = ours(frame, "lmm", "id", formula=f"y ~ t + age + {term}")
        report(f"LMM, {name}, {len(frame):.0e} rows", seconds, "lmer", theirs, 1.0)


def robust(scale: int) -> None:
    """A Cox model with patients as clusters against coxph."""
    rng = np.random.default_rng(2)
    n = 100_000 // scale
    frame = pd.DataFrame(rng.normal(size=(n, 10)), columns=[f"x{j}" for j in range(10)])
    frame["id"] = (np.arange(n) // 4).astype(str)
    frame["time"] = np.ceil(rng.exponential(60, n)).clip(1, 195)
    frame["status"] = (rng.random(n) < 0.6).astype(float)
    right = " + ".join(f"x{j}" for j in range(10))
    before = "suppressMessages(library(survival))"
    theirs = r(frame, before, f"coxph(Surv(time, status) ~ {right} + cluster(id), d)")
    seconds = ours(
        frame, "cox", "id", formula=f"Surv(time, status) ~ {right} + cluster(id)", time_bin=1.0, horizon=196.0
    )
    report(f"Cox, cluster-robust, {n:.0e} x 10", seconds, "coxph", theirs, 0.01)


def expression(scale: int) -> None:
    """Moderated tests of 20 000 genes against limma."""
    rng = np.random.default_rng(3)
    genes, samples = 20_000 // scale, 400
    frame = pd.DataFrame(rng.normal(8, 1, (samples, genes)), columns=[f"g{j:05d}" for j in range(genes)])
    names = tuple(frame.columns)
    frame["arm"], frame["age"] = np.repeat([0.0, 1.0], samples // 2), rng.normal(60, 9, samples)
    before = (
        "suppressMessages(library(limma)); x <- t(as.matrix(d[, grepl('^g', names(d))])); m <- cbind(1, d$age, d$arm)"
    )
    theirs = r(frame, before, "eBayes(lmFit(x, m))")
    book = Codebook("bench", {c: Variable(c, "number") for c in frame.columns})
    parts = [frame.iloc[s::SITES].reset_index(drop=True) for s in range(SITES)]
    sites = [Table(InMemory(part[["arm", "age"]]), Wide.of_frame(part, names)) for part in parts]
    seconds = timed("differential_expression", {"formula": "~ age + arm", "features": "g*"}, book, sites)
    report(f"limma, {genes} genes x {samples}", seconds, "lmFit + eBayes", theirs, 1.0)


def association(scale: int) -> None:
    """Linear and logistic scans against plink2 on the same genotypes, each site's in a file of its own."""
    rng = np.random.default_rng(4)
    persons, variants = 10_000 // scale, 100_000 // scale
    names = tuple(f"rs{j:06d}" for j in range(variants))
    extra = {f"c{j}": rng.normal(size=persons) for j in range(4)}
    extra["y"] = extra["c0"] + rng.normal(size=persons)
    extra["z"] = (extra["y"] > 0).astype(float)
    frame = pd.DataFrame({"id": [str(i) for i in range(persons)], **extra})
    kinds = {c: "identifier" if c == "id" else "number" for c in (*frame.columns, *names)}
    book = Codebook("bench", {c: Variable(c, kind) for c, kind in kinds.items()}, person="id")
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        frequency = rng.uniform(0.05, 0.5, variants)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context((at / f"{s}.bed").open("wb")) for s in ("all", *range(SITES))]
            for file in files:
                file.write(bytes([0x6C, 0x1B, 1]))
            for part in range(0, variants, 1000):
                g = rng.binomial(2, frequency[part : part + 1000], (persons, len(frequency[part : part + 1000])))
                for file, chosen in zip(files, (g, *(g[s::SITES] for s in range(SITES))), strict=True):
                    file.write(packed(chosen))
        sites = []
        for s in range(SITES):
            part = frame.iloc[s::SITES].reset_index(drop=True)
            sites.append(Table(InMemory(part), Wide.over(Bed(at / f"{s}.bed", names, len(part)))))
        right = "c0 + c1 + c2 + c3"
        for family, trait, goal in (("gaussian", "y", 1.2), ("binomial", "z", 0.1)):
            values = {"formula": f"{trait} ~ {right}", "features": "rs*", "family": family}
            best = timed("association_scan", values, book, sites)
            report(
                f"GWAS, {family}, {persons} x {variants}", best, "plink2 --glm", plink(at, names, extra, trait), goal
            )


def packed(g: np.ndarray) -> bytes:
    """Return genotypes (persons, variants) as PLINK 1 writes them: two bits each, variant by variant."""
    codes = np.array([3, 2, 0], dtype=np.uint8)[g.T]  # copies of the first allele: none, one, two
    padded = np.zeros((codes.shape[0], -(-codes.shape[1] // 4) * 4), dtype=np.uint8)
    padded[:, : codes.shape[1]] = codes
    quads = padded.reshape(len(codes), -1, 4)
    return bytes((quads[:, :, 0] | quads[:, :, 1] << 2 | quads[:, :, 2] << 4 | quads[:, :, 3] << 6).astype(np.uint8))


def plink(at: Path, names: tuple[str, ...], extra: dict[str, np.ndarray], trait: str) -> float | None:
    """Return plink2's seconds on the same genotypes, one thread; None where it is absent."""
    if shutil.which("plink2") is None:
        return None
    n = len(extra[trait])
    (at / "all.bim").write_text("".join(f"1 {name} 0 {j + 1} A G\n" for j, name in enumerate(names)))
    (at / "all.fam").write_text("".join(f"{i} {i} 0 0 1 -9\n" for i in range(1, n + 1)))
    table = pd.DataFrame({"FID": range(1, n + 1), "IID": range(1, n + 1), **extra})
    table[["FID", "IID", trait]].to_csv(at / "p.txt", sep=" ", index=False)
    table[["FID", "IID", "c0", "c1", "c2", "c3"]].to_csv(at / "c.txt", sep=" ", index=False)
    command = ["plink2", "--bfile", "all", "--pheno", "p.txt", "--covar", "c.txt", "--threads", "1", "--out", "o"]
    command += ["--glm", "no-firth", "hide-covar", "allow-no-covars", *(["--1"] if trait == "z" else [])]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=at, capture_output=True, text=True)
    return time.perf_counter() - begin if done.returncode == 0 else None


def main() -> None:
    """Run all or one of the comparisons."""
    parts = {"mixed": mixed, "robust": robust, "expression": expression, "association": association}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=sorted(parts))
    parser.add_argument("--scale", type=int, default=1, help="divide all sizes by this, for a quick look")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    for name, part in parts.items():
        if given.only in (None, name):
            part(given.scale)
    if given.json:
        given.json.write_text(json.dumps(ROWS, indent=2))


if __name__ == "__main__":
    sys.exit(main())
