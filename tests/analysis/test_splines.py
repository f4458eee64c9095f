from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula
from tests.conftest import close, federate, pbc, reference, split

FORMULA = "I(status == 2) ~ rcs(age, 35, 50, 60, 70) + sex"


def test_a_spline_spans_what_ns_of_r_spans(shared):
    """R's natural splines have another basis of the same curves, so fit and likelihood are the same."""
    result = federate(split(pbc(shared), 4), "glm", formula=FORMULA, family="binomial")
    assert [c.term for c in result.coefficients] == ["(Intercept)", "age", "age'", "age''", "sex[T.m]"]
    assert close(result.log_likelihood["fitted"], reference("glm")["spline"]["loglik"][0], 1e-9)


def test_a_spline_is_linear_beyond_its_knots(shared):
    frame = pbc(shared)
    x = np.array([10.0, 20.0, 30.0, 80.0, 90.0, 100.0])
    from ihds.analysis.splines import term

    bent = term(x, 2, 35.0, 50.0, 60.0, 70.0)
    assert bent[:3].tolist() == [0.0, 0.0, 0.0]
    assert np.diff(bent[3:])[0] == pytest.approx(np.diff(bent[3:])[1])
    crossed = federate(split(frame, 3), "cox", formula="Surv(time, status == 2) ~ rcs(bili, 0.5, 1.4, 10) * sex")
    assert [c.term for c in crossed.coefficients][-1] == "bili':sex[T.m]"


@pytest.mark.parametrize(
    "right",
    [
        "rcs(age, 3)",
        "rcs(age, 3, 2, 1)",
        "rcs(age, a, b, c)",
        "rcs(log(age), 1, 2, 3)",
        "rcs_term(age, 2, 1, age, 3)",
    ],
)
def test_other_splines_are_refused(shared, right):
    with pytest.raises(BadFormula):
        federate(split(pbc(shared), 3), "glm", formula=f"albumin ~ {right}")
