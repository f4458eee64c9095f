from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, BadInput
from tests.conftest import federate, pbc, reference

NUMBERS = ("time", ["age", "sex", "ph.ecog", "ph.karno", "pat.karno", "meal.cal", "wt.loss"])
BINARY = (
    "I(status == 2)",
    ["age", "albumin", "bili", "chol", "copper", "alk.phos", "ast", "trig", "platelet", "protime"],
)


def in_order(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Split into three sites whose rows fall into the same folds as R's: five rows at a time stay together."""
    cuts = [0, len(frame) // 15 * 5, len(frame) // 15 * 10, len(frame)]
    return [frame.iloc[a:b].reset_index(drop=True) for a, b in zip(cuts, cuts[1:], strict=False)]


def formula(outcome: str, columns: list[str]) -> str:
    return f"{outcome} ~ " + " + ".join(f"`{c}`" if "." in c else c for c in columns)


@pytest.mark.parametrize("at", [0, 1, 2], ids=["lasso", "half", "ridge"])
@pytest.mark.parametrize("family", ["gaussian", "binomial"])
def test_paths_and_cross_validation_equal_glmnet(shared, family, at):
    if family == "gaussian":
        (outcome, columns), expected = NUMBERS, reference("regression")["elastic_net"]["gaussian_plain"]
        frame = read_table(shared / "data/survival-reference/lung.csv")
    else:
        (outcome, columns), expected = BINARY, reference("regression")["elastic_net"]["binomial"]
        frame = pbc(shared)
    r = expected["fits"][at]
    frame = frame.dropna(subset=columns).reset_index(drop=True)
    assert len(frame) == expected["n"]
    result = federate(
        in_order(frame),
        "elastic_net",
        formula=formula(outcome, columns),
        family=family,
        alpha=float(r["alpha"]),
        lambdas=tuple(map(float, r["lambda"])),
    )
    assert np.allclose(result.details["path"], r["coef"], rtol=1e-7, atol=1e-9)
    assert np.allclose(result.details["loss_mean"], r["cvm"], rtol=1e-7)
    assert np.allclose(result.details["loss_se"], r["cvsd"], rtol=1e-6)
    best = int(np.argmin(r["cvm"]))
    assert [c.estimate for c in result.coefficients] == result.details["path"][best]
    assert result.details["lambda_best"] == r["lambda"][best]


def test_the_path_begins_where_no_term_is_left_and_needs_no_folds(shared):
    columns = BINARY[1]
    parts = in_order(pbc(shared).dropna(subset=columns).reset_index(drop=True))
    result = federate(parts, "elastic_net", formula=formula(BINARY[0], columns), family="binomial", folds=0, steps=6)
    assert result.details["terms_left"][0] == 0
    assert sorted(result.details["terms_left"]) == result.details["terms_left"]
    assert "loss_mean" not in result.details


def test_penalties_that_make_no_sense_are_named(shared):
    parts = in_order(pbc(shared))
    with pytest.raises(BadFormula, match="no covariate"):
        federate(parts, "elastic_net", formula="albumin ~ 1")
    for wrong in ({"alpha": 2.0}, {"folds": 1}, {"lambdas": (0.0,)}, {"steps": 0}):
        with pytest.raises(BadInput):
            federate(parts, "elastic_net", formula="albumin ~ age + bili", **wrong)
