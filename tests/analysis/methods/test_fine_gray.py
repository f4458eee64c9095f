from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula
from tests.conftest import close, competing, federate, reference, split

FORMULA = "Surv(time, cause) ~ age + albumin + log(bili)"


@pytest.mark.parametrize(("grid", "width"), [("gridded", 30.0), ("exact", 0.0)])
def test_coefficients_and_sandwich_equal_crr(shared, grid, width):
    r = reference("competing")["fine_gray"][grid]["crr"]
    result = federate(split(competing(shared), 4), "fine_gray", formula=FORMULA, cause="death", time_bin=width)
    assert np.allclose([c.estimate for c in result.coefficients], r["coef"], rtol=1e-8)
    assert np.allclose([c.robust_se for c in result.coefficients], r["se"], rtol=1e-7)
    assert np.allclose(result.covariance, r["var"], rtol=1e-6)
    assert np.allclose([c.se for c in result.coefficients], r["se_naive"], rtol=1e-7)
    assert close(result.log_likelihood["fitted"], r["loglik"], 1e-9)
    assert close(result.log_likelihood["null"], r["loglik_null"], 1e-9)


def test_an_unknown_cause_and_strata_are_named(shared):
    parts = split(competing(shared), 3)
    with pytest.raises(BadFormula, match="no cause"):
        federate(parts, "fine_gray", formula=FORMULA, cause="relapse")
    with pytest.raises(BadFormula, match="strata"):
        federate(parts, "fine_gray", formula=FORMULA + " + strata(sex)", cause="death")
