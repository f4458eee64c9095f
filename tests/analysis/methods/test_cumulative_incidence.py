from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula
from tests.conftest import by_name, close, competing, federate, reference, split


@pytest.mark.parametrize(("grid", "width"), [("gridded", 30.0), ("exact", 0.0)])
def test_curves_and_gray_test_equal_cuminc(shared, grid, width):
    r = reference("competing")["cuminc"][grid]
    result = federate(
        split(competing(shared), 4), "cumulative_incidence", formula="Surv(time, cause) ~ sex", time_bin=width
    )
    for curve in result.curves:
        sex, cause = curve.group.split(": ")
        expected = r["by_sex"][sex[-1]]["1" if cause == "transplant" else "2"]
        at = np.searchsorted(curve.time, np.array(r["times"]), side="right") - 1
        got, se = np.append(0.0, curve.estimate)[at + 1], np.append(0.0, curve.se)[at + 1]
        assert np.allclose(got, expected["est"], rtol=1e-10)
        assert np.allclose(se**2, expected["var"], rtol=1e-8)
    tests = by_name(result)
    for j, cause in enumerate(("transplant", "death")):
        assert close(tests[f"Gray: {cause}"].statistic, r["gray"]["stat"][j])
        assert close(tests[f"Gray: {cause}"].p, r["gray"]["pv"][j])
    stratified = federate(
        split(competing(shared), 4),
        "cumulative_incidence",
        formula="Surv(time, cause) ~ sex + strata(edema)",
        time_bin=width,
    )
    assert close(by_name(stratified)["Gray: death"].statistic, r["gray_strata_edema"]["stat"][1])
    three = federate(
        split(competing(shared), 4), "cumulative_incidence", formula="Surv(time, cause) ~ edema", time_bin=width
    )
    assert close(by_name(three)["Gray: death"].statistic, r["gray_edema"]["stat"][1])
    assert by_name(three)["Gray: death"].df == 2


def test_a_cause_that_is_no_category_and_an_unknown_level_are_named(shared):
    parts = split(competing(shared), 3)
    with pytest.raises(BadFormula, match="not a category"):
        federate(parts, "cumulative_incidence", formula="Surv(time, status) ~ sex")
    with pytest.raises(BadFormula, match="no level"):
        federate(parts, "cumulative_incidence", formula="Surv(time, cause) ~ sex", censored="alive")
