from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula, BadInput, BadTable, Separation
from tests.conftest import close, federate, pbc, reference, split

FORMULA = "treated ~ age + albumin + log(bili)"


def trial(shared):
    frame = pbc(shared).dropna(subset=["trt"]).reset_index(drop=True)
    frame["treated"] = (frame["trt"] == 1).astype(float)
    frame["dead"] = (frame["status"] == 2).astype(float)
    frame["number"] = np.log(frame["bili"]) + frame["protime"]
    return frame


@pytest.mark.parametrize(
    ("family", "name", "outcome"), [("gaussian", "number", "number"), ("binomial", "binary", "dead")]
)
def test_effects_and_balance_equal_r(shared, family, name, outcome):
    r = reference("causal")[name]
    result = federate(split(trial(shared), 4), "causal_effect", formula=FORMULA, outcome=outcome, family=family)
    weighting, robust = result.coefficients
    assert close(weighting.estimate, r["iptw"])
    assert close(weighting.se, r["iptw_se"])
    assert close(robust.estimate, r["aipw"])
    assert close(robust.se, r["aipw_se"])
    assert close(result.details["means"]["treated"], r["treated"])
    assert np.allclose([b["before"] for b in result.details["balance"]], r["smd_before"], rtol=1e-8)
    assert np.allclose([b["after"] for b in result.details["balance"]], r["smd_after"], rtol=1e-6, atol=1e-9)
    assert np.allclose(list(result.details["propensity"].values()), r["propensity"], rtol=1e-7)
    assert result.n == r["n"]


def test_rows_without_outcome_count_nowhere(shared):
    frame = trial(shared)
    frame.loc[::9, "number"] = np.nan
    gaps = federate(split(frame, 4), "causal_effect", formula=FORMULA, outcome="number")
    whole = federate(split(frame.dropna(subset=["number"]), 4), "causal_effect", formula=FORMULA, outcome="number")
    assert gaps.n == whole.n
    assert close(gaps.coefficients[1].estimate, whole.coefficients[1].estimate, 1e-7)


def test_a_covariate_that_decides_the_treatment_and_wrong_outcomes_are_named(shared):
    parts = split(trial(shared).assign(rule=lambda f: f["treated"] * 3 + 1), 3)
    with pytest.raises(Separation):
        federate(parts, "causal_effect", formula="treated ~ rule", outcome="number")
    with pytest.raises(BadTable, match="0 and 1"):
        federate(parts, "causal_effect", formula=FORMULA, outcome="number", family="binomial")
    with pytest.raises(BadFormula, match="outcome"):
        federate(parts, "causal_effect", formula=FORMULA, outcome="age")
    with pytest.raises(BadInput, match="trim"):
        federate(parts, "causal_effect", formula=FORMULA, outcome="number", trim=0.7)
