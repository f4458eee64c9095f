from __future__ import annotations

import pandas as pd
import pytest

from ihds.errors import DidNotConverge, Separation
from tests.conftest import assert_equal, federate, pbc, reference, split


@pytest.mark.parametrize("name", ["separated", "pbc"])
def test_firth_equals_r(shared, name):
    r = reference("regression")["firth"][name]
    frame = pd.DataFrame(r["data"]) if name == "separated" else pbc(shared)
    formula = "y ~ x1 + x2" if name == "separated" else "I(status == 2) ~ age + albumin + sex"
    result = federate(split(frame, 2), "firth", formula=formula)
    assert_equal(result, {**r, "loglik": r["penalised_loglik"], "loglik_null": r["profile_null"]}, relative=1e-6)
    if name == "separated":
        with pytest.raises((Separation, DidNotConverge)):
            federate(split(frame, 2), "glm", formula=formula, family="binomial")


def test_the_ratio_test_does_not_depend_on_units(shared):
    frame = pbc(shared)
    found = []
    for unit in (1.0, 365.25):
        frame["days"] = frame["age"] * unit
        result = federate(split(frame, 3), "firth", formula="I(status == 2) ~ days + albumin")
        found.append((result.tests[0].statistic, result.coefficients[1].z))
    assert found[0] == pytest.approx(found[1], rel=1e-8)
