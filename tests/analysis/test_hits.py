"""The hits of a scan, fitted again one by one: R's and plink2's numbers, and what few persons have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import hits, jeffreys, likelihood, saddlepoint
from ihds.errors import BadInput, Collinear
from ihds.privacy.disclosure import Thresholds
from tests.conftest import federate, genotypes, reference, split

RARE = {"formula": "y ~ age + sex", "features": "rs_*", "family": "binomial", "confirm": "firth"}


def table(result):
    return pd.DataFrame(result.details["features"]).set_index("feature")


def rare():
    return pd.DataFrame(reference("hits")["rare"]["data"])


def test_hits_equal_firths_regression_in_r_and_plink(shared):
    r = reference("hits")["toy"]
    call = {"formula": "B1 ~ V1 + V2 + V3", "features": "snp_*", "family": "binomial", "confirm": "firth"}
    result = federate(split(genotypes(shared), 3), "association_scan", **call)
    mine = table(result)
    chosen = [f"snp_{i}" for i in r["id"]]
    assert set(mine.index[mine["firth_p"].notna()]) == set(chosen)
    assert result.details["confirmed"] == len(chosen)
    for name, theirs in (("firth_estimate", "estimate"), ("firth_se", "se"), ("firth_p", "p")):
        assert np.allclose(mine.loc[chosen, name], r[theirs], rtol=1e-7)
    assert np.allclose(mine.loc[chosen, "firth_estimate"], r["plink2"]["beta"], rtol=3e-4)


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_variants_that_only_cases_carry_equal_r(sites):
    r = reference("hits")["rare"]
    result = federate(split(rare(), sites), "association_scan", confirm_below=1.0, **RARE)
    mine = table(result).loc[r["id"]]
    for name, theirs in (("firth_estimate", "estimate"), ("firth_se", "se"), ("firth_p", "p"), ("p", "rao_p")):
        assert np.allclose(mine[name], r[theirs], rtol=1e-6)
    assert result.rounds < 60


def test_saddlepoint_tails_equal_r(shared):
    r = reference("hits")["toy"]
    call = {"formula": "B1 ~ V1 + V2 + V3", "features": "snp_*", "family": "binomial", "confirm": "saddlepoint"}
    result = federate(split(genotypes(shared), 3), "association_scan", **call)
    mine = table(result).loc[[f"snp_{i}" for i in r["id"]], "saddlepoint_p"]
    assert np.allclose(mine, r["saddlepoint_p"], rtol=1e-7)
    assert "firth_p" not in result.details["features"]


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_saddlepoint_tails_of_rare_variants_equal_r(sites):
    r = reference("hits")["rare"]
    call = RARE | {"confirm": "saddlepoint", "confirm_below": 1.0}
    result = federate(split(rare(), sites), "association_scan", **call)
    assert np.allclose(table(result).loc[r["id"], "saddlepoint_p"], r["saddlepoint_p"], rtol=1e-7)
    assert result.rounds < 30


def test_a_tail_beyond_what_is_possible_is_nothing():
    one = np.ones(1)
    state = saddlepoint.begin(np.array([0]), one, one, np.zeros((1, 1)), 40 * one, 4 * one)
    for _ in range(4):  # 60 persons whose scores are at most 0.5 and at least -0.5: the sum is never 40
        t = state.at[state.open()]
        sums = saddlepoint.Cumulants(60 * np.log(np.cosh(t / 2)), 30 * np.tanh(t / 2), 15 / np.cosh(t / 2) ** 2)
        state = saddlepoint.aggregate(state, sums)
    assert saddlepoint.table(state, 1)["saddlepoint_p"] == [0.0]


def test_a_score_at_the_end_of_its_range_has_no_saddlepoint_and_is_told():
    frame = rare()
    frame["rs_cases"] = frame["y"]  # whoever is a case carries it: nothing is further out
    call = RARE | {"formula": "y ~ 1", "confirm": "saddlepoint", "confirm_below": 1.0}
    result = federate(split(frame, 3), "association_scan", **call)
    mine = table(result)["saddlepoint_p"]
    assert result.details["not_confirmed"] == 1
    assert np.isnan(mine["rs_cases"])
    assert mine.drop("rs_cases").notna().all()


def test_the_unit_of_a_variant_only_rescales_its_estimate():
    frame, r = rare(), reference("hits")["rare"]
    for name, unit in zip(r["id"], (1e-9, 1e9, 1e-3, 1e3, 1e6, 1e-6), strict=True):
        frame[name] *= unit
        one = table(federate(split(frame, 3), "association_scan", **(RARE | {"features": name}))).loc[name]
        at = r["id"].index(name)
        assert one["firth_estimate"] * unit == pytest.approx(r["estimate"][at], rel=1e-6)
        assert one["firth_p"] == pytest.approx(r["p"][at], rel=1e-6)
        call = RARE | {"features": name, "confirm": "saddlepoint"}
        one = table(federate(split(frame, 3), "association_scan", **call)).loc[name]
        assert one["saddlepoint_p"] == pytest.approx(r["saddlepoint_p"][at], rel=1e-6)


def test_the_smallest_p_values_are_chosen_and_no_more_than_asked():
    mine = table(federate(split(rare(), 3), "association_scan", confirm_most=2, **RARE))
    assert set(mine.index[mine["firth_p"].notna()]) == {"rs_cases", "rs_all"}
    for confirm in ("firth", "saddlepoint"):
        call = RARE | {"confirm": confirm, "confirm_below": 1e-30}
        none = federate(split(rare(), 3), "association_scan", **call)
        assert none.details["confirmed"] == 0
        assert none.details["features"][f"{confirm}_p"] == [None] * 6


def test_the_largest_statistics_come_first_where_their_p_values_are_all_0():
    chi, may = np.array([2000.0, 9.0, 4000.0, 1.0, 3000.0]), np.array([True, True, True, True, False])
    assert hits.choose(chi, may, 0.05, 5).tolist() == [2, 0, 1]
    assert hits.choose(chi, may, 0.05, 1).tolist() == [2]


def test_variants_that_are_hidden_are_never_confirmed():
    frame = rare()
    cases = np.flatnonzero(frame["y"] == 1)
    frame["rs_few"] = 0.0
    frame.loc[cases[:4], "rs_few"] = 1.0
    frame["rs_others"] = 2.0 - frame["rs_few"]
    seen = []
    kept = hits.begin

    def watched(base, which, unit):
        seen.extend(which)
        return kept(base, which, unit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hits, "begin", watched)
        result = federate(split(frame, 3), "association_scan", thresholds=Thresholds(), **RARE)
    assert result.details["hidden_features"] == 2
    names = sorted(c for c in frame if c.startswith("rs_"))
    assert {names[g] for g in seen} == set(reference("hits")["rare"]["id"])


def test_a_step_to_where_nothing_is_known_is_halved():
    none, at = np.zeros((2, 2)), np.array([0.5, 4.0])
    fit = likelihood.begin(("(Intercept)", "variant"), at)
    fit = replace(fit, step=np.array([0.0, 4.0]), log_likelihood=-9.0, rounds=1)
    model = jeffreys.take_information(jeffreys.begin(fit), none, -20.0)
    assert jeffreys.take_score(model, np.ones(2), "firth", 60).fit.at.tolist() == [0.5, 2.0]
    with pytest.raises(Collinear):
        jeffreys.take_information(jeffreys.begin(replace(fit, log_likelihood=-np.inf)), none, -20.0)


def uncommon():
    """Return 12 cases among 30000 persons, as tests/vectors/hits.R makes them: 5 are all that carry a variant."""
    i = np.arange(30000)
    frame = pd.DataFrame({"age": np.sin(i), "sex": i % 2.0, "y": ((i % 17 == 0) & (i < 12 * 17)) * 1.0})
    return frame.assign(rs_a=frame["y"] * (i < 5 * 17), rs_b=((i % 5 == 3) & (i < 4500)) * 1.0)


def test_where_nearly_nobody_is_a_case_steps_are_bounded():
    r, found = reference("hits")["nearly"], {}
    for reach in (hits._REACH, np.inf):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(hits, "_REACH", reach)
            found[reach] = federate(split(uncommon(), 3), "association_scan", confirm_below=1.0, **RARE)
    bounded = found[hits._REACH]
    assert np.allclose(table(bounded)["firth_estimate"], r["estimate"], rtol=1e-6)
    assert np.allclose(table(bounded)["firth_p"], r["p"], rtol=1e-6)
    assert bounded.rounds < found[np.inf].rounds


def test_tails_are_found_where_nearly_nobody_is_a_case():
    result = federate(split(uncommon(), 3), "association_scan", **(RARE | {"confirm": "saddlepoint"}))
    assert table(result)["saddlepoint_p"]["rs_a"] == pytest.approx(
        reference("hits")["nearly"]["saddlepoint_p"][0], rel=1e-6
    )


def test_a_hit_without_an_answer_is_told_and_harms_no_other():
    r, frame = reference("hits")["rare"], rare().assign(rs_flat=1.0)
    frame["rs_sum"] = frame["age"] + 2 * frame["sex"]  # the covariates determine it
    result = federate(split(frame, 3), "association_scan", confirm_below=1.0, max_rounds=12, **RARE)
    assert (result.details["confirmed"], result.details["not_confirmed"]) == (5, 1)  # one needs more steps
    mine = table(result)
    fitted = mine["firth_p"].dropna()
    assert np.allclose(fitted, pd.Series(r["p"], r["id"])[fitted.index], rtol=1e-6)
    assert mine.loc[["rs_flat", "rs_sum"], ["p", "firth_p"]].isna().all(axis=None)


def test_a_missing_genotype_counts_as_the_mean_in_hits_too():
    frame = rare()
    names = [c for c in frame if c.startswith("rs_")]
    frame[names] = frame[names].mask(np.add.outer(7 * np.arange(len(frame)), 13 * np.arange(6)) % 29 == 0)
    filled = frame.fillna(frame[names].mean())
    gaps, whole = (table(federate(split(f, 3), "association_scan", **RARE)) for f in (frame, filled))
    assert np.allclose(gaps["firth_estimate"], whole["firth_estimate"], rtol=1e-8, equal_nan=True)


def test_what_a_hit_cannot_be_is_refused():
    frame = rare()
    with pytest.raises(BadInput, match="binary traits"):
        federate(split(frame, 3), "association_scan", **(RARE | {"family": "gaussian"}))
    for wrong in ({"confirm_below": 0.0}, {"confirm_below": 1.5}, {"confirm_most": 0}, {"confirm_most": 10**6}):
        with pytest.raises(BadInput, match="cannot be confirmed"):
            federate(split(frame, 3), "association_scan", **RARE, **wrong)
