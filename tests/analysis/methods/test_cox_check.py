from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadFormula
from tests.conftest import by_name, close, federate, pbc, reference, split

FORMULA = "Surv(time, status == 2) ~ age + albumin + log(bili)"
GRIDS = [("gridded", 30.0), ("exact", 0.0)]


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize(("grid", "width"), GRIDS)
@pytest.mark.parametrize("transform", ["identity", "log", "km"])
def test_proportional_hazards_equal_cox_zph(shared, grid, width, ties, transform):
    r = reference("competing")["zph"][grid][ties][transform]
    result = federate(
        split(pbc(shared), 4), "cox_check", formula=FORMULA, time_bin=width, ties=ties, transform=transform
    )
    tests = by_name(result)
    for term, chisq, df in zip(["age", "albumin", "log(bili)", "all"], r["chisq"], r["df"], strict=True):
        assert close(tests[f"proportional: {term}"].statistic, chisq, 1e-7)
        assert tests[f"proportional: {term}"].df == df


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize(("grid", "width"), GRIDS)
def test_predicted_curves_equal_survfit(shared, grid, width, ties):
    r = reference("competing")["basehaz"][grid][ties]
    predict = "age=50, albumin=3.5, bili=1.4; age=62, albumin=2.9, bili=6.5"
    result = federate(split(pbc(shared), 4), "cox_check", formula=FORMULA, time_bin=width, ties=ties, predict=predict)
    for curve, survival, se in zip(result.curves, r["surv"], r["se_surv"], strict=True):
        at = np.searchsorted(curve.time, np.array(r["times"]), side="right") - 1
        assert np.allclose(np.array(curve.estimate)[at], survival, rtol=1e-8)
        assert np.allclose(np.array(curve.se)[at], se, rtol=1e-7)


@pytest.mark.parametrize(("grid", "width"), GRIDS)
def test_concordance_encloses_r_and_is_within_a_hundredth(shared, grid, width):
    r = reference("competing")["concordance"][grid]
    result = federate(split(pbc(shared), 4), "cox_check", formula=FORMULA, time_bin=width, concordance=True)
    found = result.details["concordance"]
    assert found["at_least"] <= r["concordance"] <= found["at_most"]
    assert abs(found["estimate"] - r["concordance"]) < 2e-3
    assert found["pairs"] == r["count"]["concordant"] + r["count"]["discordant"] + r["count"]["tied.x"]


def test_categories_can_be_predicted_and_what_is_missing_is_named(shared):
    parts = split(pbc(shared), 4)
    formula = "Surv(time, status == 2) ~ age + sex"
    result = federate(parts, "cox_check", formula=formula, predict="age=50, sex=f")
    assert result.curves[0].group == "age=50, sex=f"
    with pytest.raises(BadFormula, match="no level"):
        federate(parts, "cox_check", formula=formula, predict="age=50, sex=x")
    with pytest.raises(BadFormula, match="gives no 'sex'"):
        federate(parts, "cox_check", formula=formula, predict="age=50")
    with pytest.raises(BadFormula, match="cannot be read"):
        federate(parts, "cox_check", formula=formula, predict="age")
    with pytest.raises(BadFormula, match="site"):
        federate(parts, "cox_check", formula=formula + " + strata(site)")
