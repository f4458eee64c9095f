from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import DidNotConverge
from tests.conftest import assert_equal, close, federate, reference, split


def test_negative_binomial_equals_r():
    r = reference("regression")["negative_binomial"]
    frame = pd.DataFrame(r["data"])
    result = federate(split(frame, 3), "negative_binomial", formula="y ~ rx + size + number")
    assert_equal(result, r, relative=1e-7)
    assert close(result.details["theta"], r["theta"], 1e-7)


def test_counts_that_vary_no_more_than_poisson_are_named():
    frame = pd.DataFrame({"y": [3.0, 4.0, 5.0, 4.0] * 20, "x": np.arange(80.0)})
    with pytest.raises(DidNotConverge, match="poisson"):
        federate(split(frame, 2), "negative_binomial", formula="y ~ x")
