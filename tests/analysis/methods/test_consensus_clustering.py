from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import clustering
from ihds.analysis.plan import Plan
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.data.wide import Wide
from ihds.errors import BadInput, ConstantColumn, DidNotConverge, IhdsError, Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_differential_expression import bladder
from tests.conftest import close, federate, reference, split

METHOD = "consensus_clustering"
ASKED: dict[str, dict[str, Any]] = {
    "cohorts": {"within_sites": True, "formula": "~ stage"},
    "one": {"scaling": "none", "formula": "~ stage"},
}
SAME = {"features": "g_*", "most_variable": 40, "max_k": 4, "resamples": 12, "starts": 2}


def marks_of(values: np.ndarray, person: np.ndarray, seed: int) -> np.ndarray:
    wide = Wide.held(tuple(map(str, range(values.shape[1]))), values)
    return clustering.marks(wide, person, seed)


def staged(shared: Path) -> list[pd.DataFrame]:
    """Return every tenth gene of the bladder cohorts, with the stage as a category."""
    parts = []
    for part in bladder(shared):
        stage = np.where(part["invasive"] > 0, "invasive", "superficial").astype(object)
        parts.append(part[sorted(c for c in part if c.startswith("g_"))[::10]].assign(stage=stage))
    return parts


def sites_of(shared: Path, which: str) -> list[pd.DataFrame]:
    """Return the cohorts as sites, or one cohort as one site."""
    parts = staged(shared)
    return parts if which == "cohorts" else [parts[1]]


def states(parts: list[pd.DataFrame], **params: Any):
    """Yield the method's own state before every round, and what the sites send."""
    tables = [read_table(p) for p in parts]
    book = agree({"all": draft_codebook("test", pd.concat(tables, ignore_index=True), "")})
    plan = Plan(METHOD, params, book, Thresholds.none(), len(parts))
    works, state = [plan.work(conform(t, book, "a site")) for t in tables], plan.begin()
    while plan.finish(state) is None:
        sent = [work.local(state) for work in works]
        if state.agreement.phase == "done":
            yield plan.inner(state), sent
        flat = [plan.flatten(state, part) for part in sent]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(sent[0]).__name__, flat[0][0], words))


def given(parts: list[pd.DataFrame], asked: dict[str, Any]) -> dict[str, Any]:
    """Return what is public before the first step: who is drawn, and where each k-means starts."""
    state = next(s for s, _ in states(parts, **SAME, **asked) if s.runs is not None)
    runs, starts = state.runs, {}
    unit = state.scale.scale[state.kept] if asked.get("scaling") == "none" else state.weight
    for k in np.unique(runs.k):
        own = []
        for r in range(-1, SAME["resamples"]):
            which = np.flatnonzero((runs.k == k) & (runs.resample == r))
            own.append([np.round(runs.centroid[runs.at(i)] * unit, 5).tolist() for i in which])
        starts[str(k)] = own
    names = [c for c in parts[0].columns if c.startswith("g_")]
    values = np.vstack([p[sorted(names)].to_numpy(dtype=float) for p in parts])
    drawn = clustering.draws(marks_of(values, np.arange(len(values)), 1), SAME["resamples"], 0.8)
    return {"drawn": ["".join("01"[int(d)] for d in column) for column in drawn.T], "starts": starts}


@pytest.fixture(scope="module")
def found(shared):
    return {which: federate(sites_of(shared, which), METHOD, **SAME, **ASKED[which]) for which in ASKED}


@pytest.mark.parametrize("which", ["cohorts", "one"])
def test_draws_and_starts_are_those_the_judge_was_given(shared, which):
    mine, theirs = given(sites_of(shared, which), ASKED[which]), reference(METHOD)[which]["given"]
    assert mine["drawn"] == theirs["drawn"]
    for k, starts in mine["starts"].items():
        for own, judged in zip(starts, theirs["starts"][k], strict=True):
            assert np.allclose(own, judged, atol=2e-5)


@pytest.mark.parametrize("which", ["cohorts", "one"])
def test_clusters_and_their_consensus_equal_r(found, which):
    r, told = reference(METHOD)[which], found[which].details
    assert told["features_taken"] == len(r["features"])
    assert [row["k"] for row in told["clusterings"]] == [row["k"] for row in r["found"]] == [2, 3, 4]
    for mine, theirs in zip(told["clusterings"], r["found"], strict=True):
        assert mine["resamples"] == SAME["resamples"]
        assert mine["persons"] == theirs["size"]
        assert np.allclose(mine["within"], theirs["withinss"], rtol=1e-8)
        assert close(mine["share_between"], theirs["share"])
        assert np.allclose(mine["cdf"], theirs["cdf"], rtol=1e-8)
        for one, other in (("area", "area"), ("delta_area", "delta"), ("pac", "pac"), ("agreement", "agreement")):
            assert close(mine[one], theirs[other]), one
        assert np.allclose(mine["consensus"], theirs["consensus"], rtol=1e-8)


@pytest.mark.parametrize("which", ["cohorts", "one"])
def test_centroids_equal_r_in_the_features_own_units(found, which):
    r = reference(METHOD)[which]
    for mine, theirs in zip(found[which].details["clusterings"], r["found"], strict=True):
        table = pd.DataFrame(mine["features"]).set_index("feature")
        assert set(table.index) == {f"g_{g}" for g in r["features"]}
        table = table.loc[[f"g_{g}" for g in r["features"]]]
        own = table.filter(like="cluster_").to_numpy().T
        centers = np.array(theirs["centers"])
        expected = centers * r["deviation"] if which == "cohorts" else centers + r["mean"]
        assert np.allclose(own, expected, rtol=1e-8, atol=1e-10)
        if which == "cohorts":
            assert np.allclose(table["sd"], r["deviation"], rtol=1e-8)
        apart = np.ptp(pd.DataFrame(mine["features"]).filter(like="cluster_").to_numpy(), axis=1)
        assert np.all(np.diff(apart / mine["features"]["sd"]) < 1e-8), "the features that tell most come first"


@pytest.mark.parametrize("which", ["cohorts", "one"])
def test_what_is_compared_is_counted_by_cluster(found, which):
    r, told = reference(METHOD)[which], found[which].details
    lowest = min(told["clusterings"], key=lambda row: row["pac"])["k"]
    assert told["chosen"] == lowest
    (row,) = told["compared"]["rows"]
    assert row["counts"] == r["found"][lowest - 2]["stage"]
    assert told["compared"]["persons"] == np.sum(row["counts"], axis=0).tolist()


PAIRS = ("cdf", "area", "delta_area", "pac")  # counted within sites


def blobs(seed: int, sizes: tuple[int, ...], features: int = 8, apart: float = 6.0) -> pd.DataFrame:
    """Return persons in clear clusters."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(sizes), features))[at] * apart + rng.normal(size=(len(at), features))
    frame = pd.DataFrame(x, columns=[f"g_{j}" for j in range(features)]).assign(blob=[f"b{b}" for b in at])
    return frame.sample(frac=1, random_state=seed).reset_index(drop=True)


def told(parts: list[pd.DataFrame], **params: Any) -> dict[str, Any]:
    asked = {"features": "g_*", "max_k": 4, "resamples": 10, **params}
    return federate(parts, METHOD, **asked).to_dict()["details"]


def row_of(details: dict[str, Any], k: int) -> dict[str, Any]:
    return next(row for row in details["clusterings"] if row["k"] == k)


def assert_alike(one: Any, two: Any, where: str = "") -> None:
    if isinstance(one, dict):
        for key in one.keys() - set(PAIRS):
            assert_alike(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), where
        for i, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_alike(a, b, f"{where}[{i}]")
    elif isinstance(one, float):
        assert np.isclose(one, two, rtol=1e-9, atol=1e-9), (where, one, two)
    else:
        assert one == two, where


@pytest.mark.parametrize("cuts", [[0, 10, 11, 40, 40, 70], [0, 35, 70]], ids=str)
def test_however_persons_lie_at_sites_clusters_draws_and_agreement_are_the_same(cuts):
    frame = blobs(3, (30, 25, 15)).assign(age=np.arange(70.0))
    pooled = told([frame], formula="~ age + blob", clusters=3)
    for rows in (frame, frame.iloc[::-1]):
        parts = [rows.iloc[a:b].reset_index(drop=True) for a, b in zip(cuts, cuts[1:], strict=False)]
        assert_alike(told(parts, formula="~ age + blob", clusters=3), pooled)
    assert row_of(pooled, 3)["persons"] == [30, 25, 15]
    assert row_of(pooled, 3)["agreement"] == row_of(pooled, 3)["area"] / row_of(pooled, 3)["area"] == 1.0
    assert row_of(pooled, 3)["pac"] == 0.0
    assert row_of(pooled, 4)["pac"] > 0.05
    assert pooled["chosen"] == 3
    counts = next(row for row in pooled["compared"]["rows"] if row["variable"] == "blob")["counts"]
    assert sorted(map(sorted, counts)) == [[0, 0, 15], [0, 0, 25], [0, 0, 30]]


def test_a_mark_is_a_persons_own_wherever_the_person_is():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(4000, 700))
    values[7, 3], values[8, 3] = np.nan, -0.0
    mark = marks_of(values, np.arange(4000), 5)
    order = rng.permutation(4000)
    assert np.array_equal(marks_of(values[order], np.arange(4000), 5), mark[order])
    other = values[7:9].copy()
    other[0, 3], other[1, 3] = np.float64("-nan"), 0.0
    assert np.array_equal(marks_of(other, np.arange(2), 5), mark[7:9])
    assert len(set(mark.tolist())) == 4000
    assert not np.any(marks_of(values, np.arange(4000), 6) == mark)
    drawn = clustering.draws(mark, 60, 0.8)
    assert np.all(np.abs(drawn.mean(axis=0) - 0.8) < 0.03)
    assert abs((drawn[:, 0] & drawn[:, 1]).mean() - 0.64) < 0.03
    twice = marks_of(values[[0, 1, 1, 0]], np.array([0, 1, 1, 0]), 5)
    assert len(twice) == 2, "a person's rows make one mark"


def test_a_person_with_several_rows_is_one_person_at_their_mean():
    frame = blobs(4, (20, 15))
    names = [f"g_{j}" for j in range(8)]
    rows = pd.concat([frame.assign(**{n: frame[n] + d for n in names}) for d in (-0.5, 0.5)])
    rows["id"] = [f"p{i}" for i in rows.index]
    parts = [rows[rows.index % 3 == i].reset_index(drop=True) for i in range(3)]
    mine = told(parts, person="id", max_k=2, formula="~ blob", scaling="none")
    theirs = told(split(frame, 3), max_k=2, formula="~ blob", scaling="none")
    assert mine["persons"] == 35
    for name in ("persons", "within"):
        assert np.allclose(row_of(mine, 2)[name], row_of(theirs, 2)[name], rtol=1e-8)
    assert mine["compared"]["rows"] == theirs["compared"]["rows"]


def test_missing_values_count_as_the_mean_and_features_without_values_or_spread_take_no_part():
    frame = blobs(5, (20, 20)).assign(g_flat=3.0, g_none=np.nan)
    frame.loc[:6, "g_0"] = np.nan
    filled = frame.assign(g_0=frame["g_0"].fillna(frame["g_0"].mean())).drop(columns=["g_flat", "g_none"])
    one, two = told(split(frame, 3), max_k=2), told(split(filled, 3), max_k=2)
    assert one["features_taken"] == 8
    assert np.allclose(row_of(one, 2)["within"], row_of(two, 2)["within"], rtol=1e-8)
    with pytest.raises(ConstantColumn):
        told(split(frame, 3), features="g_flat")


@pytest.mark.parametrize("unit", [1e-12, 1e12])
@pytest.mark.parametrize("scaling", ["unit", "none"])
def test_units_do_not_matter(unit, scaling):
    frame = blobs(6, (25, 20, 12))
    names = [c for c in frame if c.startswith("g_")]
    one = row_of(told(split(frame, 4), scaling=scaling), 3)
    two = row_of(told(split(frame.assign(**{n: frame[n] * unit for n in names}), 4), scaling=scaling), 3)
    assert one["persons"] == two["persons"] == [25, 20, 12]
    assert np.allclose(one["features"]["cluster_2"], np.array(two["features"]["cluster_2"]) / unit, rtol=1e-8)
    square = 1.0 if scaling == "unit" else unit**2
    assert np.allclose(one["within"], np.array(two["within"]) / square, rtol=1e-8)


def test_the_most_variable_features_are_taken_in_their_own_units():
    frame = blobs(7, (25, 20))
    frame["g_3"], frame["g_5"] = frame["g_3"] * 100, frame["g_5"] * 50
    details = told(split(frame, 3), max_k=2, most_variable=2)
    assert sorted(row_of(details, 2)["features"]["feature"]) == ["g_3", "g_5"]


def test_sites_own_levels_are_taken_out():
    frame = blobs(8, (30, 30))
    shifted = [part + np.append(np.full(8, 50.0 * i), "") if False else part for i, part in enumerate(split(frame, 3))]
    names = [f"g_{j}" for j in range(8)]
    shifted = [part.assign(**{n: part[n] + 50.0 * i for n in names}) for i, part in enumerate(shifted)]
    plain = told(shifted, max_k=2, formula="~ blob")
    within = told(shifted, max_k=2, formula="~ blob", within_sites=True)
    assert sorted(map(min, within["compared"]["rows"][0]["counts"])) == [0, 0]
    assert max(map(min, plain["compared"]["rows"][0]["counts"])) > 5
    assert "mean" not in row_of(within, 2)["features"]


def test_clusters_of_few_persons_or_of_one_site_are_not_shown():
    frame = blobs(9, (40, 35, 4), apart=12.0)
    assert row_of(told(split(frame, 3), max_k=3, starts=8), 3)["persons"] == [40, 35, 4]
    passed = row_of(told(split(frame, 3), max_k=3, thresholds=Thresholds(), starts=8), 3)
    assert passed["passed_over"]
    assert min(passed["persons"]) >= 5
    hidden = row_of(told(split(frame, 3), min_k=2, max_k=3, thresholds=Thresholds(min_cell=30)), 3)
    assert "few persons" in hidden["hidden"]
    assert all(hidden[name] is None for name in ("persons", "within", "consensus", "features", "agreement"))
    with pytest.raises(Refused, match="few persons"):
        told(split(frame, 3), max_k=3, clusters=3, thresholds=Thresholds(min_cell=30))
    two = blobs(10, (60, 20), apart=12.0)
    parts = [*split(two[two["blob"] == "b0"].reset_index(drop=True), 3), two[two["blob"] == "b1"]]
    with pytest.raises(Refused, match="one site") as refused:
        told([p.reset_index(drop=True) for p in parts], max_k=2, thresholds=Thresholds())
    assert "2 clusters" in refused.value.reasons[0]


def test_a_feature_that_few_persons_of_a_cluster_make_is_hidden_in_all_clusters():
    frame = blobs(11, (60, 50))
    frame["g_own"] = np.where(frame["blob"] == "b0", 0.0, np.arange(110) % 7)
    frame.loc[frame.index[frame["blob"] == "b0"][0], "g_own"] = 3.0  # the only one of its cluster
    strict = row_of(told(split(frame, 3), max_k=2, thresholds=Thresholds()), 2)["features"]["feature"]
    assert "g_own" not in strict
    assert "g_1" in strict
    assert "g_own" in row_of(told(split(frame, 3), max_k=2), 2)["features"]["feature"]


def test_features_of_few_persons_take_no_part():
    frame = blobs(12, (60, 50)).assign(g_rare=0.0)
    frame.loc[:2, "g_rare"] = 500.0
    details = told(split(frame, 3), max_k=2, scaling="none", thresholds=Thresholds())
    assert (details["features_taken"], details["hidden_features"]) == (8, 1)
    assert row_of(details, 2)["persons"] == [60, 50]
    with pytest.raises(Refused, match="every feature"):
        told(split(frame, 3), features="g_rare", thresholds=Thresholds())


def test_one_person_more_or_less_cannot_be_subtracted():
    """Two releases whose clusters differ by one person: exact sums would tell that person's values."""
    frame = blobs(13, (60, 50)).assign(age=np.random.default_rng(1).normal(60, 10, 110))
    names = [*(f"g_{j}" for j in range(8)), "age"]
    less = frame.drop(index=frame.index[frame["blob"] == "b0"][0]).reset_index(drop=True)
    person = frame.loc[frame.index[frame["blob"] == "b0"][0], names].to_numpy(dtype=float)

    def guess(thresholds: Thresholds) -> np.ndarray:
        sums = []
        for rows in (frame, less):
            details = told(split(rows, 3), max_k=2, thresholds=thresholds, formula="~ age")
            table = pd.DataFrame(row_of(details, 2)["features"]).set_index("feature").loc[names[:-1]]
            means = np.append(table["cluster_1"], details["compared"]["rows"][0]["mean"][0])
            sums.append(details["compared"]["persons"][0] * means)
        return np.abs(sums[0] - sums[1] - person) / frame[names].std().to_numpy()

    assert guess(Thresholds.none()).max() < 1e-6
    veiled = guess(Thresholds())
    assert np.median(veiled) > 0.3
    assert veiled[-1] > 0.1
    exact, coarse = (told(split(frame, 3), max_k=2, thresholds=t) for t in (Thresholds.none(), Thresholds()))
    sd = np.array(row_of(exact, 2)["features"]["sd"])
    names = [f"cluster_{c}" for c in (1, 2)]
    tables = [pd.DataFrame(row_of(d, 2)["features"]).set_index("feature").sort_index() for d in (exact, coarse)]
    off = (tables[0][names] - tables[1][names]).abs().to_numpy().max()
    assert 0 < off < _most_off(50) * sd.max(), "what is told is still good to a part of its standard error"
    assert row_of(coarse, 2)["within"][0] != row_of(exact, 2)["within"][0]


def _most_off(persons: int) -> float:
    return 4 / persons  # half a step, a step being at most twice four deviations of one of so many


def test_a_number_that_is_one_value_within_clusters_is_told():
    frame = blobs(21, (60, 50))
    frame["age"] = np.where(frame["blob"] == "b0", 40.0, 64.0)
    details = told(split(frame, 3), max_k=2, thresholds=Thresholds(), formula="~ age")
    (row,) = details["compared"]["rows"]
    assert np.allclose(row["mean"], [40.0, 64.0], atol=2 * frame["age"].std() * 2 / 50)
    assert row["sd"] == [0.0, 0.0]


def test_a_sites_persons_stay_together_for_their_pairs():
    frame = read_table(blobs(22, (20, 20)))
    plan = Plan(METHOD, {"features": "g_*"}, draft_codebook("test", frame, ""), Thresholds.none(), 1)
    assert not plan.agreement.ask.divisible


def test_clusters_that_cannot_be_are_named():
    frame = blobs(14, (20, 20))
    alike = frame.assign(**{n: (frame["blob"] == "b0") * 1.0 for n in frame if n.startswith("g_")})
    details = told(split(alike, 3), max_k=3)
    assert row_of(details, 2)["within"] == [0.0, 0.0]
    assert "lost a cluster" in row_of(details, 3)["hidden"]
    assert row_of(details, 3)["resamples"] == 0
    with pytest.raises(DidNotConverge, match="lost a cluster"):
        told(split(alike, 3), min_k=3, max_k=4)
    with pytest.raises(DidNotConverge):
        told(split(frame, 3), max_rounds=1)
    with pytest.raises(Refused, match="clusters would describe"):
        told(split(frame, 3), max_k=20, thresholds=Thresholds())


def test_a_cluster_that_loses_everybody_takes_a_part_of_the_largest():
    frame = blobs(20, (30, 25, 20, 15), features=20, apart=9.0)
    details = told(split(frame, 3), max_k=8, starts=2)
    for row in details["clusterings"]:
        assert row["hidden"] is None
        assert row["resamples"] == 10
        assert sum(row["persons"]) == 90
        assert min(row["persons"]) >= 1
    assert row_of(details, 4)["persons"] == [30, 25, 20, 15]
    assert details["chosen"] == 4


def test_sites_of_one_person_have_no_pairs():
    frame = blobs(15, (6, 6))
    details = told([frame.iloc[[i]].reset_index(drop=True) for i in range(12)], max_k=2)
    assert row_of(details, 2)["pac"] is None
    assert row_of(details, 2)["agreement"] == 1.0
    assert details["chosen"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_k": 1},
        {"max_k": 21},
        {"resamples": 1},
        {"share": 1.0},
        {"starts": 0},
        {"clusters": 9},
        {"seed": -1},
        {"most_variable": -1},
        {"max_rounds": 400},
        {"features": "nothing"},
        {"formula": "g_0 ~ blob"},
    ],
    ids=str,
)
def test_wrong_parameters_are_named(wrong):
    with pytest.raises(BadInput):
        told(split(blobs(16, (20, 20)), 3), **wrong)


def test_a_round_that_would_be_too_large_is_refused_with_a_size_that_fits():
    frame = blobs(17, (30, 30), features=40)
    with pytest.raises(BadInput, match="most_variable to 1[0-9]") as refused:
        told(split(frame, 3), max_k=20, resamples=500, starts=5)
    assert isinstance(refused.value, IhdsError)


def test_what_leaves_are_sums_with_shapes_that_do_not_depend_on_persons():
    parts = split(blobs(18, (25, 20)), 3)
    parts.append(parts[0].iloc[:0])
    for _, sent in states(parts, features="g_*", max_k=3, resamples=5, formula="~ blob"):
        shapes = {tuple(np.shape(getattr(part, name)) for name in type(part).__slots__) for part in sent}
        assert len(shapes) == 1


if __name__ == "__main__":  # SHARED OUT.json: writes what the judge is given
    at, out = map(Path, sys.argv[1:])
    out.write_text(json.dumps({w: {"given": given(sites_of(at, w), asked)} for w, asked in ASKED.items()}))
