from __future__ import annotations

import numpy as np
import pytest

from ihds.data.table import read_table
from ihds.errors import BadFormula, BadTable
from tests.analysis.methods.test_lmm import assert_fits
from tests.conftest import federate, reference, split

FORMULA = "log(bili) ~ visit * sex + age + cluster(id)"


def planned(shared):
    frame = read_table(shared / "data/survival-reference/pbcseq.csv").sort_values(["id", "day"])
    order = frame.groupby("id").cumcount() + 1
    frame["visit"] = "v" + order.astype(str)
    return frame[order <= 4][["id", "visit", "sex", "age", "bili"]].reset_index(drop=True)


@pytest.mark.parametrize("criterion", ["REML", "ML"])
def test_fixed_effects_covariance_and_degrees_of_freedom_equal_r(shared, criterion):
    r = reference("mixed")["mmrm"][criterion.lower()]
    result = federate(
        split(planned(shared), 5, by="id"), "mmrm", formula=FORMULA, visit="visit", criterion=criterion, person="id"
    )
    for c in result.coefficients:
        object.__setattr__(c, "term", c.term.replace("visit[T.", "").replace("sex[T.", "sex").replace("]", ""))
    assert_fits(result, r)
    assert np.allclose(result.details["visit_covariance"], r["sigma"], rtol=1e-6)
    assert (result.n, result.details["groups"]) == (r["n"], r["groups"])


def test_two_rows_at_one_visit_and_a_visit_that_is_no_term_are_named(shared):
    frame = planned(shared)
    twice = split(frame.replace({"visit": {"v2": "v1"}}), 3, by="id")
    with pytest.raises(BadTable, match="two rows"):
        federate(twice, "mmrm", formula=FORMULA, visit="visit", person="id")
    with pytest.raises(BadFormula, match="visit"):
        federate(split(frame, 3, by="id"), "mmrm", formula="log(bili) ~ sex + cluster(id)", visit="visit", person="id")
    with pytest.raises(BadFormula, match="cluster"):
        federate(split(frame, 3, by="id"), "mmrm", formula="log(bili) ~ visit", visit="visit", person="id")
