from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import genewise
from ihds.analysis.genewise import ENDLESS, FAILED, MOVING, SETTLED_FIT, Steps
from ihds.errors import BadFormula, BadInput, BadTable, Collinear, DidNotConverge, Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_voom import counted
from tests.conftest import federate, reference

MODEL = {"formula": "~ site + age + group", "features": "g[0-9]*", "term": "group"}


def invented() -> list[pd.DataFrame]:
    """Return R's invented counts by holder: one of them has one row."""
    r = reference("counts")
    frame = pd.DataFrame({"site": r["site"], "group": np.array(r["group"], dtype=float), "age": r["age"]})
    counts = np.array(r["counts"], dtype=float)
    names = [f"g{i + 1:02d}" for i in range(len(counts))]
    frame = pd.concat([frame, pd.DataFrame(counts.T, columns=names)], axis=1)
    return [part.reset_index(drop=True) for _, part in frame.groupby(np.array(r["holder"]))]


def given() -> str:
    """Return a dispersion for every gene."""
    return ", ".join(f"g{i + 1:02d}={phi!r}" for i, phi in enumerate(reference("counts")["dispersions"]))


def shown(result) -> pd.DataFrame:
    return pd.DataFrame(result.details["features"]).set_index("feature")


@pytest.mark.parametrize(
    ("key", "params"),
    [
        ("each", {"dispersions": given()}),
        ("one", {"dispersion": 0.3}),
        ("unscaled", {"dispersion": 0.3, "scaling": "none"}),
    ],
)
def test_effects_errors_and_likelihood_ratios_equal_r(key, params):
    r = reference("counts")[key]
    result = federate(invented(), "count_expression", **MODEL, **params)
    found = shown(result).loc[r["genes"]]
    finite = [g not in ("g02", "g03") for g in r["genes"]]  # absent in one of the groups
    mine, theirs = found[finite].astype(float), pd.DataFrame(r)[finite]
    assert np.allclose(mine["estimate"], theirs["estimate"].astype(float), rtol=1e-8, atol=1e-10)
    assert np.allclose(mine["se"], theirs["se"].astype(float), rtol=1e-8)
    assert np.allclose(found["likelihood_ratio"], r["lr"], rtol=1e-8, atol=2e-9)
    assert np.allclose(found["p"], r["p"], rtol=1e-6)
    assert result.details["no_counts"] == ["g04"]
    assert result.details["not_fitted"] == []


def test_a_gene_absent_from_a_group_has_a_likelihood_ratio_and_no_estimate():
    r = reference("counts")
    result = federate(invented(), "count_expression", **MODEL, dispersions=given())
    found = shown(result)
    assert (result.details["endless_down"], result.details["endless_up"]) == (["g02"], ["g03"])
    assert found.loc[["g02", "g03"], ["estimate", "se", "wald_p"]].isna().all(axis=None)
    edger = dict(zip(r["edger"]["genes"], r["edger"]["lr"], strict=True))
    for gene in ("g01", "g02", "g03", "g08"):  # g01 is absent from a site: its effect is finite
        assert found.loc[gene, "likelihood_ratio"] == pytest.approx(edger[gene], rel=1e-5)
    assert abs(found.loc["g01", "estimate"]) < 1
    assert result.rounds < 30


def test_real_counts_equal_r(shared):
    r = reference("omics")["rnaseq"]
    result = federate(
        counted(shared), "count_expression", formula="~ site + group", features="n_*", term="group", dispersion=0.1
    )
    found = shown(result)
    mine = found.loc[[f"n_{g}" for g in r["genes"]]]
    glm = r["nb"]["glm"]
    assert np.allclose(mine["estimate"], np.array(glm["coef"])[:, 3] / np.log(2), rtol=1e-5)
    assert np.allclose(mine["likelihood_ratio"], glm["lr"], rtol=1e-6, atol=1e-9)
    assert np.allclose(mine["p"], glm["p"], rtol=1e-7)
    assert found["likelihood_ratio"].sum() == pytest.approx(r["nb"]["edger"]["sum_lr"], rel=1e-7)


def test_the_common_dispersion_equals_edger():
    r = reference("counts")["common"]
    call = {**MODEL, "features": "g1[2-9],g[2-6][0-9]"}
    result = federate(invented(), "count_expression", **call)
    assert result.details["dispersion"] == pytest.approx(r["dispersion"], rel=1e-6)
    assert result.details["dispersion"] == pytest.approx(r["edger"], rel=1e-4)
    given = federate(invented(), "count_expression", **call, dispersion=result.details["dispersion"])
    assert np.allclose(shown(given)["likelihood_ratio"], shown(result)["likelihood_ratio"], rtol=1e-7, atol=1e-8)


def test_the_common_dispersion_of_real_counts_equals_edger(shared):
    result = federate(counted(shared), "count_expression", formula="~ site + group", features="n_*", term="group")
    assert result.details["dispersion"] == pytest.approx(0.0898537179145, rel=1e-5)


def test_counts_without_a_common_dispersion_are_told():
    parts, rng = invented(), np.random.default_rng(3)
    genes = [f"g{i}" for i in range(20, 40)]
    for part in parts:
        part[genes] = rng.binomial(40, 0.5, (len(part), len(genes)))
    with pytest.raises(DidNotConverge, match="common dispersion"):
        federate(parts, "count_expression", **{**MODEL, "features": "g[23][0-9]"})
    with pytest.raises(DidNotConverge, match="no gene could"):
        federate(parts, "count_expression", **{**MODEL, "features": "g02", "scaling": "none"})


def protected(parts: list[pd.DataFrame]):
    whole = pd.concat(parts, ignore_index=True).drop(columns="site")
    three = [whole.iloc[i::3].reset_index(drop=True) for i in range(3)]
    return three, {"thresholds": Thresholds(), **MODEL, "formula": "~ age + group", "dispersion": 0.3}


def test_genes_that_rest_on_few_persons_are_left_out_and_counted():
    parts, call = protected(invented())
    for part in parts:
        part["g70"] = part["g71"] = 0.0
    parts[0].loc[[0, 1], "g70"] = [9.0, 14.0]  # two persons have it
    parts[0].loc[[0, 1, 2, 3, 4, 5], "g71"] = [90000.0, 1, 1, 1, 1, 1]  # six have it, and it tells of one
    result = federate(parts, "count_expression", **call)
    assert not {"g70", "g71"} & set(result.details["features"]["feature"])
    without = federate([p.drop(columns=["g70", "g71"]) for p in parts], "count_expression", **call)
    assert result.details["hidden_features"] == without.details["hidden_features"] + 2
    with pytest.raises(Refused, match="no gene"):
        federate(parts, "count_expression", **{**call, "features": "g70", "scaling": "none"})


def test_the_rows_of_one_person_are_taken_together():
    parts, call = protected(invented())
    for i, part in enumerate(parts):
        part["patient"] = [f"p{i}_{k}" for k in range(len(part))]
        part["g72"], part["g73"] = 0.0, 1.0
    parts[0].loc[:5, "g72"] = [9.0, 9.0, 8.0, 9.0, 10.0, 11.0]  # who has it
    parts[0].loc[:9, "g73"] = 60.0  # whose residuals are large
    assert {"g72", "g73"} <= set(shown(federate(parts, "count_expression", person="patient", **call)).index)
    parts[0].loc[:8, "patient"] = "p0_0"
    assert not {"g72", "g73"} & set(shown(federate(parts, "count_expression", person="patient", **call)).index)


def test_one_person_is_seen_where_the_dispersion_given_is_far_too_small():
    parts, call = protected(invented())
    for part in parts:
        part["g74"] = 0.0
    parts[0].loc[:5, "g74"] = [1e6, 1e4, 1e4, 1e4, 1e4, 1e4]
    assert "g74" not in shown(federate(parts, "count_expression", **{**call, "dispersion": 0.001})).index


def test_enormous_counts_settle_and_what_spans_too_much_is_named_alone():
    parts = invented()
    call = {**MODEL, "scaling": "none"}
    assert federate(parts, "count_expression", **call, dispersion=0.0).details["not_fitted"] == []
    before = shown(federate(parts, "count_expression", **call, dispersion=0.3))
    for i, part in enumerate(parts):
        part["g80"] = np.where(np.arange(len(part)) % 5 == i, 1e15, 1.0)
        part["g81"] = 1e12
    result = federate(parts, "count_expression", **call, dispersion=0.3)
    assert result.details["not_fitted"] == ["g80"]
    assert len(shown(result)) == len(before) + 1


def test_a_gene_that_is_most_of_every_library_fits_beside_scaled_libraries():
    parts, call = protected(invented())
    result = federate(parts, "count_expression", **{**call, "features": "g0*"})
    assert shown(result).loc["g06", "mean"] == pytest.approx(np.log2(1e6), abs=0.06)


def test_a_gene_that_is_its_own_library_differs_in_nothing():
    found = shown(
        federate(invented(), "count_expression", **{**MODEL, "features": "g10"}, dispersion=0.3, scaling="none")
    )
    assert found.loc["g10", ["estimate", "likelihood_ratio"]].tolist() == pytest.approx([0, 0], abs=1e-9)


def test_a_sample_without_counts_says_nothing():
    parts = invented()
    call = {**MODEL, "dispersion": 0.3, "scaling": "none"}
    without = shown(federate(parts, "count_expression", **call))
    empty = parts[0].iloc[:1].copy()
    empty[[c for c in empty if c.startswith("g") and c != "group"]] = 0.0
    found = shown(federate([*parts, empty], "count_expression", **call)).loc[without.index]
    assert np.allclose(found["likelihood_ratio"], without["likelihood_ratio"], rtol=1e-8, atol=1e-8)
    with pytest.raises(BadTable, match="upper quartile"):
        federate([*parts, empty], "count_expression", **{**call, "scaling": "upper_quartile"})


@pytest.mark.parametrize(
    ("params", "error", "said"),
    [
        ({"dispersions": "g02=0.1"}, BadInput, "no dispersion is given for 'g01'"),
        ({"dispersion": 0.1, "dispersions": "g01"}, BadInput, "cannot be read"),
        ({"dispersion": 0.1, "dispersions": "g01=much"}, BadInput, "cannot be read"),
        ({"dispersion": 0.1, "dispersions": "gene=0.2"}, BadInput, "none of the features"),
        ({"dispersion": -0.1}, BadInput, "below 0"),
        ({"dispersion": 0.1, "dispersions": "g01=nan"}, BadInput, "below 0"),
        ({"dispersion": 0.1, "dispersions": "g01=0.2, g01=0.3"}, BadInput, "given twice"),
        ({"dispersion": 0.1, "max_rounds": 2}, Refused, "could be fitted"),
        ({"dispersion": 0.1, "term": "(Intercept)"}, BadFormula, "intercept"),
        ({"dispersion": 0.1, "term": "sex"}, BadFormula, "no column"),
        ({"dispersion": 0.1, "formula": "~ age + group + twice"}, Collinear, "group"),
    ],
)
def test_what_cannot_be_answered_is_told(params, error, said):
    parts = [part.assign(twice=2 * part["group"]) for part in invented()]
    with pytest.raises(error, match=said):
        federate(parts, "count_expression", **{**MODEL, **params})


def test_values_that_are_no_counts_are_told():
    parts = invented()
    parts[1].loc[0, "g10"] = 0.5
    with pytest.raises(BadTable, match="no counts"):
        federate(parts, "count_expression", **MODEL, dispersion=0.1)


def one_fit(**changed) -> genewise.Fits:
    fits = genewise.begin(np.array([0]), np.array([0.1]), np.array([4.0]), np.ones((1, 1), dtype=np.int64))
    return replace(fits, **changed)


def told(score: float, information: float, deviance: float, beyond: float = 0.0) -> Steps:
    return Steps(np.array([[score]]), np.array([[information]]), np.array([deviance]), np.array([beyond]))


def test_a_step_that_raises_the_deviance_or_is_out_of_range_is_halved_and_in_the_end_fails():
    fits = one_fit(rounds=3, deviance=np.array([10.0]), at=np.array([[2.0]]), step=np.array([[1.0]]))
    for total in (told(1.0, 1.0, 11.0), told(0.0, 0.0, 0.0, beyond=1.0)):
        after = genewise.moved(fits, total, ("x",), 60)
        assert (after.at[0, 0], after.step[0, 0], after.status[0]) == (1.5, 0.5, MOVING)
    for _ in range(31):
        fits = genewise.moved(fits, told(1.0, 1.0, 11.0), ("x",), 60)
    assert fits.status[0] == FAILED
    assert genewise.moved(one_fit(), told(0.0, 0.0, 0.0, beyond=1.0), ("x",), 60).status[0] == FAILED


def test_a_fit_that_has_settled_is_asked_for_no_more_and_the_last_round_is_the_last():
    fits = one_fit(rounds=3, deviance=np.array([10.0]), gains=np.array([[1.0, 1e-3, 1e-7]]))
    after = genewise.moved(fits, told(1e-10, 1.0, 10.0), ("x",), 60)
    assert after.status[0] == SETTLED_FIT
    assert not len(after.moving)
    assert genewise.moved(fits, told(0.1, 1.0, 9.0), ("x",), 4).status[0] == FAILED
    away = one_fit(rounds=9, deviance=np.array([10.0]), gains=np.array([[1e-5, 5e-7, 2e-7]]))
    ended = genewise.moved(away, told(-2e-8, 2e-8, 10.0), ("x",), 60)
    assert ended.status[0] == ENDLESS
    assert ended.deviance[0] < 10.0


def test_the_pictures_leave_out_infinite_changes_and_the_summary_tells_of_them():
    result = federate(invented(), "count_expression", **MODEL, dispersion=0.3)
    assert "2 genes are absent from a group" in result.summary()
    left, right = result.plot().axes
    for axes in (left, right):
        assert sum(len(c.get_offsets()) for c in axes.collections) == len(shown(result))
    assert {t.get_text() for t in left.texts}.isdisjoint({"g02", "g03"})
