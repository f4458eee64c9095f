from __future__ import annotations

import pytest

from ihds.data.table import read_table
from tests.conftest import assert_equal, federate, reference, split


@pytest.mark.parametrize("distribution", ["weibull", "exponential", "loglogistic", "lognormal"])
def test_parametric_survival_equals_r(shared, distribution):
    r = reference("regression")["parametric"][distribution]
    frame = read_table(shared / "data/survival-reference/lung.csv")
    result = federate(
        split(frame, 4),
        "parametric_survival",
        formula="Surv(time, status == 2) ~ age + sex + `ph.ecog`",
        distribution=distribution,
    )
    free = distribution != "exponential"
    whole = {
        **r,
        "coef": [*r["coef"], *([r["log_scale"]] if free else [])],
        "se": [*r["se"], *([r["se_log_scale"]] if free else [])],
    }
    assert_equal(result, whole, relative=1e-7)
    assert result.events == r["events"]
