from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, Collinear, ConstantColumn, Refused
from ihds.privacy.disclosure import Thresholds
from tests.conftest import close, federate, reference, split

FORMULA = "~ age + `meal.cal` + `wt.loss` + `ph.karno`"


def test_columns_that_are_the_same_and_a_formula_about_zero_are_named():
    x = np.arange(40.0)
    frame = pd.DataFrame({"x": x, "y": 7 - 0.1 * x, "z": x**2, "g": ["a", "b"] * 20})
    with pytest.raises(Collinear, match="x and y"):
        federate(split(frame, 2), "correlation", formula="~ x + y")
    with pytest.raises(BadFormula, match="means"):
        federate(split(frame, 2), "correlation", formula="~ x + z - 1")
    with pytest.raises(ConstantColumn, match="two rows"):
        federate(split(frame[:2], 2), "correlation", formula="~ x + z")
    assert federate(split(frame, 2), "correlation", formula="~ x + g").details["variables"] == ["x", "g[T.b]"]


def test_correlations_their_test_and_components_equal_r(shared):
    r = reference("tests")["correlation"]
    frame = read_table(shared / "data/survival-reference/lung.csv")
    result = federate(split(frame, 4), "correlation", formula=FORMULA)
    assert result.n == r["n"]
    assert np.allclose(result.details["correlation"], r["r"], rtol=1e-8, atol=1e-10)
    assert np.allclose(result.details["components"]["sd"], r["sd"], rtol=1e-8)
    test = next(t for t in result.tests if t.name == "age with ph.karno")
    assert close(test.statistic, r["t"])
    assert close(test.p, r["p"])
    assert close(test.details[0]["lower"], r["lower"])
    assert close(test.details[0]["upper"], r["upper"])


def test_units_do_not_matter():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.normal(size=200), "b": rng.normal(size=200)})
    frame["b"] += frame["a"]
    one = federate(split(frame, 3), "correlation", formula="~ a + b").details
    other = federate(split(frame.assign(a=frame.a * 1e9 + 1e6), 3), "correlation", formula="~ a + b").details
    assert np.allclose(one["correlation"], other["correlation"], rtol=1e-7)


def test_a_constant_column_one_variable_and_too_few_rows_are_named():
    frame = pd.DataFrame({"a": [1.0] * 40, "b": np.arange(40.0)})
    with pytest.raises(ConstantColumn):
        federate(split(frame, 2), "correlation", formula="~ a + b")
    with pytest.raises(BadFormula, match="a \\+ b"):
        federate(split(frame, 2), "correlation", formula="~ b")
    few = pd.DataFrame(np.random.default_rng(2).normal(size=(8, 3)), columns=list("abc"))
    with pytest.raises(Refused):
        federate(split(few, 2), "correlation", thresholds=Thresholds(), formula="~ a + b + c")
