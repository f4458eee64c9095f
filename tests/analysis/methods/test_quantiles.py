from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput
from ihds.privacy.disclosure import Thresholds
from tests.conftest import federate, pbc, reference, split


def test_quantiles_equal_type_7_where_values_are_recorded_in_steps(shared):
    r = reference("ranks")
    result = federate(split(pbc(shared), 4), "quantiles", formula="~ bili + platelet", resolution=0.1)
    found = {q["variable"]: q["values"] for q in result.details["quantiles"]}
    for name, values in found.items():
        assert np.allclose(values, r["quantiles"][name], rtol=1e-9)
    by_sex = federate(split(pbc(shared), 4), "quantiles", formula="~ bili", by="sex", resolution=0.1)
    for row in by_sex.details["quantiles"]:
        assert np.allclose(row["values"], r["by_sex"][row["group"]], rtol=1e-9)


def test_quantiles_of_any_numbers_are_within_the_resolution(shared):
    r = reference("ranks")
    result = federate(split(pbc(shared), 4), "quantiles", formula="~ age")
    step = result.details["resolution"][0]
    assert step < 0.02
    assert np.allclose(result.details["quantiles"][0]["values"], r["quantiles"]["age"], atol=step)


def test_a_quantile_with_few_persons_beyond_it_is_hidden(shared):
    result = federate(
        split(pbc(shared), 3), "quantiles", thresholds=Thresholds(), formula="~ age", probs=(0.005, 0.5, 0.999)
    )
    low, middle, high = result.details["quantiles"][0]["values"]
    assert (low, high) == (None, None)
    assert middle == pytest.approx(51, abs=0.1)


def test_extrema_categories_and_wrong_groups_are_named(shared):
    parts = split(pbc(shared), 3)
    with pytest.raises(BadInput, match="extrema"):
        federate(parts, "quantiles", formula="~ age", probs=(0.0, 0.5))
    with pytest.raises(BadFormula, match="numbers"):
        federate(parts, "quantiles", formula="~ sex")
    with pytest.raises(BadFormula, match="by"):
        federate(parts, "quantiles", formula="~ age", by="bili")
    with pytest.raises(BadFormula, match="list of variables"):
        federate(parts, "quantiles", formula="~ log(age)")


def test_a_far_value_that_makes_the_steps_coarse_is_told():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"x": rng.normal(size=200)})
    plain = federate(split(frame, 2), "quantiles", formula="~ x")
    assert "warning" not in plain.details
    frame.loc[0, "x"] = 1e4
    for method in ("quantiles", "histogram"):
        result = federate(split(frame, 2), method, formula="~ x")
        assert "too wide" in result.details["warning"]
        assert "Warning" in result.summary()
    fine = federate(split(frame, 2), "quantiles", formula="~ x", resolution=0.001)
    assert "warning" not in fine.details
