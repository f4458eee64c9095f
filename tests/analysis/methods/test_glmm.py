from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, BadInput
from tests.conftest import close, federate, reference, split


def visits(shared):
    frame = read_table(shared / "data/survival-reference/pbcseq.csv")
    frame["years"] = frame["day"] / 365.25
    frame["high"] = (frame["bili"] > 2).astype(float)
    frame["signs"] = frame["ascites"] + frame["hepato"] + frame["spiders"]
    return split(frame[["id", "years", "sex", "high", "signs"]], 5, by="id")


FITS = [
    ("binomial", "high ~ years + sex + (1 | id)", "binomial", 1),
    ("binomial_agq9", "high ~ years + sex + (1 | id)", "binomial", 9),
    ("poisson_signs", "signs ~ years + sex + (1 | id)", "poisson", 1),
]


def assert_fits(result, r):
    assert np.allclose([c.estimate for c in result.coefficients], r["coef"], rtol=1e-5)
    assert np.allclose([c.se for c in result.coefficients], r["se"], rtol=1e-5)
    assert close(result.details["random"][0]["sd"], float(np.ravel(r["theta"])[0]), 1e-5)
    assert close(result.log_likelihood["fitted"], r["loglik"], 1e-8)
    assert result.n == r["n"]


@pytest.mark.parametrize(("name", "formula", "family", "nodes"), FITS, ids=lambda v: v)
def test_coefficients_errors_and_likelihood_equal_r(shared, name, formula, family, nodes):
    r = reference("mixed")["glmm"][name]
    assert_fits(federate(visits(shared), "glmm", formula=formula, family=family, nodes=nodes, person="id"), r)


def test_simulated_counts_equal_r():
    r = reference("mixed")["glmm"]["poisson"]
    frame = pd.DataFrame(r["data"])
    parts = split(frame, 3, by="id")
    result = federate(
        [p.assign(id=p["id"].astype(str)) for p in parts], "glmm", formula="y ~ x + arm + (1 | id)", family="poisson"
    )
    assert_fits(result, r)


def test_slopes_and_too_many_nodes_are_named(shared):
    with pytest.raises(BadFormula, match="random intercept"):
        federate(visits(shared), "glmm", formula="high ~ years + (years | id)", person="id")
    with pytest.raises(BadInput, match="nodes"):
        federate(visits(shared), "glmm", formula="high ~ years + (1 | id)", nodes=99, person="id")
