"""Firth's logistic regression of each hit of a scan, all hits in the same rounds.

Per hit two models with the variant among the covariates: one holds its coefficient at 0, one fits it. The
first gives the penalised likelihood ratio test. A model that has settled is asked for no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc

from ihds.analysis import jeffreys, likelihood
from ihds.analysis.design import Design, Ints
from ihds.analysis.jeffreys import Penalised
from ihds.analysis.likelihood import Fit
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.errors import Collinear, DidNotConverge

#: The furthest that a log-odds may move in a step, for a covariate's unit or for a person who carries the variant.
_REACH = 5.0
#: No hit takes more steps, two rounds each, whatever the scan allows: all others wait for it.
_MOST_STEPS = 100


@dataclass(frozen=True, slots=True)
class HitInformation(Contribution):
    """What decides each person's leverage, per model."""

    kind: ClassVar[str] = "score and information"

    information: Annotated[NDArray[np.float64], Leaves("(models, p+1, p+1)", "1 / covariate unit squared")]
    log_likelihood: Annotated[Vector, Leaves("(models,)", "1")]


@dataclass(frozen=True, slots=True)
class HitScores(Contribution):
    """The modified score, per model."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Matrix, Leaves("(models, p+1)", "1 / covariate unit")]


@dataclass(frozen=True, slots=True)
class Hits:
    """The hits' variants, their units and reaches (hits,), and 2 models each: one held, one free."""

    which: Ints
    unit: Vector
    reach: Vector
    models: tuple[Penalised, ...]
    lost: Ints

    def open(self) -> list[int]:
        """Return the models that are still fitted."""
        return [m for m, model in enumerate(self.models) if not self.lost[m // 2] and not _settled(model)]


def choose(chi: Vector, may: NDArray[np.bool_], below: float, most: int) -> Ints:
    """Return the features that may be chosen with p values below a limit, the largest chi-squares first."""
    fit = np.flatnonzero(may & (chdtrc(1, chi) < below))
    return np.asarray(fit[np.argsort(-chi[fit], kind="stable")][:most], dtype=np.int64)


def sizes(unit: Vector) -> Vector:
    """Return how large the genotypes of those who carry a variant are (hits,), in units of a mean square near 1.

    Genotypes come scaled by how far most persons are from the mean (``features.scaling``). Where a part f of the
    persons carries a variant, the others are at f, the carriers at 1/f of that; 1/f is then the mean square too.
    """
    return np.maximum(1 / unit, 1.0)


def begin(base: Fit, which: Ints, unit: Vector) -> Hits:
    """Start at the model without variants, ``base``.

    ``unit`` (hits,) brings each hit's genotypes to a mean square near 1, else information of few carriers is lost.
    """
    terms, at = (*base.terms, "variant"), np.append(base.at, 0.0)
    held = jeffreys.begin(likelihood.begin(terms, at, np.arange(len(at)) < len(base.at)))
    free = jeffreys.begin(likelihood.begin(terms, at))
    return Hits(which, unit, _REACH / sizes(unit), (held, free) * len(which), np.zeros(len(which), dtype=np.int64))


def local(state: Hits, design: Design, genotypes: Callable[[Ints], Matrix]) -> Contribution:
    """Return the sums of the models that are still fitted.

    ``genotypes`` gives those of chosen variants (n, hits), centred and scaled, none missing.
    """
    models, q = state.open(), design.x.shape[1] + 1
    if state.models[models[0]].informed:
        scores = np.zeros((len(models), q))
        for i, model, x in _placed(state, design, genotypes):
            scores[i] = jeffreys.score(x, design.y, model.fit.at, model.inverse)
        return HitScores(scores)
    information, value = np.zeros((len(models), q, q)), np.zeros(len(models))
    for i, model, x in _placed(state, design, genotypes):
        information[i], value[i] = jeffreys.information(x, design.y, model.fit.at)
    return HitInformation(information, value)


def aggregate(state: Hits, total: Any, max_steps: int) -> Hits:
    """Keep the information; with the scores that follow take a step. A hit without an answer is lost, no other."""
    models, lost, max_steps = list(state.models), state.lost.copy(), min(max_steps, _MOST_STEPS)
    for i, m in enumerate(state.open()):
        try:
            if isinstance(total, HitInformation):
                models[m] = jeffreys.take_information(models[m], total.information[i], total.log_likelihood[i])
            else:
                reach = np.append(np.full(total.score.shape[1] - 1, _REACH), state.reach[m // 2])
                models[m] = jeffreys.take_score(models[m], total.score[i], "association_scan", max_steps, reach)
        except (Collinear, DidNotConverge):
            lost[m // 2] = 1
    return replace(state, models=tuple(models), lost=lost)


def table(state: Hits, count: int, scale: Vector) -> dict[str, Vector]:
    """Return estimates, standard errors and p values (count,) of all features, NaN for those that are no hits.

    ``scale`` (count,) is that of the genotypes.
    """
    found = {name: np.full(count, np.nan) for name in ("firth_estimate", "firth_se", "firth_p")}
    for h, g in enumerate(state.which):
        if not state.lost[h]:
            held, free = (model.fit for model in state.models[2 * h : 2 * h + 2])
            per_copy = state.unit[h] / scale[g]
            found["firth_estimate"][g] = free.at[-1] * per_copy
            found["firth_se"][g] = np.sqrt(free.covariance[-1, -1]) * per_copy
            ratio = 2 * (free.log_likelihood - held.null_log_likelihood)
            found["firth_p"][g] = chdtrc(1, max(ratio, 0.0))
    return found


def _settled(model: Penalised) -> bool:
    """Return whether a model is fitted: the held one is once its null model is."""
    return model.fit.phase == "done" or bool(model.fit.null.any() and model.fit.phase != "null")


def _placed(
    state: Hits, design: Design, genotypes: Callable[[Ints], Matrix]
) -> Iterator[tuple[int, Penalised, Matrix]]:
    """Return each open model with its place and its matrix (n, q): the covariates, then the variant."""
    models = state.open()
    hits = np.unique(np.array(models) // 2)
    columns = genotypes(state.which[hits]) * state.unit[hits]
    x = np.empty((len(design.y), design.x.shape[1] + 1), order="F")
    x[:, :-1] = design.x
    for i, m in enumerate(models):
        x[:, -1] = columns[:, np.searchsorted(hits, m // 2)]
        yield i, state.models[m], x
