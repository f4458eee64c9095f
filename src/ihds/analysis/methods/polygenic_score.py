"""A polygenic score and how well it predicts a trait: the score is a person's own and never leaves.

Model      score = sum of weight x copies of the counted allele, a missing genotype counting as the mean;
           trait = covariates + gamma x score / its standard deviation, linear or logistic.
Down       the weights, the variants' means, the score's mean and deviation, then the coefficients.
Up         Magnitudes, Means, ScoreMoments, then Likelihood in turns, Tenths at last, as sums over sites.
Rounds     5 and about 3 (linear) or 10.
Reveals    what a model with one more covariate does, and persons per tenth of the score and outcome, small
           cells hidden. With weights on one variant the score is that variant: weights must name two
           or more, and variants of few carriers or of one site are refused.
Errors     BadInput, Refused, Collinear, Separation, ConstantColumn.
Source     International Schizophrenia Consortium 2009; Choi, Mak & O'Reilly 2020. Checked against
           plink2 --score and R lm, glm (tests/vectors/polygenic.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import ndtri

from ihds.analysis import features, likelihood
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.families import LINKS, terms
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.analysis.numerics import blocks, weighted_gram
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.result import Result, wald_table
from ihds.analysis.rows import persons_with
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, Collinear, ConstantColumn
from ihds.privacy.disclosure import suppress

#: Bins of the score: tenths of a normal one, told by its mean and deviation.
_EDGES = ndtri(np.arange(1, 10) / 10)


@dataclass(frozen=True, slots=True)
class Params:
    """``variants`` are names of allele counts or dosages, ``weights`` their effects, in the same order."""

    formula: str
    variants: tuple[str, ...]
    weights: tuple[float, ...]
    family: Literal["gaussian", "binomial"] = "gaussian"
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class ScoreMoments(Contribution):
    """Moments of the score, in units of what the weights alone could make of it, and of the trait."""

    score: Annotated[Vector, Leaves("(2,)", "score, and its square", bound=2**20)]
    trait: Annotated[Vector, Leaves("(2,)", "scaled trait, and its square", bound=2**20)]


@dataclass(frozen=True, slots=True)
class Tenths(Contribution):
    """Rows, persons, cases, sites and the trait's sum per tenth of the score."""

    kind: ClassVar[str] = "count table"

    rows: Annotated[Vector, Leaves("(10,)", "rows", bound=1)]
    persons: Annotated[Vector, Leaves("(10,)", "persons", bound=1, counts_persons=True)]
    cases: Annotated[Vector, Leaves("(10,)", "persons whose binary trait is 1", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(10,)", "sites with persons", bound=1, per="site")]
    trait: Annotated[Vector, Leaves("(10,)", "scaled trait", bound=2**12)]


CONTRIBUTIONS = (Magnitudes, Means, ScoreMoments, Likelihood, Tenths)


@dataclass(frozen=True, slots=True)
class State:
    """The variants' scale, weights in their order, the score's moments, the fit and the tenths."""

    scale: Scale
    weights: Vector
    unit: float
    moments: ScoreMoments | None
    fit: Fit
    tenths: Tenths | None
    rows: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the trait, the covariates and the variants of the score."""
    formula = plain_formula(params.formula, codebook, "polygenic_score")
    if len(params.variants) != len(params.weights) or len(set(params.variants)) != len(params.variants):
        raise BadInput(
            f"{len(params.variants)} variants have {len(params.weights)} weights, or one stands twice",
            remedy="give one weight per variant, in the same order",
        )
    if sum(w != 0 for w in params.weights) < 2:
        raise BadInput("the score is of one variant", remedy="give weights to two variants or more")
    numbers = {n for n, v in codebook.variables.items() if v.kind == "number"}
    unknown = [v for v in params.variants if v not in numbers - formula.variables]
    if unknown:
        raise BadInput(f"{unknown[0]!r} is no number of its own", remedy="name allele counts of the codebook")
    outcome: Any = "number" if params.family == "gaussian" else "binary"
    names = tuple(sorted(params.variants))
    return Ask(formula=formula, outcome=outcome, covariates="matrix", extra=1, features=names)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known of the variants."""
    p = len(frame.columns)
    by_name = dict(zip(params.variants, params.weights, strict=True))
    weights = np.array([by_name[name] for name in frame.features])
    unit = float(np.sqrt(np.sum(weights**2)))
    fit = likelihood.begin((*frame.columns, "score"), np.zeros(p + 1), np.arange(p + 1) < p)
    return State(features.begin(frame), weights, unit, None, fit, None, frame.rows)


def scores(state: State, design: Design) -> Vector:
    """Return each row's score (n,) less that of the mean person; it stays at the site."""
    found = np.zeros(len(design.features))
    for part in design.features.parts():
        found += np.nan_to_num(design.features[:, part] - state.scale.centre[part]) @ state.weights[part]
    return found


def _standard(state: State, design: Design) -> Vector:
    assert state.moments is not None
    mean, deviation = _of_score(state)
    return np.asarray((scores(state, design) / state.unit - mean) / deviation)


def _of_score(state: State) -> tuple[float, float]:
    """Return the score's mean and standard deviation, in units of the weights."""
    assert state.moments is not None
    mean = float(state.moments.score[0]) / state.rows
    variance = (float(state.moments.score[1]) - state.rows * mean**2) / max(state.rows - 1, 1)
    return mean, float(np.sqrt(max(variance, 0.0)))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    y = design.y
    if state.moments is None:
        score = scores(state, design) / state.unit
        return ScoreMoments(np.array([score.sum(), score @ score]), np.array([y.sum(), y @ y]))
    score = _standard(state, design)
    if state.fit.phase == "done":
        return _by_tenth(np.searchsorted(_EDGES, score), y, design)
    x, p = design.x, design.x.shape[1] + 1
    pulled, information, value = np.zeros(p), np.zeros((p, p)), 0.0
    for rows in blocks(len(y)):
        a = np.column_stack([x[rows], score[rows]])
        pull, weight, found = terms(params.family, LINKS[params.family][0], a @ state.fit.at, y[rows], 1.0)
        pulled += a.T @ pull
        information += weighted_gram(a, weight)
        value += float(found.sum())
    return Likelihood(pulled, information, value)


def _by_tenth(tenth: Any, y: Vector, design: Design) -> Tenths:
    rows = np.bincount(tenth, minlength=10).astype(np.float64)
    inside = tenth[:, None] == np.arange(10)
    persons = persons_with(inside, design.person)
    cases = persons_with(inside & (y == 1)[:, None], design.person)
    return Tenths(
        rows, persons, cases, (rows > 0).astype(np.float64), np.bincount(tenth, y, minlength=10).astype(float)
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        Refused: some variant tells of few persons, or of one site.
        ConstantColumn: everybody has the same score.

    """
    match total:
        case ScoreMoments():
            state = replace(state, moments=total)
            if _of_score(state)[1] < 1e-6:
                raise ConstantColumn("the score is the same for everybody", remedy="look at the variants' names")
            return state
        case Likelihood():
            finite = params.family == "gaussian"
            fit = likelihood.newton(state.fit, total, "polygenic_score", params.max_rounds, finite=finite)
            return replace(state, fit=fit)
        case Tenths():
            return replace(state, tenths=total)
    scale = features.scaled(state.scale, total)
    features.refuse_few(scale, "the score")
    return replace(state, scale=scale)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the trait's model with the score, what the score adds, and the trait per tenth of the score.

    Raises:
        Collinear: the covariates determine the outcome.

    """
    if state.tenths is None or state.moments is None:
        return None
    fit, n, p = state.fit, frame.rows, len(frame.columns)
    gaussian = params.family == "gaussian"
    unit = frame.outcome_scale if gaussian else 1.0
    dispersion, df = 1.0, None
    whole, null = fit.log_likelihood, fit.null_log_likelihood
    if gaussian:
        df = float(n - p - 1)
        dispersion = -2 * whole / max(df, 1.0)
        if not _explained(params, state, whole) < 1 - 1e-9:
            raise Collinear(
                "the covariates determine the outcome: its residuals are lost in rounding",
                remedy="look for the outcome, or a copy of it, among the covariates",
            )
    transform = np.eye(p + 1)
    transform[:p, :p] = frame.transform
    beta = transform @ fit.at * unit
    beta[0] += frame.outcome_centre if gaussian else 0.0
    covariance = transform @ fit.covariance @ transform.T * dispersion * unit**2
    mean, deviation = _of_score(state)
    return Result(
        method="polygenic_score",
        n=n,
        coefficients=wald_table((*frame.columns, "score, per deviation"), beta, covariance, None, df),
        tests=() if gaussian else likelihood.ratio_test(fit),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "family": params.family,
            "variants": len(params.variants),
            "score_mean": mean * state.unit + float(state.scale.centre @ state.weights),
            "score_sd": deviation * state.unit,
            "r_squared_with": _explained(params, state, whole),
            "r_squared_without": _explained(params, state, null),
            "tenths": _tenths(params, frame, state.tenths),
            "left_out_missing": frame.left_out,
        },
    )


def _explained(params: Params, state: State, value: float) -> float:
    """Return R²; of binary traits Nagelkerke's."""
    assert state.moments is not None
    n, (total, square) = state.rows, state.moments.trait
    if params.family == "gaussian":
        return float(1 + 2 * value / (square - total**2 / n))
    share = total / n
    nothing = n * (share * np.log(share) + (1 - share) * np.log1p(-share))
    return float((1 - np.exp(2 * (nothing - value) / n)) / (1 - np.exp(2 * nothing / n)))


def _tenths(params: Params, frame: Frame, total: Tenths) -> dict[str, Any]:
    """Return persons and the mean trait per tenth; what few persons, few cases or one site make is hidden."""
    least, persons, cases = max(frame.min_cell, 1), np.rint(total.persons), np.rint(total.cases)
    alone = (total.sites > 0) & (total.sites < frame.min_sites)
    told = suppress(np.where(alone, 0.5, persons), least)
    if params.family == "binomial":  # a tenth that is hidden for its cases must not follow from those of all
        with_it, without = (suppress(np.where(alone, 0.5, c), least) for c in (cases, persons - cases))
        told = [None if a is None or b is None else t for t, a, b in zip(told, with_it, without, strict=True)]
    unit, centre = (frame.outcome_scale, frame.outcome_centre) if params.family == "gaussian" else (1.0, 0.0)
    means = [
        None if count is None or not rows else float(y / rows * unit + centre)
        for count, rows, y in zip(told, total.rows, total.trait, strict=True)
    ]
    return {"persons": told, "mean_trait": means}
