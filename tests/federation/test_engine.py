"""A site over a cluster: the same digits from parts of its rows, persons and clusters whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import Plan, run
from ihds.analysis.rows import pieces
from ihds.data.codebook import Codebook, Variable
from ihds.data.wide import Table
from ihds.errors import SetupFailed
from ihds.federation.engine import Dask, Here, divide, engine_of
from ihds.privacy.disclosure import Thresholds
from tests.analysis.test_laws import BOOK, CALLS, make_rows

ROWS = make_rows(3, 240)
ADDITIVE = [
    ("cox", {"formula": "Surv(time, event) ~ age + arm"}),
    ("cox", {"formula": "Surv(start, time, event) ~ age + cluster(patient)"}),
    ("kaplan_meier", CALLS["kaplan_meier"][0]),
    ("glm", CALLS["glm"][1]),
    ("lmm", CALLS["lmm"][0]),
    ("gee", CALLS["gee"][0]),
    ("quantiles", CALLS["quantiles"][0]),
    ("table_one", CALLS["table_one"][0]),
    ("principal_components", CALLS["principal_components"][0]),
    ("glm_imputed", CALLS["glm_imputed"][0]),  # a model per site: computed here, and so the same
]


@pytest.fixture(scope="module")
def cluster():
    engine = Dask(workers=4)
    yield engine
    engine.close()


def rounds(plan: Plan, engine, tables):
    """Run a plan as ``plan.run`` does, each site's rows on an engine."""
    works = [engine.work(plan, Table.of(table, plan.agreement.ask.features)) for table in tables]
    state = plan.begin()
    while (result := plan.finish(state)) is None:
        parts = [work.local(state) for work in works]
        flat = [plan.flatten(state, part) for part in parts]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(parts[0]).__name__, flat[0][0], words))
    return result.with_provenance(state.rounds, {}), [work.persons() for work in works]


@pytest.mark.parametrize(("name", "call"), ADDITIVE, ids=str)
def test_four_workers_give_the_same_digits(cluster, name, call):
    tables = [ROWS.iloc[:120].reset_index(drop=True), ROWS.iloc[120:].reset_index(drop=True)]
    plan = Plan(name, call, BOOK, Thresholds.none(), 2)
    here = run(plan, tables).to_dict()
    spread, persons = rounds(plan, cluster, tables)
    assert persons == [work.persons() for work in _after(plan, tables)]
    assert alike(spread.to_dict(), here)


def _after(plan: Plan, tables):
    works = [Here().work(plan, Table.of(table, plan.agreement.ask.features)) for table in tables]
    for work in works:
        work.local(plan.begin())
    return works


def alike(one, two) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(alike(one[k], two[k]) for k in one if k != "provenance")
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(alike(a, b) for a, b in zip(one, two, strict=True))
    if isinstance(one, float) and isinstance(two, (int, float)):
        return bool(np.isclose(one, two, rtol=1e-9, atol=1e-10, equal_nan=True))
    return bool(one == two)


class Watched:
    """Rows in memory, of which it is noted how many are asked for at once."""

    def __init__(self, frame):
        self.names, self.height, self.frame, self.most = tuple(frame.columns), len(frame), frame, 0

    def read(self, names, rows):
        part = self.frame.iloc[rows][list(names)].reset_index(drop=True)
        self.most = max(self.most, len(part) if len(names) > 1 else 0)  # single columns, of persons, are read whole
        return part


PLANS = {n: Plan(n, calls[0], BOOK, Thresholds.none(), 2) for n, calls in CALLS.items()}
DIVIDED = sorted(n for n, plan in PLANS.items() if plan.together is not None and not plan.agreement.ask.features)


@pytest.mark.parametrize("name", DIVIDED)
def test_rows_in_pieces_give_the_same_digits(name, monkeypatch):
    tables = [ROWS.iloc[:120].sort_values("patient", kind="stable").reset_index(drop=True), ROWS.iloc[120:]]
    tables[1] = tables[1].reset_index(drop=True)  # persons here and there: these rows stay whole
    plan = PLANS[name]
    whole, persons = rounds(plan, Here(), tables)
    monkeypatch.setattr("ihds.analysis.rows.PIECE", 16)
    assert alike(rounds(plan, Here(), tables)[0].to_dict(), whole.to_dict())
    monkeypatch.setattr("ihds.federation.engine.PIECE", 16)
    streamed, counted = rounds(plan, Here(keep=0), tables)
    assert alike(streamed.to_dict(), whole.to_dict())
    assert counted == persons


def test_clusters_are_those_of_rows_that_take_part(monkeypatch):
    call = {"formula": "Surv(start, time, event) ~ age + cluster(patient)"}
    rows = ROWS.sort_values("patient", kind="stable").reset_index(drop=True)
    gone = sorted(set(rows["patient"]))[-7:]
    rows.loc[rows["patient"].isin(gone), "age"] = np.nan
    plan = Plan("cox", call, BOOK, Thresholds.none(), 1)
    told = set()
    for piece in (1 << 17, 16):
        monkeypatch.setattr("ihds.analysis.rows.PIECE", piece)
        told.add(run(plan, [rows]).details["clusters_within_sites"])
    assert told == {rows["patient"].nunique() - 7}


def test_methods_that_are_not_sums_over_pieces_are_not_divided():
    assert {"meta_analysis", "glm_imputed", "validate_panel"}.isdisjoint(DIVIDED)
    assert {"cox", "glm", "lmm", "kaplan_meier", "describe", "multinomial"} <= set(DIVIDED)


def test_rows_that_take_too_much_memory_are_read_piece_by_piece(monkeypatch):
    monkeypatch.setattr("ihds.federation.engine.PIECE", 16)
    frame = ROWS.sort_values("patient", kind="stable").reset_index(drop=True)
    plan = Plan("glm", {"formula": "size ~ age"}, BOOK, Thresholds.none(), 1)
    for keep, most in ((0, 16 + int(frame["patient"].value_counts().max())), (1 << 29, len(frame))):
        watched = Watched(frame)
        work = Here(keep).work(plan, Table(watched, Table.of(frame, ()).wide))
        work.local(plan.begin())
        assert 0 < watched.most <= most
        assert (watched.most == len(frame)) == (keep > 0)


def test_persons_are_whole_in_every_piece():
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    for size in (1, 5, 16, 1000):
        found = pieces(person, size)
        assert np.array_equal(np.concatenate([person[rows] for rows in found]), person)
        held = [set(person[rows]) for rows in found]
        assert all(a.isdisjoint(b) for i, a in enumerate(held) for b in held[:i])
    assert len(pieces(person, 16)) > 5
    assert len(pieces(rng.permutation(person), 16)) == 1
    assert len(pieces(np.append(person, -1), 16)) == 1


def test_persons_and_clusters_stay_whole():
    plan = Plan("lmm", CALLS["lmm"][0], BOOK, Thresholds.none(), 1)
    parts = divide(plan, Table.of(ROWS, ()), 4)
    held = [set(part.frame["patient"]) for part in parts]
    assert len(parts) == 4
    assert sum(len(part) for part in parts) == len(ROWS)
    assert all(not a & b for i, a in enumerate(held) for b in held[:i])


def test_a_cluster_is_told_by_name_and_a_wrong_one_is_named():
    assert isinstance(engine_of(""), Here)
    assert engine_of("dask:tcp://host:8786").address == "tcp://host:8786"
    with pytest.raises(SetupFailed, match="spark"):
        engine_of("spark")


def test_a_whole_study_runs_over_a_cluster_behind_the_gate():
    import ihds

    sites = {f"s{i}": ROWS.iloc[i::3].reset_index(drop=True)[["time", "event", "age", "sex"]] for i in range(3)}
    call = {"formula": "Surv(time, event) ~ age + sex", "time_bin": 1.0}
    plain = ihds.local_federation(sites).run("cox", **call)
    spread = ihds.local_federation(sites, engine="dask").run("cox", **call)
    assert [c.estimate for c in spread.coefficients] == pytest.approx(
        [c.estimate for c in plain.coefficients], rel=1e-9
    )
    assert pd.notna(spread.coefficients[0].se)


def test_thresholds_count_persons_where_clusters_are_others():
    rows = ROWS.assign(ward=[f"w{i % 7}" for i in range(len(ROWS))])
    book = Codebook("law", {**BOOK.variables, "ward": Variable("ward", "identifier")}, "patient")
    plan = Plan("glm", {"formula": "size ~ age + cluster(ward)", "robust": "cluster"}, book, Thresholds.none(), 1)
    assert len(divide(plan, Table.of(rows, ()), 4)) == 1
    by_person = Plan("glm", {"formula": "size ~ age"}, book, Thresholds.none(), 1)
    parts = divide(by_person, Table.of(rows, ()), 4)
    assert sum(part.frame["patient"].nunique() for part in parts) == rows["patient"].nunique()


def test_what_goes_wrong_with_rows_is_no_fault_of_the_cluster(cluster, monkeypatch):
    plan = Plan("glm", {"formula": "size ~ age"}, BOOK, Thresholds.none(), 1)
    work = cluster.work(plan, Table.of(ROWS, ()))
    with pytest.raises(AttributeError):  # no state at all: the computation fails, the cluster does not
        work.local(None)
