"""Persons out of X'X: what a linear model needs of a site tells all of a small one; and two of them differ by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis.methods.correlation import Products
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.world import Space, cleartext, people, reason, recovered, shared_out
from ihds.errors import Refused

_COLUMNS = ("age", "bmi", "smoker")
_FORMULA = "~ age + bmi + smoker"
_LABS = tuple(f"lab{i}" for i in range(5))


def _raw(frame: Any, products: Any) -> Any:
    """Return X'X in the variables' own units; the first column is the intercept."""
    back = np.diag(frame.scale)
    back[0, 1:] = frame.centre[1:]
    return back.T @ products @ back


def _rows(gram: Any) -> list[Any]:
    """Return the rows of X that X'X (p+1, p+1) tells: of one person, of two, or else the rows of its root."""
    count = round(float(gram[0, 0]))
    if count == 1:
        return [gram[0, 1:]]
    mean = gram[0, 1:] / count
    about = gram[1:, 1:] / count - np.outer(mean, mean)
    if count == 2:  # both lie as far from the mean, on the side that the first variable's products tell
        off = np.sqrt(np.maximum(np.diag(about), 0.0)) * np.where(about[0] < 0, -1.0, 1.0)
        return [mean + off, mean - off]
    values, vectors = np.linalg.eigh(about)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return [mean + sign * column for column in root.T for sign in (1, -1)]


def _small_sites() -> Outcome:
    persons, found = people(16, seed=21), list[Any]()
    for _, state, sent in cleartext(shared_out(persons, 8), "correlation", formula=_FORMULA):
        products = [part.products for part in sent if isinstance(part, Products)]
        found += [row for own in products for row in _rows(_raw(state.agreement.frame, own))]
    return Outcome(recovered(found, persons, _COLUMNS))


def _refused_and_summed() -> Outcome:
    small, told = Space([people(2, 21), *shared_out(people(60, 22), 2)]), "answered"
    try:
        list(small.rounds(small.study("correlation", formula=_FORMULA)))
    except Refused as error:
        told = reason(error)
    persons = people(90, seed=23)
    space, found = Space(shared_out(persons, 3)), []
    for state, _, total in space.rounds(space.study("correlation", formula=_FORMULA)):
        if isinstance(total, Products):
            found = _rows(_raw(state.agreement.frame, total.products))
    return Outcome(recovered(found, persons, _COLUMNS), told)


def _gapped() -> pd.DataFrame:
    """Return persons, each of the first five without one laboratory value."""
    persons, rng = people(120, seed=24), np.random.default_rng(25)
    for i, name in enumerate(_LABS):
        persons[name] = rng.normal(5, 1, len(persons)).round(2)
        persons.loc[i, name] = np.nan
    return persons


def _difference(grams: list[Any]) -> list[Any]:
    """Return the persons by which the first X'X exceeds each other one."""
    size = len(_COLUMNS) + 1
    off = [grams[0] - gram[:size, :size] for gram in grams[1:]]
    return [gram[0, 1:] for gram in off if round(float(gram[0, 0])) == 1]


def _questions() -> list[str]:
    return [_FORMULA, *(f"{_FORMULA} + {name}" for name in _LABS)]


def _two_clear_studies() -> Outcome:
    persons, grams = _gapped(), list[Any]()
    for formula in _questions():
        for _, state, sent in cleartext(shared_out(persons, 3), "correlation", formula=formula):
            products = [part.products for part in sent if isinstance(part, Products)]
            grams += [_raw(state.agreement.frame, sum(products))] if products else []
    return Outcome(recovered(_difference(grams), persons.iloc[: len(_LABS)], _COLUMNS))


def _two_studies() -> Outcome:
    persons, grams, told = _gapped(), [], "every study is answered"
    space = Space(shared_out(persons, 3))
    for formula in _questions():
        try:
            for state, _, total in space.rounds(space.study("correlation", formula=formula)):
                if isinstance(total, Products):
                    grams.append(_raw(state.agreement.frame, total.products))
        except Refused as error:
            told = reason(error)
    return Outcome(recovered(_difference(grams), persons.iloc[: len(_LABS)], _COLUMNS), told)


ATTACKS = (
    Attack(
        name="cross_products",
        title="Inversion of X'X of a small site",
        attacker="the user, with software of their own",
        sees="X'X, of a site or of all",
        measures="share of persons whose covariates are recovered",
        succeeds_from=0.01,
        without="X'X of each of eight sites of two persons, in the clear",
        protection="secure sum; min_site_persons, parameters_per_row, min_residual_dof",
        source="Karr et al. 2005 (regression on distributed databases)",
        peers="pda sends its models' sums in files, with neither secure sum nor thresholds",
        unprotected=_small_sites,
        protected=_refused_and_summed,
    ),
    Attack(
        name="differencing",
        title="Differences between two studies",
        attacker="the user, with software of their own",
        sees="X'X of everybody with three variables, and again of everybody with one more, which one person lacks",
        measures="share of the persons aimed at whose covariates are recovered",
        succeeds_from=0.01,
        without="totals of any two studies",
        protection="what gates compare between studies, if they do",
        source="Denning, Denning & Schwartz 1979 (the tracker)",
        limitation="Differencing",
        unprotected=_two_clear_studies,
        protected=_two_studies,
    ),
)
