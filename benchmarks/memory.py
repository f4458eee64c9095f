"""What a study takes of a site's memory beside its data: ``python benchmarks/memory.py [ROWS]`` (1 000 000).

Each study runs in a process of its own that reads a stored table as a node does; peak and steady
are of private memory above what the process had before it opened the table.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ihds.analysis.coverage import coverage
from ihds.analysis.plan import Plan, run
from ihds.data.codebook import Codebook
from ihds.data.source import Scope
from ihds.data.sources import tabular
from ihds.data.sources.tabular import TabularSource
from ihds.data.table import draft_codebook
from ihds.federation.engine import Here
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.population import marks
from ihds.wire.memory import keep_freed_memory

NUMBERS = [f"x{i}" for i in range(9)]
STUDIES = {
    "logistic, 11 numbers": ("glm", f"y ~ {' + '.join(NUMBERS)}", {"family": "binomial"}),
    "logistic with a category": ("glm", f"y ~ {' + '.join(NUMBERS)} + kind", {"family": "binomial"}),
    "Cox on a grid of 30": ("cox", f"Surv(time, y) ~ {' + '.join(NUMBERS)}", {"time_bin": 30.0}),
    "table one by a category": ("table_one", " + ".join(NUMBERS), {"by": "kind"}),
}


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(rows, len(NUMBERS))), columns=NUMBERS)
    frame["y"] = (rng.random(rows) < 1 / (1 + np.exp(-frame["x0"]))).astype(float)
    frame["time"] = rng.integers(1, 3000, rows).astype(float)
    frame["kind"] = rng.choice(list("abcd"), rows)
    frame["person"] = [f"id{i:08d}" for i in rng.permutation(rows)]
    return frame


def made(path: Path, rows: int) -> None:
    frame = table(rows, 1)
    tabular.load(path, "d", frame, draft_codebook("d", frame.head(10_000), "person"), "site")


def private() -> float:
    """Return private memory in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measured(path: Path, name: str, book: Codebook, answers: object) -> None:
    keep_freed_memory()
    method, formula, params = STUDIES[name]
    plan = Plan(method, {**params, "formula": formula}, book, Thresholds.none(), 1)
    small = table(500, 2)
    run(plan, [small])  # what is loaded once for all studies
    peak, going, before = 0.0, True, private()

    def watch() -> None:
        nonlocal peak
        while going:
            peak = max(peak, private())
            time.sleep(0.002)

    thread = threading.Thread(target=watch)
    thread.start()
    source = TabularSource(path)
    view = source.open(Scope("d", plan.variables | {"person"}))
    levels = plan.agreement.begin().levels
    rows = 0

    def opened(held):
        nonlocal rows
        rows = len(held)
        marked = marks(b"secret", (block["person"] for _, block in held.blocks(("person",))), rows)
        return Here().work(plan, held), coverage(plan.agreement.ask, levels, held, marked), marked

    work, *_kept = view.apply(opened, plan.agreement.ask.features)
    state = plan.begin()
    while plan.finish(state) is None:
        part = work.local(state)
        layout, words = plan.flatten(state, part)
        state = plan.aggregate(state, plan.total(state, type(part).__name__, layout, words))
    steady, going = private(), False
    thread.join()
    data = rows * (8 * len(plan.variables) + 10) / 2**20
    answers.put((data, peak - before, steady - before))


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.duckdb"
        loading = spawn.Process(target=made, args=(path, rows))
        loading.start()
        loading.join()
        source = TabularSource(path)
        book = source.codebook("d")
        source.close()
        for name in STUDIES:
            answers = spawn.Queue()
            process = spawn.Process(target=measured, args=(path, name, book, answers))
            process.start()
            data, peak, steady = answers.get(timeout=600)
            process.join()
            found = {"study": name, "rows": rows, "data_mib": round(data), "peak": peak / data, "steady": steady / data}
            print(json.dumps({k: round(v, 2) if isinstance(v, float) else v for k, v in found.items()}), flush=True)


if __name__ == "__main__":
    main()
