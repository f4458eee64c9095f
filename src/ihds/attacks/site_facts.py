"""Facts of a site rather than of a person: a property that nobody asked about, and what its messages weigh."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ihds.analysis.methods.glm import Sums
from ihds.analysis.plan import PlanState
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.world import Space, area, cleartext, people, shared_out
from ihds.canonical import pack
from ihds.federation.study import Reply, Study

_FORMULA = "relapse ~ age + bmi"
_COX = "Surv(days, death) ~ age + bmi"
_SIZES = (12, 25, 50, 100, 200)


def _sites() -> tuple[list[pd.DataFrame], list[bool]]:
    """Return twelve sites; where most smoke, patients are younger. Nobody asks who smokes."""
    parts, smoking = shared_out(people(12 * 40, seed=71), 12), [i % 2 == 0 for i in range(12)]
    for part, many in zip(parts, smoking, strict=True):
        part["age"] = (part["age"] - 8 * many).round(1)
    return parts, smoking


def _guessed(frame: Any, updates: list[Any], smoking: list[bool]) -> float:
    """Return how well the mean age that an update seems to tell parts the sites where most smoke from the others."""
    one, age = frame.columns.index("(Intercept)"), frame.columns.index("age")
    with np.errstate(divide="ignore", invalid="ignore"):
        young = np.array([-update[one, age] / update[one, one] for update in updates])
    return area(young[np.array(smoking)], young[~np.array(smoking)])


def _property_in_the_clear() -> Outcome:
    parts, smoking = _sites()
    guesses = []
    for _, state, sent in cleartext(parts, "glm", formula=_FORMULA, family="binomial"):
        updates = [part.information for part in sent if isinstance(part, Sums)]
        guesses += [_guessed(state.agreement.frame, updates, smoking)] if updates else []
    return Outcome(float(np.mean(guesses)))


def _property_of_replies() -> Outcome:
    parts, smoking = _sites()
    space, guesses = Space(parts), []
    study = space.study("glm", formula=_FORMULA, family="binomial")
    for state, replies, total in space.rounds(study):
        if isinstance(total, Sums):
            updates = [_as_if_open(study, state, reply).information for reply in replies]
            guesses.append(_guessed(state.agreement.frame, updates, smoking))
    return Outcome(float(np.mean(guesses)))


def _as_if_open(study: Study, state: PlanState, reply: Reply) -> Any:
    """Read one masked reply as if it were a total."""
    words = reply.words.copy()
    words[-1] = 0  # says whether values fitted; under a mask it is noise
    return study.plan().total(state, reply.kind, reply.layout, words)


def _of_sizes() -> list[pd.DataFrame]:
    return [people(size, seed=72 + i) for i, size in enumerate(_SIZES)]


def _follows(lengths: list[int]) -> float:
    """Return how closely lengths follow the sites' numbers of rows (Spearman); 0 if all are alike."""
    return 0.0 if len(set(lengths)) == 1 else abs(float(spearmanr(_SIZES, lengths).statistic))


def _own_times() -> Outcome:
    """Weigh the distinct event times of each site."""
    times = [np.unique(part.loc[part["death"] == 1, "days"]) for part in _of_sizes()]
    return Outcome(_follows([len(pack(tuple(map(float, own)))) for own in times]))


def _replies() -> Outcome:
    space = Space(_of_sizes())
    study = space.study("cox", formula=_COX)
    worst, spent = 0.0, np.zeros(len(_SIZES))
    for state, _, _ in space.rounds(study):
        asked, lengths = space.asked(study, state), []
        for i, gate in enumerate(space.gates):
            began = time.perf_counter()
            lengths.append(len(gate.answer(study.id, "t", asked)))
            spent[i] += time.perf_counter() - began
        worst = max(worst, _follows(lengths))
    clock = ", ".join(f"{size} rows {1000 * took:.0f} ms" for size, took in zip(_SIZES, spent, strict=True))
    return Outcome(worst, clock=clock)


ATTACKS = (
    Attack(
        name="property_inference",
        title="A property of a site that nobody asked about",
        attacker="the user, with software of their own",
        sees="each site's information matrix of a logistic model",
        measures="AUC of sites where most patients smoke, mean of the rounds",
        succeeds_from=0.9,
        without="each site's update in the clear",
        protection="pairwise masks over the words of a reply",
        source="Ateniese et al. 2015; Melis et al. 2019",
        peers="NVFLARE's logistic regression (hello-lr) gives the server each site's gradient and Hessian",
        unprotected=_property_in_the_clear,
        protected=_property_of_replies,
    ),
    Attack(
        name="lengths",
        title="Length and time of messages",
        attacker="whoever sees the line",
        sees="how long replies are; how long they take is reported, not judged",
        measures="rank correlation of length with number of rows",
        succeeds_from=0.01,
        without="each site's distinct event times",
        protection="the shape of a reply is that of a site without rows, or the round fails",
        source="Chen et al. 2010 (side channels of encrypted traffic)",
        peers="vantage6's v6-coxph and FeatureCloud's Cox send event times",
        unprotected=_own_times,
        protected=_replies,
    ),
)
