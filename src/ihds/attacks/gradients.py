"""Persons out of the gradient of a logistic model: of a batch of one, or at coefficients chosen for it."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ihds.analysis.method import Contribution
from ihds.analysis.methods.glm import Sums
from ihds.analysis.plan import PlanState
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.reading import rows_in, unpacked
from ihds.attacks.world import Space, cleartext, people, reason, recovered, shared_out, with_inner
from ihds.errors import NotAuthenticated, Refused

_FORMULA = "relapse ~ age + bmi + smoker"
_COLUMNS = ("age", "bmi", "smoker")
#: So steep is the logistic curve made that it is a step between neighbouring persons.
_STEEP = 2000.0
_ROUNDS = 50  # what the permit of the attacked study allows


def _quotient(frame: Any, gradient: Any) -> Any:
    """Return the covariates that a gradient would be of if it were one person's: all entries by the intercept's."""
    one = frame.columns.index("(Intercept)")
    return _named(frame, gradient / gradient[one])


def _named(frame: Any, row: Any) -> Any:
    whole = row * frame.scale + frame.centre
    return [whole[frame.columns.index(name)] for name in _COLUMNS]


def _batches_of_one() -> Outcome:
    persons = people(24, seed=31)
    for _, state, sent in cleartext(shared_out(persons, 24), "glm", formula=_FORMULA, family="binomial"):
        if isinstance(sent[0], Sums):
            found = [_quotient(state.agreement.frame, part.score) for part in sent if isinstance(part, Sums)]
            return Outcome(recovered(found, persons, _COLUMNS))
    return Outcome(0.0)


def _summed_gradients() -> Outcome:
    lone, told = Space([people(1, 31), *shared_out(people(60, 32), 2)]), "answered"
    try:
        list(lone.rounds(lone.study("glm", formula=_FORMULA, family="binomial")))
    except Refused as error:
        told = reason(error)
    persons, found = people(90, seed=33), []
    space = Space(shared_out(persons, 3))
    for state, _, total in space.rounds(space.study("glm", formula=_FORMULA, family="binomial")):
        if isinstance(total, Sums):
            with np.errstate(divide="ignore", invalid="ignore"):  # at the maximum the gradient is 0
                found.append(_quotient(state.agreement.frame, total.score))
    return Outcome(recovered(found, persons, _COLUMNS), told)


def _steps(frame: Any, count: int) -> list[Any]:
    """Return coefficients that part persons by age at so many points, from old to young."""
    one, age = frame.columns.index("(Intercept)"), frame.columns.index("age")
    found = []
    for cut in np.linspace(3.5, -3.5, count):
        beta = np.zeros(len(frame.columns))
        beta[one], beta[age] = -cut * _STEEP, _STEEP
        found.append(beta)
    return found


def _between(frame: Any, scores: list[Any]) -> list[Any]:
    """Return the covariates of those who lie alone between two neighbouring steps."""
    one = frame.columns.index("(Intercept)")
    off = [before - after for before, after in pairwise(scores)]
    return [_named(frame, row / row[one]) for row in off if abs(row[one] - 1) < 1e-2]


def _chosen(environment: bool) -> Outcome:
    """Ask at coefficients of one's own, and have the environment ask, if there is one; use whatever comes back."""
    persons = people(90, seed=34)
    space = Space(shared_out(persons, 3), max_rounds=_ROUNDS, environment=environment)
    asked = {"formula": _FORMULA, "family": "binomial"}
    frame, scores, found, told = None, list[Any](), list[Any](), ""
    study = space.study("glm", **asked)
    try:
        for state, _, total in space.rounds(study):
            if isinstance(total, Sums):
                frame, inner = state.agreement.frame, study.plan().inner(state)
                for number, beta in enumerate(_steps(frame, _ROUNDS - state.rounds - 1), state.rounds + 1):
                    chosen = with_inner(state, number, inner, beta=beta, rounds=1)
                    answer: Contribution = space.opened(study, chosen)
                    assert isinstance(answer, Sums)
                    scores.append(answer.score)
                space.replies(study, with_inner(state, _ROUNDS, inner))
    except (NotAuthenticated, Refused) as error:
        told = reason(error)
    if scores:
        found = _between(frame, scores)
    if environment:
        for more in ({}, {"beta": [float(_STEEP)] * 4}):  # a study takes no coefficients
            received = space.received("glm", **asked, **more)
            found += rows_in(received, len(_COLUMNS))
            for total in unpacked(received, Sums):
                for state in unpacked(received, PlanState)[-1:]:
                    found.append(_quotient(state.agreement.frame, total.score))
    return Outcome(recovered(found, persons, _COLUMNS), told)


ATTACKS = (
    Attack(
        name="gradient_inversion",
        title="Inversion of a logistic gradient",
        attacker="the user, with software of their own",
        sees="score of a logistic model at every step",
        measures="share of persons whose covariates are recovered",
        succeeds_from=0.01,
        without="the gradient of batches of one person, in the clear",
        protection="secure sum over all sites; min_site_persons",
        source="Phong et al. 2018; Zhu, Liu & Han 2019; Geiping et al. 2020",
        peers="NVFLARE's logistic regression (hello-lr) gives the server each site's gradient and Hessian",
        unprotected=_batches_of_one,
        protected=_summed_gradients,
    ),
    Attack(
        name="chosen_coefficients",
        title="Gradients at coefficients chosen to part persons",
        attacker="the user, with software of their own",
        sees="totals of a logistic model at coefficients it makes up, so steep that only neighbours differ",
        measures=f"share of persons whose covariates are recovered in {_ROUNDS} rounds",
        succeeds_from=0.01,
        without="the total of all sites, opened by the user's own node, where a permit names no environment",
        protection="the environment chooses the state; gates take no round that the user signed",
        source="Fowl et al. 2022; Boenisch et al. 2023",
        unprotected=partial(_chosen, environment=False),
        protected=partial(_chosen, environment=True),
    ),
)
