from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import IhdsError
from tests.conftest import close, federate, parkinsons, reference, split


@pytest.mark.parametrize(
    ("name", "formula", "params"),
    [
        ("independence", "motor_UPDRS ~ test_time + age + sex", {"correlation": "independence"}),
        ("exchangeable", "motor_UPDRS ~ test_time + age + sex", {}),
        ("binomial_voice", "I(HNR > 22) ~ test_time + age + sex", {"family": "binomial"}),
        ("binomial", "I(total_UPDRS > 35) ~ test_time + age", {"family": "binomial"}),
    ],
)
def test_gee_equals_r(shared, name, formula, params):
    r = reference("regression")["gee"][name]
    frame = parkinsons(shared)
    result = federate(
        split(frame, 5, by="subject"), "gee", formula=f"{formula} + cluster(subject)", person="subject", **params
    )
    assert np.allclose([c.estimate for c in result.coefficients], r["coef"], rtol=1e-6)
    assert np.allclose([c.robust_se for c in result.coefficients], r["se"], rtol=1e-6)
    assert np.allclose([c.se for c in result.coefficients], r["naive_se"], rtol=1e-6)
    assert close(result.details["scale"], r["phi"], 1e-6)
    if result.details["correlation"] is not None:
        assert close(result.details["correlation"], r["alpha"], 1e-6)
    assert (result.n, result.details["clusters"]) == (r["n"], r["clusters"])


def test_a_working_correlation_that_runs_away_is_named(shared):
    frame = parkinsons(shared)
    with pytest.raises(IhdsError, match="gee|infinite|range"):
        federate(
            split(frame, 5, by="subject"),
            "gee",
            formula="I(motor_UPDRS > 20) ~ test_time + age + cluster(subject)",
            family="binomial",
            person="subject",
        )
