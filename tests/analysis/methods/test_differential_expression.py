from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput, Collinear
from tests.conftest import close, federate, reference

COHORTS = ["GSE37317", "GSE89", "PMID17099711.GPL91"]


def bladder(shared) -> list[pd.DataFrame]:
    """Return three expression cohorts, genes without gaps that all have, invasive or superficial tumours."""
    sets = []
    for name in COHORTS:
        at = shared / "data/bladder-expression"
        x = pd.read_csv(at / f"{name}.expr.csv.gz", index_col=0).dropna().T
        stage = pd.read_csv(at / f"{name}.pheno.csv")["summarystage"].to_numpy()
        kept = np.isin(stage, ["invasive", "superficial"])
        x = x[kept].reset_index(drop=True)
        sets.append((x, stage[kept] == "invasive"))
    genes = sorted(set.intersection(*(set(x.columns) for x, _ in sets)))
    parts = []
    for number, (x, invasive) in enumerate(sets):
        part = x[genes].add_prefix("g_")
        part["invasive"], part["cohort"] = invasive.astype(float), f"c{number}"
        parts.append(part)
    return parts


@pytest.fixture(scope="module")
def cohorts(shared):
    return bladder(shared)


@pytest.mark.parametrize("within_sites", [False, True], ids=["cohort as a covariate", "a level per site"])
def test_moderated_tests_equal_limma(cohorts, within_sites):
    whole = reference("omics")["bladder"]
    r = whole["limma"]
    formula = "~ invasive" if within_sites else "~ cohort + invasive"
    result = federate(cohorts, "differential_expression", formula=formula, features="g_*", within_sites=within_sites)
    found = pd.DataFrame(result.details["features"]).set_index("feature")
    assert len(found) == whole["n_genes"]
    mine = found.loc[[f"g_{g}" for g in whole["genes"]]]
    assert np.allclose(mine["estimate"], r["logfc"], rtol=1e-8)
    assert np.allclose(mine["t"], r["t"], rtol=1e-8)
    assert np.allclose(mine["p"], r["p"], rtol=1e-7)
    assert np.allclose(mine["adjusted_p"], r["q"], rtol=1e-7)
    assert np.allclose(mine["log_odds"], r["b"], rtol=1e-7, atol=1e-8)
    assert close(result.details["prior_df"], r["d0"])
    assert close(result.details["prior_variance"], r["s0"])
    assert result.details["below_5_per_cent"] == r["fdr05"]
    assert close(found["t"].sum(), r["sum_t"], 1e-7)


def test_gaps_are_left_out_feature_by_feature():
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(rng.normal(size=(90, 30)), columns=[f"g{j:02d}" for j in range(30)])
    frame["arm"] = np.repeat([0.0, 1.0], 45)
    frame["age"] = rng.normal(60, 9, 90)
    frame.loc[frame.index % 7 == 0, "g03"] = np.nan
    order = rng.permutation(90)
    parts = [frame.iloc[order[i::3]].reset_index(drop=True) for i in range(3)]
    result = federate(parts, "differential_expression", formula="~ age + arm", features="g*")
    found = pd.DataFrame(result.details["features"]).set_index("feature")
    held = frame.dropna()
    x = np.column_stack([np.ones(len(held)), held["age"], held["arm"]])
    beta = np.linalg.lstsq(x, held["g03"], rcond=None)[0]
    assert close(found.loc["g03", "estimate"], beta[2])
    assert found.loc["g03", "n"] == len(held)
    assert found.loc["g05", "n"] == 90


def test_formulas_and_names_that_do_not_fit_are_named(cohorts):
    cohorts = [part[["invasive", "cohort", "g_XPA", "g_TOP2A"]] for part in cohorts]
    with pytest.raises(BadFormula, match="no model of the features"):
        federate(cohorts, "differential_expression", formula="invasive ~ cohort", features="g_*")
    with pytest.raises(BadFormula, match="no column"):
        federate(cohorts, "differential_expression", formula="~ invasive", features="g_*", term="age")
    with pytest.raises(BadInput, match="matches"):
        federate(cohorts, "differential_expression", formula="~ invasive", features="protein_*")
    doubled = [part.assign(again=part["invasive"] * 2) for part in cohorts]
    with pytest.raises(Collinear):
        federate(doubled, "differential_expression", formula="~ invasive + again", features="g_*")


@pytest.mark.parametrize("harmonise", ["none", "quantile"])
def test_features_that_are_the_same_for_everybody_are_no_finding(harmonise):
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({f"g{j}": np.full(60, 1 / 3) for j in range(4)})
    frame["arm"] = rng.integers(0, 2, 60).astype(float)
    parts = [frame.iloc[i::3].reset_index(drop=True) for i in range(3)]
    result = federate(parts, "differential_expression", formula="~ arm", features="g*", harmonise=harmonise)
    assert result.details["features"]["t"] == [0.0] * 4  # limma: no gene varies, t is 0
    assert result.details["features"]["p"] == [1.0] * 4
    alone = federate(parts, "differential_expression", formula="~ arm", features="g0")
    assert alone.details["features"]["p"] == [1.0]
    varied = [part.assign(v=rng.normal(size=len(part))) for part in parts]  # most are 0: limma takes 1 for the middle
    result = federate(varied, "differential_expression", formula="~ arm", features="g*,v", harmonise="none")
    found = pd.DataFrame(result.details["features"]).set_index("feature")
    assert (found.loc[[f"g{j}" for j in range(4)], "p"] == 1.0).all()
