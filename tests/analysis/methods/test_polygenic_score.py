from __future__ import annotations

import numpy as np
import pytest

from ihds.analysis.features import Scale
from ihds.analysis.methods import polygenic_score
from ihds.data.wide import Wide
from ihds.errors import BadInput, ConstantColumn, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, genotypes, reference, split

COVARIATES = "V1 + V2 + V3"


@pytest.fixture(scope="module")
def cohort(shared):
    return genotypes(shared)


def weighted() -> dict:
    r = reference("genetics")
    return {"variants": tuple(f"snp_{i}" for i in r["id"]), "weights": tuple(map(float, r["prs"]["weights"]))}


@pytest.mark.parametrize(("family", "trait", "name"), [("gaussian", "Y1", "linear"), ("binomial", "B1", "logistic")])
def test_what_a_score_adds_equals_r(cohort, family, trait, name):
    whole = reference("polygenic")
    r = whole[name]
    formula = f"{trait} ~ {COVARIATES}"
    result = federate(split(cohort, 3), "polygenic_score", formula=formula, family=family, **weighted())
    assert np.allclose([c.estimate for c in result.coefficients], r["coef"], rtol=1e-7)
    assert np.allclose([c.se for c in result.coefficients], r["se"], rtol=1e-7)
    assert np.allclose([c.p for c in result.coefficients], r["p"], rtol=1e-6)
    details = result.details
    assert close(details["score_mean"], whole["mean"])
    assert close(details["score_sd"], whole["sd"])
    assert close(details["r_squared_with"], r["with"], 1e-7)
    assert close(details["r_squared_without"], r["without"], 1e-7)
    assert details["tenths"]["persons"] == whole["persons"]
    if family == "binomial":
        assert close(result.tests[0].statistic, r["lr"], 1e-6)
    else:
        assert np.allclose(details["tenths"]["mean_trait"], whole["means"], rtol=1e-8)


def test_the_scores_themselves_equal_plink_and_a_missing_genotype_is_the_mean(cohort):
    r = reference("genetics")
    names = [f"snp_{i}" for i in r["id"]]
    copies = cohort[sorted(names)].to_numpy()
    by_name = dict(zip(names, r["prs"]["weights"], strict=True))
    weights = np.array([by_name[n] for n in sorted(names)])
    scale = Scale(None, None, None, copies.mean(axis=0), None, True, 0, 1)

    class Held:
        features = Wide.held(tuple(map(str, range(copies.shape[1]))), copies)

    state = polygenic_score.State(scale, weights, 1.0, None, None, None, len(copies))
    mean = float(scale.centre @ weights)
    assert np.allclose(polygenic_score.scores(state, Held) + mean, r["prs"]["scores"], atol=1e-9)
    gone = np.where(np.arange(len(copies))[:, None] == 0, np.nan, copies)
    Held.features = Wide.held(Held.features.names, gone)
    assert polygenic_score.scores(state, Held)[0] == 0.0


def test_scores_that_would_be_a_variant_or_tell_of_few_are_refused(cohort):
    parts, formula = split(cohort, 3), f"Y1 ~ {COVARIATES}"
    with pytest.raises(BadInput, match="one variant"):
        federate(parts, "polygenic_score", formula=formula, variants=("snp_1",), weights=(1.0,))
    with pytest.raises(BadInput, match="have 1 weights"):
        federate(parts, "polygenic_score", formula=formula, variants=("snp_1", "snp_21"), weights=(1.0,))
    with pytest.raises(BadInput, match="no number"):
        federate(parts, "polygenic_score", formula=formula, variants=("snp_1", "nobody"), weights=(1.0, 2.0))
    rare = [part.assign(snp_1=0.0) for part in parts]
    rare[0].loc[:1, "snp_1"] = 1.0
    call = {"variants": ("snp_1", "snp_21"), "weights": (0.5, 0.2)}
    with pytest.raises(Refused, match="few persons"):
        federate(rare, "polygenic_score", thresholds=Thresholds(), formula=formula, **call)
    flat = [part.assign(snp_1=1.0, snp_21=2.0) for part in parts]
    with pytest.raises(ConstantColumn):
        federate(flat, "polygenic_score", formula=formula, **call)
