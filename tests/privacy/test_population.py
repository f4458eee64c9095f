"""Fingerprints of populations: a small difference is counted exactly, a large one never looks small."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.errors import BadInput
from ihds.privacy.disclosure import MOST_DIFFERENCE, Thresholds
from ihds.privacy.population import TERMS, differing, fingerprint, marks, without

SECRET = bytes(range(32))


def names(n: int) -> np.ndarray:
    return np.array([f"person-{i}" for i in range(n)], dtype=object)


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 300),
    gone=st.integers(0, 40),
    come=st.integers(0, 40),
    least=st.integers(1, MOST_DIFFERENCE),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_number_of_differing_persons_is_exact_below_the_threshold(size, gone, come, least, seed):
    rng = np.random.default_rng(seed)
    people = names(size + come)
    marked = marks(SECRET, [people], len(people))
    first = np.arange(size + come) < size
    second = np.ones(size + come, dtype=bool)
    second[rng.choice(size, min(gone, size), replace=False)] = False
    truth = int((first != second).sum())
    assert differing(fingerprint(marked, first), fingerprint(marked, second), least) == min(truth, least)


@settings(max_examples=80, deadline=None)
@given(persons=st.integers(3, 60), visits=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_a_person_differs_once_however_many_of_its_rows_do(persons, visits, seed):
    rng = np.random.default_rng(seed)
    who = rng.integers(0, persons, persons * visits)
    marked = marks(SECRET, [names(persons)[who]], len(who))
    one, two = rng.random(len(who)) < 0.9, rng.random(len(who)) < 0.97
    truth = len(np.unique(who[one != two]))
    assert differing(fingerprint(marked, one), fingerprint(marked, two), 32) == min(truth, 32)


@pytest.mark.parametrize(("differ", "told"), [(0, 0), (1, 1), (9, 9), (10, 10), (50_000, 10)])
def test_a_hundred_thousand_persons(differ, told):
    marked = marks(SECRET, [names(100_000)], 100_000)
    some = np.ones(100_000, dtype=bool)
    some[np.random.default_rng(differ).choice(100_000, differ, replace=False)] = False
    whole = fingerprint(marked, np.ones(100_000, dtype=bool))
    part = fingerprint(marked, some)
    assert differing(whole, part, 10) == told
    assert np.array_equal(part, without(whole, fingerprint(marked, ~some)))
    assert whole.shape == (TERMS,)


def test_neither_order_nor_other_rows_matter_but_the_secret_does():
    people = names(50)
    back = people[::-1].copy()
    everybody = np.ones(50, dtype=bool)
    here = fingerprint(marks(SECRET, [people], 50), everybody)
    assert np.array_equal(here, fingerprint(marks(SECRET, [back], 50), everybody))
    elsewhere = fingerprint(marks(bytes(32), [people], 50), everybody)
    assert differing(here, elsewhere, 32) == 32


def test_who_has_no_name_is_one_by_its_position():
    people = names(20)
    people[[3, 4]] = None
    marked = marks(SECRET, [pd.Series(people)], 20)
    assert len(np.unique(marked.person)) == 20
    nobody = marks(SECRET, None, 20)
    assert len(np.unique(nobody.person)) == 20
    assert np.array_equal(marked.person[[3, 4]], nobody.person[[3, 4]])
    assert len(marks(SECRET, [names(0)], 0).person) == len(marks(SECRET, None, 0).person) == 0


def test_marks_are_the_same_with_every_release_of_what_makes_them():
    """Else an update would make all earlier populations look foreign, and the ledger blind."""
    assert marks(SECRET, [names(2)], 2).person.tolist() == MARKS
    assert marks(SECRET, [pd.Series([1.0, 2.0])], 2).person.tolist() != MARKS


MARKS = [1989219945, 79184087]


def test_a_threshold_beyond_what_can_be_told_is_refused():
    assert Thresholds(min_difference=MOST_DIFFERENCE).min_difference == MOST_DIFFERENCE
    for wrong in (-1, MOST_DIFFERENCE + 1):
        with pytest.raises(BadInput, match="min_difference"):
            Thresholds(min_difference=wrong)
