from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.methods.glm_imputed import pool
from ihds.errors import BadInput, BadTable
from tests.conftest import close, federate, reference, split


def test_pooling_equals_mice():
    r = reference("regression")["rubin"]
    estimates, variances = np.array(r["estimate"]), np.array(r["variance"])
    within = np.array([np.diag(v) for v in variances])
    centre, total, df, share = pool(estimates, within, r["dfcom"])
    assert np.allclose(centre, r["qbar"], rtol=1e-12)
    assert np.allclose(np.diag(total), r["total"], rtol=1e-12)
    assert np.allclose(df, r["df"], rtol=1e-10)
    assert np.allclose(share, r["fmi"], rtol=1e-10)


def rows(n: int = 900, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(50, 10, n), "z": rng.normal(size=n), "g": rng.choice(["a", "b"], n)})
    frame["x"] += 6 * frame["z"]
    frame["y"] = 2 + 0.1 * frame["x"] - frame["z"] + (frame["g"] == "b") + rng.normal(size=n)
    return frame


def test_without_gaps_it_is_the_plain_model():
    parts = split(rows(), 3)
    plain = federate(parts, "glm", formula="y ~ x + z + g")
    imputed = federate(parts, "glm_imputed", formula="y ~ x + z + g", imputations=3)
    for mine, theirs in zip(imputed.coefficients, plain.coefficients, strict=True):
        assert close(mine.estimate, theirs.estimate)
        assert close(mine.se, theirs.se)
    assert max(imputed.details["missing_information"].values()) < 0.02


def test_values_missing_by_the_outcome_are_repaired_where_leaving_rows_out_misleads():
    """Missing more often for high outcomes (at random given y): complete rows are biased, imputed ones are not."""
    frame = rows(6000)
    rng = np.random.default_rng(5)
    gone = rng.random(len(frame)) < 1 / (1 + np.exp(-(frame["y"] - 7.5)))
    lacking = frame.assign(x=frame["x"].mask(gone))
    complete = federate(split(lacking, 3), "glm", formula="y ~ x + z + g").coefficients
    imputed = federate(split(lacking, 3), "glm_imputed", formula="y ~ x + z + g", imputations=20)
    assert imputed.n == 6000
    assert imputed.details["rows_with_imputed_values"] == int(gone.sum())
    truth = [2.0, 0.1, -1.0, 1.0]
    off = [abs(c.estimate - t) / c.se for c, t in zip(imputed.coefficients, truth, strict=True)]
    assert max(off) < 3.5, off
    assert abs(complete[1].estimate - 0.1) / complete[1].se > 4


def test_the_same_seed_draws_the_same_and_another_draws_anew():
    frame = rows(300)
    frame.loc[::4, "x"] = np.nan
    once, again, other = (
        federate(split(frame, 3), "glm_imputed", formula="y ~ x + z", imputations=4, seed=s) for s in (1, 1, 2)
    )
    assert once.to_dict() == again.to_dict()
    assert once.coefficients[1].estimate != other.coefficients[1].estimate
    with pytest.raises(BadInput, match="imputations"):
        federate(split(frame, 3), "glm_imputed", formula="y ~ x + z", imputations=1)


def test_binary_outcomes_are_imputed_and_a_site_that_lacks_a_variable_is_named():
    frame = rows(900)
    frame["event"] = (frame["y"] > frame["y"].median()).astype(float)
    frame.loc[::5, "z"] = np.nan
    parts = split(frame, 3)
    result = federate(parts, "glm_imputed", formula="event ~ x + z", family="binomial", imputations=5)
    assert result.n == 900
    assert all(np.isfinite(c.se) for c in result.coefficients)
    parts[1]["z"] = np.nan
    with pytest.raises(BadTable, match="'z'"):
        federate(parts, "glm_imputed", formula="event ~ x + z", family="binomial", imputations=5)
