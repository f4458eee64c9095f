"""Harmonised values at the sites, against sva and limma on the pooled rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import harmonise
from ihds.analysis.plan import Plan
from ihds.data.codebook import agree
from ihds.data.table import conform, draft_codebook, read_table
from ihds.errors import BadFormula, BadInput, BadTable, Collinear, Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_differential_expression import bladder
from tests.conftest import federate, reference

KINDS = ["combat", "combat_means", "batch", "quantile"]


@pytest.fixture(scope="module")
def cohorts(shared):
    return bladder(shared)


def made(sites: int = 4, n: int = 20, genes: int = 12, seed: int = 3) -> list[pd.DataFrame]:
    """Return sites of normal features, each site with shifts and spreads of its own."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(sites):
        x = rng.normal(rng.normal(0, 2, genes), rng.uniform(0.5, 2, genes), (n, genes))
        part = pd.DataFrame(x, columns=[f"g_{j:02d}" for j in range(genes)])
        part["invasive"] = rng.integers(0, 2, n).astype(float)
        parts.append(part)
    return parts


def harmonised(parts, kind, keep, features, thresholds):
    """Return plan, sites' works and state once the sites have agreed on how they harmonise."""
    tables = [read_table(p) for p in parts]
    codebook = agree({"all": draft_codebook("test", pd.concat(tables, ignore_index=True), "")})
    call = {"formula": keep} if keep != "~ 1" and kind == "quantile" else {"keep": keep, "components": 1}
    method = "differential_expression" if "formula" in call else "principal_components"
    call = {"features": features, "harmonise": kind, **call}
    plan = Plan(method, call, codebook, thresholds or Thresholds.none(), len(parts))
    works, state = [plan.work(conform(t, codebook, "a site")).with_twin() for t in tables], plan.begin()
    while state.agreement.phase != "done" or plan.inner(state).harmony.stage != "ready":
        answers = [work.local(state) for work in works]
        flat = [plan.flatten(state, a) for a in answers]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(answers[0]).__name__, flat[0][0], words))
    return plan, works, state


def adjusted(parts, kind, keep="~ invasive", features="g_*", thresholds=None):
    """Return what sites hold once they have harmonised, one below the other, and what they agreed on."""
    plan, works, state = harmonised(parts, kind, keep, features, thresholds)
    harmony, names = plan.inner(state).harmony, plan.agreement.ask.features
    found = [harmonise.adjusted(harmony, work._placed(state.agreement)[0]).features[:, :] for work in works]
    return pd.DataFrame(np.concatenate(found), columns=list(names)), harmony


def genes_of(r, genes):
    return [f"g_{g}" for g in genes]


@pytest.mark.parametrize("kind", KINDS)
def test_values_equal_those_of_the_pooled_rows(cohorts, kind):
    r = reference("omics")["bladder"]
    values, _ = adjusted(cohorts, kind)
    few = genes_of(r, r["combat"]["ended"]["genes"])
    if kind == "combat":
        assert np.allclose(values[few].T, r["combat"]["ended"]["values"], rtol=1e-8)
        assert np.isclose(values.to_numpy().sum(), r["combat"]["ended"]["sum"], rtol=1e-10)
        every = genes_of(r, r["genes"])  # as sva stops its iteration
        assert np.allclose(values[every].T, r["combat"]["values"], atol=2 * r["combat"]["ended"]["apart"])
    elif kind == "combat_means":
        assert np.allclose(values[few].T, r["harmonised"]["means"], rtol=1e-8)
    else:
        theirs = np.array(r["remove" if kind == "batch" else "quantile"]["values"])
        mine = values[genes_of(r, r["genes"])].to_numpy().T
        if kind == "batch":  # limma's level is that of a mean site, this one that of a mean person
            mine, theirs = mine - mine.mean(axis=1)[:, None], theirs - theirs.mean(axis=1)[:, None]
        assert np.allclose(mine, theirs, rtol=1e-8, atol=1e-9)


def apart(values, theirs, kind):
    """Return the largest relative difference; ``batch`` is compared about each feature's mean, see its page."""
    if kind == "batch":
        values, theirs = values - np.nanmean(values, axis=0), theirs - np.nanmean(theirs, axis=0)
    return np.nanmax(np.abs(values - theirs)) / np.nanmax(np.abs(theirs))


@pytest.mark.parametrize("kind", KINDS)
def test_values_with_gaps_equal_those_of_the_pooled_rows(cohorts, kind):
    r = reference("omics")["bladder"]
    whole = pd.concat(cohorts, ignore_index=True)
    genes = [c for c in whole.columns if c.startswith("g_")]
    x = whole[genes].to_numpy(copy=True)
    row, column = np.indices(x.shape)
    holes = (7 * column + 3 * row) % 31 == 0
    x[holes] = np.nan
    holed, at = pd.DataFrame(x, columns=genes).assign(invasive=whole["invasive"]), np.array(r["cohort"])
    values, harmony = adjusted([holed[at == i].reset_index(drop=True) for i in range(3)], kind)
    few = [genes.index(g) for g in genes_of(r, r["combat"]["ended"]["genes"])]
    theirs = np.full((len(few), len(x)), np.nan)
    theirs.T[~holes[:, few]] = 0.0
    flat = theirs.ravel(order="F")
    flat[~np.isnan(flat)] = r["harmonised"]["gaps"][kind]
    theirs = flat.reshape(theirs.shape, order="F").T
    mine = values.to_numpy()[:, few]
    assert np.array_equal(np.isnan(mine), holes[:, few])
    assert not harmony.hidden.any()
    assert apart(mine, theirs, kind) < 1e-9


@pytest.mark.parametrize("kind", ["combat", "combat_means"])
def test_a_feature_that_does_not_vary_at_one_site_is_left_as_it_is(cohorts, kind):
    r = reference("omics")["bladder"]
    few = genes_of(r, r["combat"]["ended"]["genes"])
    parts = [part.copy() for part in cohorts]
    parts[1][few[2]] = 7.0
    values, harmony = adjusted(parts, kind)
    theirs = np.array(r["harmonised"]["flat"][kind]).reshape(len(few), -1, order="F").T
    assert np.allclose(values[few], theirs, rtol=1e-8)
    assert np.array_equal(values[few[2]], pd.concat(parts)[few[2]])
    assert (~harmony.moved).sum() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_tests_and_components_of_harmonised_features_equal_those_of_r(cohorts, kind):
    r = reference("omics")["bladder"]
    limma = r["harmonised"][kind]["limma"]
    keep = {} if kind == "quantile" else {"keep": "~ invasive"}
    result = federate(cohorts, "differential_expression", formula="~ invasive", features="g_*", harmonise=kind)
    found = pd.DataFrame(result.details["features"]).set_index("feature").loc[genes_of(r, r["genes"])]
    for mine, theirs in (("estimate", "logfc"), ("t", "t"), ("log_odds", "b")):
        assert np.allclose(found[mine], limma[theirs], rtol=1e-8, atol=1e-9), mine
    assert np.allclose(found["p"], limma["p"], rtol=1e-7)
    assert np.isclose(result.details["prior_df"], limma["d0"], rtol=1e-8)
    assert result.details["below_5_per_cent"] == limma["fdr05"]
    if kind != "batch":  # which has limma's values but for a constant
        assert np.allclose(found["mean"], limma["average"], rtol=1e-9)
    result = federate(cohorts, "principal_components", features="g_*", harmonise=kind, **keep)
    assert np.allclose(result.details["sd"], r["harmonised"][kind]["sdev"], rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_site_without_rows_and_many_small_sites_change_nothing(kind):
    parts = made(sites=12, n=6)
    values, _ = adjusted(parts, kind)
    again, _ = adjusted([parts[0].iloc[:0], *parts[::-1]], kind)
    back = pd.concat([again.iloc[at : at + 6] for at in range(66, -1, -6)])
    assert np.allclose(values, back, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_units_do_not_matter(kind, size):
    plain, _ = adjusted(made(), kind)
    scaled, _ = adjusted([p.assign(**{c: p[c] * size for c in p if c.startswith("g_")}) for p in made()], kind)
    assert np.allclose(scaled / size, plain, rtol=1e-8, atol=1e-9)


def test_far_apart_sites_lose_no_digits():
    parts = made()
    near, _ = adjusted(parts, "batch", keep="~ 1")
    far = [p.assign(**{c: p[c] + 1e4 * i for c in p if c.startswith("g_")}) for i, p in enumerate(parts)]
    found, _ = adjusted(far, "batch", keep="~ 1")
    assert np.allclose(found - found.mean(), near - near.mean(), atol=1e-7)


def test_one_row_at_a_site_is_named_for_combat_and_served_by_its_means():
    parts = [*made(sites=3), made(sites=1, n=1)[0]]
    with pytest.raises(BadInput, match="one row"):
        adjusted(parts, "combat")
    assert np.isfinite(adjusted(parts, "combat_means")[0]).all(axis=None)
    assert np.isfinite(adjusted(parts, "batch")[0]).all(axis=None)


def test_what_differs_only_between_sites_cannot_be_kept():
    parts = [p.assign(invasive=float(i)) for i, p in enumerate(made())]
    with pytest.raises(Collinear, match="within sites"):
        adjusted(parts, "combat")
    doubled = [p.assign(again=2 * p["invasive"] + i) for i, p in enumerate(made())]
    with pytest.raises(Collinear, match="within sites"):
        adjusted(doubled, "batch", keep="~ invasive + again")


def test_a_feature_that_a_site_lacks_or_that_is_what_is_kept_comes_back_missing():
    parts = made()
    parts[2]["g_01"] = np.nan
    parts[3].loc[1:, "g_02"] = np.nan  # one value: a mean, no variance
    parts = [p.assign(g_03=3 * p["invasive"] - 1) for p in parts]
    values, harmony = adjusted(parts, "combat")
    assert list(np.flatnonzero(harmony.hidden)) == [1, 2, 3]
    assert values[["g_01", "g_02", "g_03"]].isna().all(axis=None)
    left = [p.drop(columns=["g_01", "g_02", "g_03"]) for p in parts]
    assert np.allclose(values.drop(columns=["g_01", "g_02", "g_03"]), adjusted(left, "combat")[0], rtol=1e-9)
    _, harmony = adjusted(parts, "batch")
    assert list(np.flatnonzero(harmony.hidden)) == [1]
    result = federate(parts, "differential_expression", formula="~ invasive", features="g_*", harmonise="combat")
    assert result.details["hidden_features"] == 3


def test_features_all_of_one_spread_take_it():
    parts = [p.assign(**{c: p["g_00"] + i for i, c in enumerate(p.columns[:12])}) for p in made()]
    values, _ = adjusted(parts, "combat", keep="~ 1")
    assert np.isfinite(values).all(axis=None)
    within = [values.iloc[20 * i : 20 * i + 20]["g_00"].var() for i in range(4)]
    assert np.allclose(within, within[0])


def test_ties_share_the_mean_of_their_ranks_and_rows_with_gaps_are_stretched():
    parts = [pd.DataFrame({"g_a": [1.0, 4.0], "g_b": [1.0, 5.0], "g_c": [3.0, 6.0]}) for _ in range(2)]
    values, _ = adjusted(parts, "quantile", keep="~ 1")  # mean sorted values 2.5, 3, 4.5
    assert np.allclose(values.iloc[0], [2.75, 2.75, 4.5])
    parts[1].loc[0, "g_b"] = np.nan
    values, _ = adjusted(parts, "quantile", keep="~ 1")  # 1, 2, 3 stands for the row with a gap
    assert np.allclose(values.iloc[2, [0, 2]], [2.5, 4.5])
    assert np.isnan(values.iloc[2, 1])
    parts[1].loc[0, ["g_a", "g_b"]] = np.nan
    with pytest.raises(BadTable, match="fewer than two"):
        adjusted(parts, "quantile", keep="~ 1")


def test_questions_that_do_not_fit_are_named():
    call = {"features": "g_*", "components": 1}
    with pytest.raises(BadFormula, match="keeps nothing"):
        federate(made(), "principal_components", harmonise="quantile", keep="~ invasive", **call)
    with pytest.raises(BadFormula, match="keeps nothing"):
        federate(made(), "principal_components", keep="~ invasive", **call)
    with pytest.raises(BadFormula, match="not what is to be kept"):
        federate(made(), "principal_components", harmonise="combat", keep="invasive ~ 1", **call)
    with pytest.raises(BadInput, match="one site has rows"):
        federate(made(sites=1), "principal_components", harmonise="batch", **call)
    with pytest.raises(BadInput, match="fewer than two"):
        adjusted(made(genes=1), "combat", keep="~ 1")
    with pytest.raises(BadInput, match="no quantiles"):
        adjusted(made(genes=1), "quantile", keep="~ 1")


def test_between_two_sites_combat_is_refused_where_a_site_may_not_stand_alone():
    parts, call = made(sites=2), {"formula": "~ invasive", "features": "g_*"}
    for kind in ("combat", "combat_means"):
        with pytest.raises(Refused, match="two sites"):
            federate(parts, "differential_expression", thresholds=Thresholds(), harmonise=kind, **call)
    federate(parts, "differential_expression", thresholds=Thresholds(), harmonise="batch", **call)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_few_carriers_stay_hidden_though_harmonised_values_differ_from_0(kind):
    parts = made()
    for i, part in enumerate(parts):
        part["g_rare"] = 0.0
        part.loc[:0, "g_rare"] = 1.0 if i < 3 else 0.0
        part.loc[1:, "g_rare"] = 0.0
    values, harmony = adjusted(parts, kind, features="g_*", thresholds=Thresholds(), keep="~ invasive")
    assert values["g_rare"].isna().all()
    result = federate(
        parts,
        "differential_expression",
        thresholds=Thresholds(),
        formula="~ invasive",
        features="g_*",
        harmonise=kind,
    )
    assert "g_rare" not in result.details["features"]["feature"]
    assert result.details["hidden_features"] == 1


def test_levels_taken_out_before_are_not_there_to_be_taken_out_within_sites():
    call = {"formula": "~ invasive", "features": "g_*", "within_sites": True}
    plain = federate(made(), "differential_expression", **call)
    after = federate(made(), "differential_expression", harmonise="batch", **call)
    for name in ("t", "p"):
        assert np.allclose(plain.details["features"][name], after.details["features"][name], rtol=1e-8)


def test_other_agreements_give_other_values():
    """What a site keeps between rounds belongs to one agreement."""
    plan, works, state = harmonised(made(), "batch", "~ 1", "g_*", None)
    harmony, design = plan.inner(state).harmony, works[0]._placed(state.agreement)[0]
    one = harmonise.adjusted(harmony, design)
    assert harmonise.adjusted(harmony, design) is one
    other = harmonise.adjusted(replace(harmony, level=harmony.level + 1.0), design)
    assert not np.allclose(other.features[:, :], one.features[:, :])


def test_a_feature_that_is_constant_at_most_sites_does_not_spoil_what_follows():
    parts, rng = made(n=40), np.random.default_rng(8)
    for number, part in enumerate(parts):
        part["g_03"] = rng.normal(3, 1, 40) if number == 0 else 3.3
        part["g_04"] = rng.normal(3, 1, 40) * 1e6 if number == 0 else 1 / 3
        part["g_05"] = rng.poisson(3, 40).astype(float) if number == 0 else 0.0
    result = federate(parts, "harmonise", features="g_*", harmonise="batch")  # else its squares fit no range
    found = pd.DataFrame(result.details["features"]).set_index("feature")
    assert np.allclose(found["between_after"], 0.0, atol=1e-9)
    whole = np.concatenate([part["g_03"] for part in parts])
    means = np.repeat([part["g_03"].mean() for part in parts], len(parts[0]))
    share = np.sum((means - whole.mean()) ** 2) / np.sum((whole - whole.mean()) ** 2)
    assert np.isclose(found.loc["g_03", "between_before"], share, rtol=1e-8)
    federate(parts, "principal_components", features="g_*", harmonise="batch", components=1, scaling="unit")


def test_quantiles_of_values_far_from_zero_lose_nothing():
    near = pd.concat(made(), ignore_index=True)
    genes = [name for name in near if name.startswith("g_")]
    far = near.assign(**{name: near[name] + 2.0**24 for name in genes})
    far_sorted = np.sort(far[genes].to_numpy(), axis=1)
    x, harmony = adjusted([far.iloc[i::30].reset_index(drop=True) for i in range(30)], "quantile", keep="~ 1")
    assert np.allclose(harmony.target - 2.0**24, (far_sorted - 2.0**24).mean(axis=0), rtol=0, atol=1e-7)
    assert x.shape == far_sorted.shape
    wide = near.assign(g_00=near["g_00"] * 1e12 + 1e14)  # nor does one feature of another size drown the others
    _, harmony = adjusted([wide.iloc[i::30].reset_index(drop=True) for i in range(30)], "quantile", keep="~ 1")
    assert np.allclose(harmony.target, np.sort(wide[genes].to_numpy(), axis=1).mean(axis=0), rtol=1e-8, atol=1e-8)


def test_what_rounding_leaves_of_constant_sites_sets_no_scale():
    rng = np.random.default_rng(0)
    parts = [
        pd.DataFrame(
            {
                "g_0": rng.normal(3, 1, 40) if site == 0 else np.full(40, 3.3),
                "g_1": rng.normal(3, 1, 40) * 1e6 if site == 0 else np.full(40, 1 / 3),
                "g_2": rng.poisson(3, 40).astype(float) if site == 0 else np.zeros(40),
            }
        )
        for site in range(4)
    ]
    found = federate(parts, "harmonise", features="g_*", harmonise="batch").details["features"]
    assert np.allclose(found["between_after"], 0.0, atol=1e-9)
    federate(parts, "principal_components", features="g_*", harmonise="batch", components=1, scaling="unit")
