"""How long it takes to open a view of many persons while as many have opted out: the issue asks for < 2 s at 1e6.

PYTHONPATH=src python benchmarks/opt_outs.py [persons]
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pandas as pd

from ihds.data.codebook import Codebook, Variable
from ihds.data.source import FrameSource, Scope
from ihds.federation.opt_outs import OptOuts
from ihds.privacy.opt_outs import ENTRY, History, tokens

FIRST, SECOND = b"a" * 32, b"b" * 32


def main() -> None:
    persons = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    who = pd.Series([f"{i:013d}" for i in range(persons)])
    frame = pd.DataFrame({"person": who, "age": np.arange(persons, dtype=float)})
    book = Codebook("d", {"person": Variable("person", "identifier"), "age": Variable("age", "number")}, "person")
    entries = np.zeros(persons, dtype=ENTRY)  # half of them are here, half are of others
    others = tokens(FIRST, SECOND, "LU", "X" + who)
    entries["token"] = np.random.default_rng(1).permutation(np.concatenate([tokens(FIRST, SECOND, "LU", who), others]))[
        :persons
    ]
    entries["out"] = 1
    entries["holds_from"] = np.arange(persons)
    at = datetime(2029, 6, 1, tzinfo=UTC)
    kept = {"registry": "did:web:r", "version": persons}
    log = SimpleNamespace(get=lambda kind, _id: SimpleNamespace(body=kept) if kind == "opt_outs.applied" else None)
    line = SimpleNamespace(keys=lambda _d: (FIRST, SECOND))
    source = FrameSource("d", frame, book)
    choices = OptOuts("did:web:h", "LU", source, log, line, {"d": "person"})
    choices._histories["d"] = History(("all",), entries)
    permit = SimpleNamespace(id="p", issued_at=at, purpose="scientific_research", legal_regime="contract")
    for said in ("first view (persons hashed)", "another permit (hashes kept)"):
        began, busy = time.perf_counter(), time.process_time()
        opened = source.open(Scope("d", frozenset({"age"})))
        without = time.process_time() - busy
        view = choices.applied(opened, permit)
        taken, busy = time.perf_counter() - began, time.process_time() - busy
        print(f"{said}: {persons} persons, {persons} opt-outs, {view.persons} stay: {taken:.2f} s", end="")
        print(f", of the processor {busy:.2f} s, {without:.2f} s of it without looking at opt-outs")
        choices._last.clear()


if __name__ == "__main__":
    main()
