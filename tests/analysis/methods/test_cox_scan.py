from __future__ import annotations

import numpy as np
import pytest

from ihds.errors import BadInput
from tests.conftest import close, federate, pbc, reference, split


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_score_tests_equal_coxph(shared, ties):
    r = reference("scans")
    frame = pbc(shared).rename(columns={g: f"gene_{g}" for g in r["genes"]})
    result = federate(
        split(frame, 4), "cox_scan", formula="Surv(time, status == 2) ~ age", features="gene_*", ties=ties
    )
    found = dict(zip(result.details["features"]["feature"], result.details["features"]["chi_square"], strict=True))
    assert np.allclose([found[f"gene_{g}"] for g in r["genes"]], r[ties]["chi"], rtol=1e-8)
    assert close(result.coefficients[0].estimate, r[ties]["age"])
    assert result.details["features"]["p"] == sorted(result.details["features"]["p"])


def test_no_feature_and_a_constant_one_are_survived(shared):
    frame = pbc(shared).assign(gene_flat=1.0)
    with pytest.raises(BadInput, match="matches"):
        federate(split(frame, 4), "cox_scan", formula="Surv(time, status == 2) ~ age", features="snp_*")
    result = federate(
        split(frame, 4), "cox_scan", formula="Surv(time, status == 2) ~ age", features="gene_flat,albumin"
    )
    found = dict(zip(result.details["features"]["feature"], result.details["features"]["p"], strict=True))
    assert found["gene_flat"] == 1.0
    assert found["albumin"] < 1e-8
