from __future__ import annotations

import pytest

from ihds.errors import BadFormula, BadInput
from ihds.privacy.disclosure import Thresholds
from tests.conftest import federate, pbc, reference, split

BREAKS = (20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0)


def test_counts_equal_r_and_small_bins_are_hidden_two_at_a_time(shared):
    counts = reference("ranks")["histogram"]
    shown = federate(split(pbc(shared), 4), "histogram", formula="~ age", breaks=BREAKS)
    assert shown.details["histograms"][0]["counts"] == counts
    hidden = federate(split(pbc(shared), 4), "histogram", thresholds=Thresholds(), formula="~ age", breaks=BREAKS)
    assert hidden.details["histograms"][0]["counts"] == [None, *counts[1:5], None]


def test_edges_are_round_and_everybody_is_counted(shared):
    result = federate(split(pbc(shared), 4), "histogram", formula="~ bili + age", by="sex")
    for row in result.details["histograms"]:
        assert sum(row["counts"]) == (374 if row["group"] == "f" else 44)
        assert all(round(e * 100) == pytest.approx(e * 100) for e in row["edges"])


def test_wrong_breaks_and_categories_are_named(shared):
    parts = split(pbc(shared), 3)
    with pytest.raises(BadInput, match="rise"):
        federate(parts, "histogram", formula="~ age", breaks=(50.0, 40.0, 60.0))
    with pytest.raises(BadFormula, match="numbers"):
        federate(parts, "histogram", formula="~ sex")
