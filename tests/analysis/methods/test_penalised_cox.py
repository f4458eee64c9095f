from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.errors import BadFormula, BadInput
from tests.analysis.methods.test_elastic_net import in_order
from tests.conftest import federate, pbc, reference

NAMES = ["age", "albumin", "copper", "protime", "ast", "platelet"]
FORMULA = "Surv(time, status == 2) ~ " + " + ".join(NAMES) + " + log(bili)"


def complete(shared) -> list[pd.DataFrame]:
    return in_order(pbc(shared).dropna(subset=NAMES).reset_index(drop=True))


@pytest.mark.parametrize("at", [0, 1], ids=["lasso", "half"])
@pytest.mark.parametrize(("grid", "width"), [("monthly", 30.0), ("exact", 0.0)])
def test_paths_and_cross_validation_equal_glmnet(shared, grid, width, at):
    whole = reference("penalised_cox")
    r = whole[grid][at]
    result = federate(
        complete(shared),
        "penalised_cox",
        formula=FORMULA,
        time_bin=width,
        alpha=float(r["alpha"]),
        lambdas=tuple(r["lambda"]),
    )
    assert result.n == whole["n"]
    assert np.allclose(result.details["path"], r["coef"], rtol=1e-6, atol=1e-9)
    assert np.allclose(result.details["loss_mean"], r["cvm"], rtol=1e-6)
    assert np.allclose(result.details["loss_se"], r["cvsd"], rtol=1e-5)
    assert result.details["lambda_best"] == r["lambda"][int(np.argmin(r["cvm"]))]


def test_the_path_begins_where_no_term_is_left(shared):
    result = federate(complete(shared), "penalised_cox", formula=FORMULA, steps=6, folds=0)
    assert result.details["terms_left"][0] == 0
    assert sorted(result.details["terms_left"]) == result.details["terms_left"]
    small = federate(complete(shared), "penalised_cox", formula=FORMULA, lambdas=(1e-9,), folds=0, ties="efron")
    plain = federate(complete(shared), "cox", formula=FORMULA)
    assert [c.estimate for c in small.coefficients] == pytest.approx([c.estimate for c in plain.coefficients], rel=1e-5)


def test_sites_of_few_and_wrong_penalties_are_told(shared):
    whole = pd.concat(complete(shared), ignore_index=True).iloc[:60]
    tiny = [whole.iloc[[i]].reset_index(drop=True) for i in range(60)]
    assert len(federate(tiny, "penalised_cox", formula=FORMULA, steps=3).details["loss_mean"]) == 3
    with pytest.raises(BadFormula, match="site"):
        federate(tiny, "penalised_cox", formula=FORMULA + " + strata(site)")
    for wrong in ({"alpha": 2.0}, {"folds": 1}, {"lambdas": (0.0,)}, {"steps": 0}):
        with pytest.raises(BadInput):
            federate(tiny, "penalised_cox", formula=FORMULA, **wrong)
