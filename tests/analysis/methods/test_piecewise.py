from __future__ import annotations

import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, NoEvents, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import assert_equal, federate, reference, split

CUTS = (90.0, 180.0, 365.0, 730.0)


def test_piecewise_hazards_equal_r(shared):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    formula = "Surv(time, status == 2) ~ age + sex"
    r = reference("regression")["piecewise"]
    result = federate(split(frame, 4), "piecewise", formula=formula, cuts=CUTS)
    assert_equal(result, {**r, "loglik": r["loglik_hazard"], "loglik_null": r["loglik_hazard_baseline"]}, relative=1e-7)
    for baseline in ("cloglog", "logit"):
        r = reference("regression")["discrete"][baseline]
        result = federate(split(frame, 4), "piecewise", formula=formula, cuts=CUTS, baseline=baseline)
        assert_equal(result, {**r, "n": 228, "loglik_null": r["loglik_baseline"]}, relative=1e-7)


def test_intervals_without_or_with_few_events_are_named(shared):
    frame = read_table(shared / "data/survival-reference/lung.csv")
    formula = "Surv(time, status == 2) ~ age"
    with pytest.raises(NoEvents, match="1000, inf"):
        federate(split(frame, 4), "piecewise", formula=formula, cuts=(365.0, 1000.0))
    with pytest.raises(Refused):
        federate(split(frame, 4), "piecewise", thresholds=Thresholds(), formula=formula, cuts=(11.0, 365.0))
    with pytest.raises(BadFormula, match="rise"):
        federate(split(frame, 4), "piecewise", formula=formula, cuts=(365.0, 100.0))
