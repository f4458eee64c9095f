"""Hidden cells of tables whose margins are known: checked by counting every table that fits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ihds.privacy.tables import derivable, exposed, hidden_cells, margins, primary, ranges


def every_table(cells, hidden, sums, most):
    """Yield every filling of the hidden cells, from 0 on, that leaves all sums as they are: slow and obvious."""
    where = list(zip(*np.nonzero(hidden), strict=True))
    for values in itertools.product(range(most + 1), repeat=len(where)):
        filled = cells.copy()
        for at, value in zip(where, values, strict=True):
            filled[at] = value
        if np.array_equal(sums @ filled.ravel(), sums @ cells.ravel()):
            yield filled


def test_ranges_are_those_of_all_tables_that_fit():
    cells = np.array([[3.0, 4, 9], [5, 2, 8], [7, 6, 1]])
    hidden = np.array([[True, True, False], [True, True, False], [False, False, False]])
    sums = margins((3, 3))
    fitting = list(every_table(cells, hidden, sums, 9))
    expected = [
        (min(t[at] for t in fitting), max(t[at] for t in fitting)) for at in zip(*np.nonzero(hidden), strict=True)
    ]
    assert ranges(cells, hidden, sums) == expected


def test_margins_are_all_sums_of_one_dimension_less():
    cells = np.arange(24.0).reshape(2, 3, 4)
    known = margins(cells.shape) @ cells.ravel()
    assert sorted(known) == sorted(np.concatenate([cells.sum(axis=a).ravel() for a in range(3)]))


@pytest.mark.parametrize(
    ("cells", "hidden"),
    [
        ([[3, 40, 31], [38, 20, 29], [30, 31, 32]], 4),  # a cycle of four
        ([[30, 40], [38, 20]], 0),
        ([[3, 40], [38, 20]], 4),  # of two by two, each tells all
        ([50, 20, 2], 2),
        ([50, 3, 2], 2),
        ([50, 0, 3, 9], 2),
    ],
)
def test_as_few_cells_as_need_be_are_hidden(cells, hidden):
    cells = np.array(cells, dtype=float)
    assert hidden_cells(cells, primary(cells, 5), margins(cells.shape), 5).sum() == hidden


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shape=st.sampled_from([(2, 3), (3, 3), (3, 4), (2, 2, 3), (5,)]),
    seed=st.integers(0, 10**6),
    least=st.sampled_from([3, 5, 10]),
    size=st.sampled_from([6.0, 20.0]),
)
def test_no_hidden_cell_is_known_within_the_threshold(shape, seed, least, size):
    rng = np.random.default_rng(seed)
    cells = rng.poisson(rng.gamma(1.0, size, shape)).astype(float)
    sums = margins(shape)
    hidden = hidden_cells(cells, primary(cells, least), sums, least)
    assert hidden[primary(cells, least)].all()
    if hidden.all():  # nothing is shown: what the margins alone tell, no table could hide
        return
    for (low, high), truth in zip(ranges(cells, hidden, sums), cells[hidden], strict=True):
        assert low <= truth <= high
        assert truth == 0 or high - low >= least


def test_without_the_others_a_cell_is_found():
    cells = np.array([[3.0, 40, 31], [38, 20, 29], [30, 31, 32]])
    small = primary(cells, 5)
    assert exposed(cells, small, margins(cells.shape), 5)[0, 0]


def test_empty_and_full_cells_are_hidden_if_so_asked():
    cells = np.array([[12.0, 0, 9, 30], [7, 20, 8, 30], [9, 14, 20, 30]])
    assert not primary(cells, 5).any()
    assert primary(cells, 5, hide_empty=True).sum() == 1
    full = np.array([[12.0, 0, 9], [0, 20, 8], [0, 14, 20]])
    assert primary(full, 5, hide_full=True)[:, 0].all()  # the empty ones would tell that the first holds all
    hidden = hidden_cells(cells, primary(cells, 5, hide_empty=True), margins(cells.shape), 5, empty_shown=False)
    assert 4 <= hidden.sum() < 12


def test_a_released_table_is_judged_by_what_it_shows():
    assert derivable([50, None, None], [([0, 1, 2], 72)], 5) == []
    assert derivable([50, None, 20], [([0, 1, 2], 72)], 5) == [1]
    assert derivable([50, None, None], [([0, 1, 2], 54)], 5) == [1, 2]
    assert derivable([50, None, 20], [], 5) == []
    assert derivable([50, None, None], [([0, 1, 2], 40)], 5) == [1, 2]  # no table fits: fails closed


def test_a_table_too_large_to_search_is_hidden_whole():
    cells = np.full((30, 30), 9.0)
    cells[0, 0] = 1
    assert hidden_cells(cells, primary(cells, 5), margins(cells.shape), 5).all()
