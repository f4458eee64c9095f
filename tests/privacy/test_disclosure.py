from __future__ import annotations

import numpy as np
import pytest

from ihds.privacy.accountant import Budget
from ihds.privacy.disclosure import Thresholds, merge_bins, model_reasons, site_reasons, suppress


def test_defaults_protect():
    t = Thresholds()
    assert (t.min_site_persons, t.min_cell, t.min_holders, t.min_level_sites) == (10, 5, 3, 2)


def test_the_strictest_wins_field_by_field():
    a, b = Thresholds(min_cell=10, parameters_per_row=0.1), Thresholds(min_holders=5)
    c = a.strictest(b)
    assert (c.min_cell, c.min_holders, c.parameters_per_row) == (10, 5, 0.1)


def test_reasons_name_the_rule():
    assert "min_site_persons" in site_reasons(Thresholds(), 9)[0]
    assert site_reasons(Thresholds(), 10) == ()
    assert "parameters_per_row" in model_reasons(Thresholds(), 30, 11)[0]
    assert "min_residual_dof" in model_reasons(Thresholds(), 12, 3)[0]


@pytest.mark.parametrize(
    ("counts", "shown"),
    [
        ([50, 20, 9], [50, 20, 9]),
        ([50, 20, 2], [50, None, None]),
        ([50, 3, 2], [50, None, None]),
        ([50, 0, 7], [50, 0, 7]),
        ([4], [None]),
    ],
)
def test_a_hidden_cell_cannot_be_found_by_subtraction(counts, shown):
    assert suppress(np.array(counts, dtype=float), 5) == shown


def at_risk(exits):
    return np.cumsum(exits[::-1])[::-1]


@pytest.mark.parametrize(
    ("exits", "events", "shown"),
    [
        ([1, 2, 0, 3, 1, 1, 1, 5, 1, 1], [0] * 10, [3]),  # the two after bin 7 would be all who are left
        ([1, 2, 0, 3, 1, 1, 1, 5, 9, 1], [0] * 10, [3, 7]),
        ([6, 6, 6], [0, 0, 0], [0, 1, 2]),  # six leave at the end, nobody's own time
        ([6, 6, 6, 1], [0, 0, 0, 1], [0, 1]),
        ([6, 6, 6, 6], [1, 4, 0, 0], [1, 2, 3]),  # one event is waited for four more
        ([6, 6, 6, 6], [5, 0, 3, 0], [3]),  # three at the end are joined to the five before them
        ([6, 6, 6, 6], [0, 3, 0, 0], [0]),
        ([3, 1], [0, 0], []),
    ],
)
def test_every_shown_step_covers_enough_exits_and_events_and_ends_before_the_last_person(exits, events, shown):
    exits, events = np.array(exits, dtype=float), np.array(events, dtype=float)
    assert merge_bins(exits, events, at_risk(exits), 5).tolist() == shown


def test_a_budget_is_exact_and_ends():
    from fractions import Fraction

    budget = Budget(Fraction(1))
    third = Fraction(1, 3)
    for _ in range(3):
        budget = budget.spend(third)
    assert budget is not None
    assert budget.spent == 1
    assert budget.spend(Fraction(1, 10**9)) is None
