from __future__ import annotations

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis import factors
from ihds.analysis.methods import factor_analysis
from ihds.errors import BadFormula, BadInput, DidNotConverge, Refused
from ihds.privacy.disclosure import Thresholds
from tests.analysis.methods.test_differential_expression import COHORTS
from tests.conftest import federate, parkinsons, pbc, reference, split

STRICT = Thresholds()
LIVER = {"layers": "basic: bili albumin protime platelet age; trial: chol copper alk.phos ast trig", "factors": 2}


def voices(shared) -> list[pd.DataFrame]:
    """Return the voice measures of Parkinson's patients at five sites."""
    return split(parkinsons(shared), 5, by="subject")


def tumours(shared, genes: list[str]) -> list[pd.DataFrame]:
    """Return some genes of three cohorts, each about its own mean."""
    parts = []
    for name in COHORTS:
        x = pd.read_csv(shared / f"data/bladder-expression/{name}.expr.csv.gz", index_col=0).T[genes]
        parts.append((x - x.mean()).add_prefix("g_").reset_index(drop=True))
    return parts


def liver(shared) -> list[pd.DataFrame]:
    """Return the PBC patients, of whom a quarter was not in the trial, what is skewed as logarithms."""
    frame = pbc(shared)
    for name in ("bili", "protime", "chol", "copper", "alk.phos", "ast", "trig"):
        frame[name] = np.log(frame[name])
    return split(frame.assign(years=frame["age"]), 4)


def loadings(result, names: list[str]) -> np.ndarray:
    """Return the loadings (features, k) in the order of names."""
    found = pd.DataFrame(result.details["features"]).set_index("feature").loc[names]
    return found[[f"factor_{j + 1}" for j in range(result.details["factors"])]].to_numpy()


def uniqueness(result, names: list[str]) -> np.ndarray:
    """Return the uniquenesses in the order of names."""
    return pd.DataFrame(result.details["features"]).set_index("feature")["uniqueness"].loc[names].to_numpy()


def apart(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Return the largest difference of loadings, whatever the order and the signs of the factors."""
    k = theirs.shape[1]
    turned = (mine[:, list(order)] for order in permutations(range(k)))
    return min(float(np.abs(m * np.sign((m * theirs).sum(axis=0)) - theirs).max()) for m in turned)


def assert_is_factanal(result, names: list[str], r: dict, turned: str = "varimax") -> None:
    """Compare with R's factanal."""
    assert np.allclose(uniqueness(result, names), r["uniqueness"], atol=1e-5)
    assert apart(loadings(result, names), np.array(r[turned])) < 1e-6
    assert result.tests[0].statistic == pytest.approx(r["statistic"], rel=1e-8)
    assert result.tests[0].df == r["dof"]
    assert result.tests[0].details[0]["objective"] == pytest.approx(r["objective"], rel=1e-9)


@pytest.mark.parametrize("k", [2, 3])
def test_voice_measures_equal_factanal_with_uniquenesses_at_their_bound(shared, k):
    r = reference("factors")["voice"]
    result = federate(voices(shared), "factor_analysis", layers="voice: " + " ".join(r["names"]), factors=k)
    assert_is_factanal(result, r["names"], r[f"k{k}"])
    assert result.details["at_bound"] == ["Jitter(%)", "Shimmer"]
    assert "Heywood" in result.details["warning"]
    assert result.n == r[f"k{k}"]["n"]


def test_measures_that_are_three_times_another_have_an_answer_where_factanal_stops(shared):
    names = [*reference("factors")["voice"]["names"], "Jitter:DDP", "Shimmer:DDA"]
    result = federate(voices(shared), "factor_analysis", layers="voice: " + ", ".join(names), factors=3)
    assert {"Jitter:DDP", "Jitter:RAP"} <= set(result.details["at_bound"])


@pytest.mark.parametrize("k", [2, 4])
def test_genes_equal_factanal(shared, k):
    r = reference("factors")["bladder"]
    names = [f"g_{gene}" for gene in r["genes"]]
    parts = tumours(shared, r["genes"])
    assert_is_factanal(federate(parts, "factor_analysis", layers="rna: g_*", factors=k), names, r[f"k{k}"])
    plain = federate(parts, "factor_analysis", layers="rna: g_*", factors=k, rotation="none")
    assert_is_factanal(plain, names, r[f"k{k}"], "loadings")


def test_rounds_of_expectations_have_the_answer_that_cross_products_have(shared, monkeypatch):
    r = reference("factors")["bladder"]
    monkeypatch.setattr(factor_analysis, "_MOST_PRODUCTS", 0)
    result = federate(tumours(shared, r["genes"]), "factor_analysis", layers="rna: g_*", factors=4)
    names = [f"g_{gene}" for gene in r["genes"]]
    assert np.allclose(uniqueness(result, names), r["k4"]["uniqueness"], rtol=1e-6)
    assert apart(loadings(result, names), np.array(r["k4"]["varimax"])) < 1e-6
    assert not result.tests
    assert result.rounds < 150


def test_rounds_of_expectations_reach_uniquenesses_at_their_bound(shared, monkeypatch):
    r = reference("factors")["voice"]
    monkeypatch.setattr(factor_analysis, "_MOST_PRODUCTS", 0)
    result = federate(voices(shared), "factor_analysis", layers="voice: " + " ".join(r["names"]), factors=3)
    assert np.allclose(uniqueness(result, r["names"]), r["k3"]["uniqueness"], atol=1e-5)
    assert result.rounds < 100


@pytest.mark.parametrize("seed", range(6))
def test_noise_without_factors_has_an_answer_at_the_bound(seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(60, 6)), columns=[f"gene_{j}" for j in range(6)])
    frame.loc[frame.index % 9 == 0, "gene_1"] = np.nan
    result = federate(split(frame, 3), "factor_analysis", layers="rna: gene_*", factors=2)
    assert result.rounds < 250


def test_a_missing_layer_has_the_answer_of_an_em_written_out(shared):
    r = reference("factors")["pbc"]
    result = federate(liver(shared), "factor_analysis", **LIVER)
    mine = loadings(result, r["names"])
    assert np.allclose(uniqueness(result, r["names"]), r["uniqueness"], rtol=1e-6)
    assert np.allclose(mine @ mine.T, np.array(r["implied"]), rtol=1e-6, atol=1e-7)
    assert np.allclose(mine, np.array(r["varimax"]), atol=1e-6)  # the order and the signs too
    assert result.log_likelihood["fitted"] == pytest.approx(r["loglik"], rel=1e-10)
    parameters = 10 * (2 + 2) - 1
    assert result.details["bic"] == pytest.approx(-2 * r["loglik"] + parameters * np.log(r["n"]), rel=1e-10)
    assert result.n == r["n"]
    share = np.square(mine) / (np.square(mine).sum(axis=1) + r["uniqueness"])[:, None].mean()
    assert result.details["explained"][-1]["share"] == pytest.approx(share.mean(axis=0), rel=1e-8)
    assert [row["layer"] for row in result.details["explained"]] == ["basic", "trial", "all layers"]


def test_what_goes_with_the_factors_equals_regressions_of_their_expected_values(shared):
    r = reference("factors")["pbc"]["associated"]
    result = federate(liver(shared), "factor_analysis", formula="~ years + sex", **LIVER)
    assert [c.estimate for c in result.coefficients] == pytest.approx([v for f in r for v in f["coef"]], rel=1e-6)
    assert [c.se for c in result.coefficients] == pytest.approx([v for f in r for v in f["se"]], rel=1e-6)
    assert result.coefficients[1].term == "factor_1: years"


def made(n: int = 240, seed: int = 7, units: float = 1.0) -> pd.DataFrame:
    """Return two layers of invented persons that share two factors."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    frame = pd.DataFrame({"stage": rng.choice(["s1", "s2", "s3"], n), "age": rng.normal(60, 9, n).round(1)})
    for layer, count in (("gene", 8), ("prot", 6)):
        for j in range(count):
            w = rng.normal(size=2) * 0.8
            frame[f"{layer}_{j}"] = (z @ w + rng.normal(size=n)) * units + 3 * units
    return frame


TWO = {"layers": "rna: gene_*; protein: prot_*", "factors": 2}
GENES, PROTEINS = [f"gene_{j}" for j in range(8)], [f"prot_{j}" for j in range(6)]


@pytest.mark.parametrize("gaps", [False, True])
def test_units_and_many_sites_change_nothing(gaps):
    def lacking(frame):
        if gaps:
            frame.loc[frame.index % 4 == 0, PROTEINS] = np.nan
            frame.loc[frame.index % 7 == 0, "gene_1"] = np.nan
        return frame

    plain = federate([lacking(made())], "factor_analysis", **TWO)
    for units in (1e-12, 1e12):
        result = federate(split(lacking(made(units=units)), 24), "factor_analysis", **TWO)
        mine, theirs = loadings(result, GENES + PROTEINS), loadings(plain, GENES + PROTEINS)
        assert np.allclose(mine, theirs, atol=1e-7)
        counts = 14 * 240 - (60 * 6 + 35) * gaps
        expected = plain.log_likelihood["fitted"] - counts * np.log(units)
        assert result.log_likelihood["fitted"] == pytest.approx(expected, rel=1e-9)


def test_values_of_another_site_and_rows_without_any_value_do_not_matter():
    frame = made()
    frame.loc[frame.index % 3 == 0, GENES + PROTEINS] = np.nan
    held = frame[frame.index % 3 != 0].reset_index(drop=True)
    call = {**TWO, "formula": "~ stage + age"}
    one = federate(split(frame, 4), "factor_analysis", thresholds=STRICT, **call)
    two = federate(split(held, 4), "factor_analysis", thresholds=STRICT, **call)
    assert one.n == two.n == 160
    assert np.allclose(loadings(one, GENES), loadings(two, GENES), atol=1e-7)
    assert [c.estimate for c in one.coefficients] == pytest.approx([c.estimate for c in two.coefficients], rel=1e-5)
    assert [c.se for c in one.coefficients] == pytest.approx([c.se for c in two.coefficients], rel=1e-5)


def test_few_rows_without_any_value_are_not_told_from_the_others(monkeypatch):
    frame = made()
    frame.loc[3, GENES + PROTEINS] = np.nan
    totals = []
    take = factor_analysis.aggregate
    monkeypatch.setattr(factor_analysis, "aggregate", lambda p, s, total: totals.append(total) or take(p, s, total))
    result = federate(split(frame, 4), "factor_analysis", thresholds=STRICT, formula="~ age", **TWO)
    assert result.n == 240
    assert set(result.details["features"]["n"]) == {240}
    sums = [total.xx for total in totals if isinstance(total, factor_analysis.Scores)]
    assert sums[0][0, 0] == pytest.approx(240)  # the columns' sums too are over all, so that none is left over


def test_many_rows_of_one_person_without_any_value_are_one_person():
    frame = made().assign(person=[f"p{i}" for i in range(240)])
    lacking = frame.iloc[[3] * 8].copy()
    lacking[GENES + PROTEINS] = np.nan
    frame = pd.concat([frame[frame["person"] != "p3"], lacking], ignore_index=True)
    parts = [frame[frame["person"].str[-1].isin(list(d))].reset_index(drop=True) for d in ("012", "3456", "789")]
    result = federate(parts, "factor_analysis", thresholds=STRICT, person="person", formula="~ age", **TWO)
    assert result.n == len(frame)


def test_a_layer_of_few_persons_or_one_site_is_refused():
    frame = made()
    frame.loc[frame.index >= 8, PROTEINS] = np.nan
    with pytest.raises(Refused, match="layer 'protein'"):
        federate(split(frame, 3), "factor_analysis", thresholds=STRICT, **TWO)
    frame = made()
    frame.loc[frame.index % 3 > 0, PROTEINS] = np.nan
    with pytest.raises(Refused, match="layer 'protein'"):
        federate(split(frame, 3), "factor_analysis", thresholds=STRICT, **TWO)


def test_layers_that_nobody_has_together_cannot_be_joined_but_through_a_third():
    frame = made()
    first = frame.index < 120
    frame.loc[first, PROTEINS] = np.nan
    frame.loc[~first, GENES] = np.nan
    with pytest.raises(Refused, match="cannot be joined"):
        federate(split(frame, 3), "factor_analysis", **TWO)
    for j in range(4):
        frame[f"lab_{j}"] = made()["gene_1"] + made()["prot_1"] + np.random.default_rng(j).normal(size=240)
    joined = federate(split(frame, 3), "factor_analysis", layers=TWO["layers"] + "; lab: lab_*", factors=2)
    assert len(joined.details["explained"]) == 4


def test_a_feature_of_few_persons_or_without_variation_has_no_part():
    frame = made()
    without = federate(split(frame, 3), "factor_analysis", **TWO)
    frame["gene_x"], frame["gene_y"], frame["gene_z"] = 0.0, 4.0, np.nan
    frame.loc[3, "gene_x"] = 500.0
    frame.loc[:7, "gene_z"] = np.arange(8.0)
    result = federate(split(frame, 3), "factor_analysis", thresholds=STRICT, **TWO)
    assert result.details["hidden_features"] == 3
    assert not {"gene_x", "gene_y", "gene_z"} & set(result.details["features"]["feature"])
    assert np.allclose(loadings(result, GENES), loadings(without, GENES), atol=1e-7)


def test_a_factor_that_few_persons_make_is_refused():
    frame = made()
    outliers = np.zeros(240)
    outliers[[3, 50, 77]] = [9.0, 8.0, -10.0]
    for j in range(8):
        noise = np.random.default_rng(90 + j).normal(size=240)
        frame[f"gene_{j}"] = noise + (outliers if j < 7 else 0.0)
    with pytest.raises(Refused, match="rests on fewer than 5 persons"):
        federate(split(frame, 3), "factor_analysis", thresholds=STRICT, layers="rna: gene_*", factors=1)


@pytest.mark.parametrize("formula", ["~ stage", "~ dose", "~ here"])
def test_a_level_that_few_of_those_with_features_have_tells_no_factor(formula):
    frame = made()
    frame["dose"] = (frame["stage"] == "s3").astype(float)
    frame["here"] = np.where(frame.index % 3 == 0, "a", "b")
    held = frame["stage"] != ("s1" if formula == "~ stage" else "s3")  # s1 has no column of its own
    rare = np.flatnonzero(~held)
    held.iloc[[rare[0], rare[rare % 3 != rare[0] % 3][0]]] = True  # two of the stage, at two sites, have features
    if formula == "~ here":  # all of one level that have features are at one site
        frame["here"] = np.where((frame.index % 3 == 0) | ((frame.index % 3 == 1) & (frame.index % 2 == 0)), "a", "b")
        held = (frame["here"] == "b") | (frame.index % 3 == 0)
    frame.loc[~held, GENES + PROTEINS] = np.nan
    with pytest.raises(Refused, match="too few of those who have features"):
        federate(split(frame, 3), "factor_analysis", thresholds=STRICT, formula=formula, **TWO)


def test_so_many_factors_for_so_few_persons_are_refused():
    frame = made(n=24)
    with pytest.raises(Refused, match="would describe 24 persons"):
        federate(split(frame, 2), "factor_analysis", thresholds=STRICT, layers=TWO["layers"], factors=9)


def test_wrong_calls_are_named():
    parts = split(made(), 3)
    for call, said in (
        ({"layers": "rna gene_*"}, "layer"),
        ({"layers": ""}, "no layer"),
        ({"layers": "a: gene_*; b: gene_1"}, "another"),
        ({"layers": "a: none_*"}, "matches"),
        ({"layers": "a: gene_*", "factors": 0}, "factors"),
        ({"layers": "a: gene_0 gene_1 gene_2", "factors": 2}, "too many for 3 features"),
    ):
        with pytest.raises(BadInput, match=said):
            federate(parts, "factor_analysis", **call)
    with pytest.raises(BadFormula, match="products"):
        federate([p.assign(sex="f") for p in parts], "factor_analysis", formula="~ stage * sex", **TWO)
    with pytest.raises(BadFormula, match="no model"):
        federate(parts, "factor_analysis", formula="age ~ stage", **TWO)


def test_rounds_that_are_used_up_are_told():
    frame = made()
    frame.loc[frame.index % 4 == 0, PROTEINS] = np.nan
    with pytest.raises(DidNotConverge, match="still moving after 12 rounds"):
        federate(split(frame, 3), "factor_analysis", max_rounds=12, **TWO)


def test_the_gradient_is_that_of_the_likelihood():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 5))
    x[rng.random(x.shape) < 0.2] = np.nan
    x[4] = np.nan
    at = np.column_stack([rng.normal(size=(5, 2)), rng.normal(size=5), np.log(rng.uniform(0.2, 1, 5))])

    def blocks():
        yield slice(0, 3), x[:, :3]
        yield slice(3, 5), x[:, 3:]

    gradient = factors._gradient(at, factors.expected(at, blocks, 30))
    for place in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[place] = 1e-5
        rise = [factors.expected(at + sign * step, blocks, 30).log_likelihood for sign in (1, -1)]
        assert gradient[place] == pytest.approx((rise[0] - rise[1]) / 2e-5, rel=1e-6, abs=1e-6)


def test_a_summary_names_layers_and_a_picture_shows_them():
    result = federate(split(made(), 3), "factor_analysis", **TWO)
    text = result.summary()
    assert "per cent explained" in text
    assert "BIC" in text
    figure = result.plot()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["rna", "protein", "all layers"]
    assert len(figure.axes) == 2


def test_rounding_among_many_sites_does_not_keep_the_search_from_its_end():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 1)) * np.linspace(0.3, 1.2, 8) + rng.normal(size=(120, 8))
    x[rng.random(x.shape) < 0.05] = np.nan
    frame = pd.DataFrame(x, columns=[f"g{j}" for j in range(8)])
    parts = [frame.iloc[i::30].reset_index(drop=True) for i in range(30)]
    one, many = (federate(p, "factor_analysis", layers="all: g*", factors=1) for p in ([frame], parts))
    assert many.details["features"]["feature"] == one.details["features"]["feature"]
    assert many.details["features"]["factor_1"] == pytest.approx(one.details["features"]["factor_1"], rel=1e-6)
