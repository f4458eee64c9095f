"""Genome-wide association: each variant with a trait, given covariates.

Model      gaussian: trait = x · beta + g_v gamma_v, the t test of gamma_v (plink2 --glm). binomial: the
           score test of adding g_v to the logistic model of the covariates.
           Hits of binary traits (p below confirm_below, confirm_most at most) may be fitted again.
           confirm = "firth": by Firth's logistic regression with the covariates, for effects and tests that
           hold for rare variants, few cases and separation, as plink2 and regenie give them. "saddlepoint":
           p values of the score test alone, as SAIGE gives them, in half the rounds.
Down       for binary traits beta of the model without variants; each variant's centre and scale; each hit's
           coefficients and inverse information, or where its cumulants are wanted.
Up         Likelihood in turns for binary traits; Magnitudes, Means, then Scan; HitInformation and HitScores in
           turns, or Cumulants, for hits; as sums over sites.
Rounds     4; 4 and about 6 for binary traits; hits about 25, or 10, whatever their number.
Reveals    frequencies of many variants over all sites identify members of small cohorts (Homer et
           al. 2008): no frequency is released, and n below 500 refuses more than 1000 variants. Variants
           of fewer than min_cell carriers are left out and counted, and never fitted again. Sums of hits at
           every step say more of few carriers, to the user's code, than those of the score test.
Errors     Refused, Separation, Collinear, BadInput.
Source     Rao 1948; Chang et al. 2015 (plink2); Firth 1993; Mbatchou et al. 2021 (regenie); Dey et al. 2017;
           Zhou et al. 2018 (SAIGE). Checked against plink2 and R (tests/vectors/genetics.sh, hits.R). A
           missing genotype counts as the variant's mean; plink2 leaves the person out.
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, expit, stdtr

from ihds.analysis import features, hits, likelihood, saddlepoint
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.hits import HitInformation, Hits, HitScores
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import blocks, invert, weighted_gram
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.result import Result
from ihds.analysis.saddlepoint import Cumulants, Tails
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, Refused

#: Fewer persons than this may not be scanned for more variants than that (membership inference).
_FEW_PERSONS, _MANY_VARIANTS = 500, 1000
#: More hits than this are not confirmed in one study: their matrices travel together.
_MOST_HITS = 1000


@dataclass(frozen=True, slots=True)
class Params:
    """``features`` is a pattern of names of allele counts or dosages, for example ``rs*``.

    With ``confirm`` variants of binary traits with p below ``confirm_below``, ``confirm_most`` at most and the
    largest statistics first, are fitted again, one by one.
    """

    formula: str
    features: str
    family: Literal["gaussian", "binomial"] = "gaussian"
    max_rounds: int = 60
    confirm: Literal["none", "firth", "saddlepoint"] = "none"
    confirm_below: float = 0.05
    confirm_most: int = 100


@dataclass(frozen=True, slots=True)
class Scan(Contribution):
    """Per variant its products with covariates and residual, weighted for binary traits; and the trait's own."""

    kind: ClassVar[str] = "gene vector"

    xx: Annotated[Matrix, Leaves("(p, p)", "covariate unit squared")]
    xy: Annotated[Vector, Leaves("(p,)", "covariate unit x trait")]
    yy: Annotated[float, Leaves("()", "trait squared", bound=2**14)]
    gx: Annotated[Matrix, Leaves("(features, p)", "scaled unit x covariate unit")]
    gy: Annotated[Vector, Leaves("(features,)", "scaled unit x trait")]
    gg: Annotated[Vector, Leaves("(features,)", "scaled unit squared", bound=2**24)]
    weights: features.Weights


CONTRIBUTIONS = (Likelihood, Magnitudes, Means, Scan, HitInformation, HitScores, Cumulants)


@dataclass(frozen=True, slots=True)
class State:
    """The model without variants, the variants' scale, the opened sums and the hits."""

    fit: Fit
    scale: Scale
    total: Scan | None
    hits: Hits | Tails | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the trait, the covariates and the variants.

    Raises:
        BadInput: hits are to be confirmed that cannot be.

    """
    if params.confirm != "none" and params.family != "binomial":
        raise BadInput("hits are confirmed for binary traits only", remedy="family = binomial, or confirm = none")
    if not (0 < params.confirm_below <= 1 and 1 <= params.confirm_most <= _MOST_HITS):
        raise BadInput(
            f"hits below p = {params.confirm_below:g}, {params.confirm_most} at most, cannot be confirmed",
            remedy=f"confirm_below is above 0 and at most 1, confirm_most between 1 and {_MOST_HITS}",
        )
    formula = plain_formula(params.formula, codebook, "association_scan")
    names = features.select(params.features, codebook, formula.variables)
    outcome: Any = "number" if params.family == "gaussian" else "binary"
    return Ask(formula=formula, outcome=outcome, covariates="matrix", extra=1, features=names)


def begin(params: Params, frame: Frame) -> State:
    """Start the model without variants.

    Raises:
        Refused: too many variants for so few persons.

    """
    if frame.min_cell > 1 and frame.rows < _FEW_PERSONS and len(frame.features) > _MANY_VARIANTS:
        raise Refused(
            f"{len(frame.features)} variants of {frame.rows} persons could tell who is among them",
            reasons=(f"membership: below {_FEW_PERSONS} persons at most {_MANY_VARIANTS} variants",),
            remedy="name fewer variants, or join more holders",
        )
    fit = likelihood.begin(frame.columns, np.zeros(len(frame.columns)))
    if params.family == "gaussian":
        fit = replace(fit, phase="done")
    return State(fit, features.begin(frame), None, None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    x, y, p = design.x, design.y, design.x.shape[1]
    if state.fit.phase != "done":
        score, information, value = np.zeros(p), np.zeros((p, p)), 0.0
        for rows in blocks(len(y)):
            eta = x[rows] @ state.fit.at
            mean = expit(eta)
            score += x[rows].T @ (y[rows] - mean)
            information += weighted_gram(x[rows], mean * expit(-eta))
            value += float((y[rows] * eta - np.logaddexp(0, eta)).sum())
        return Likelihood(score, information, value)
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    match state.hits:
        case Hits():
            return hits.local(state.hits, design, partial(features.chosen, state.scale, design))
        case Tails():
            return saddlepoint.local(state.hits, state.fit.at, design, partial(features.chosen, state.scale, design))
    weight, residual = np.ones(len(y)), y
    if params.family == "binomial":
        eta = x @ state.fit.at
        weight, residual = expit(eta) * expit(-eta), y - expit(eta)
    found = features.products(state.scale, design, np.column_stack([x * weight[:, None], residual]))
    squares = features.squares(state.scale, design, weight if params.family == "binomial" else None)
    own = (weighted_gram(x, weight), x.T @ residual, float(residual @ residual))
    return Scan(*own, found[:, :p], found[:, p], *squares)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on."""
    match total:
        case Likelihood():
            return replace(state, fit=likelihood.newton(state.fit, total, "association_scan", params.max_rounds))
        case Scan():
            state = replace(state, total=total)
            return state if params.confirm == "none" else replace(state, hits=_hits(params, state, total))
        case HitInformation() | HitScores():
            assert isinstance(state.hits, Hits)
            return replace(state, hits=hits.aggregate(state.hits, total, params.max_rounds))
        case Cumulants():
            assert isinstance(state.hits, Tails)
            return replace(state, hits=saddlepoint.aggregate(state.hits, total))
    return replace(state, scale=features.scaled(state.scale, total))


def _left(total: Scan, inverse: Matrix) -> tuple[Vector, Matrix, NDArray[np.bool_]]:
    """Return each variant's sum of squares that covariates leave, its part in them, and whether it varies."""
    on_covariates = total.gx @ inverse
    left = total.gg - np.einsum("gi,gi->g", on_covariates, total.gx)
    varies = left > 1e-10 * np.maximum(total.gg, 1e-300)
    return np.where(varies, left, 1.0), on_covariates, varies


def _few(state: State, total: Scan) -> NDArray[np.bool_]:
    """Return which variants tell of few persons: those of few carriers of either allele too."""
    other = (2 - state.scale.centre) * state.scale.count  # copies of the allele that is not counted
    return state.scale.few(total.weights) | ((other > 1e-6) & (other < state.scale.least - 1e-6))


def _hits(params: Params, state: State, total: Scan) -> Hits | Tails:
    """Choose the hits by their score tests, among the variants that are shown."""
    held, on_covariates, varies = _left(total, invert(total.xx, state.fit.terms))
    firth = params.confirm == "firth"
    below = params.confirm_below if firth else min(params.confirm_below, saddlepoint.CENTRE)
    which = hits.choose(total.gy**2 / held, varies & ~_few(state, total), below, params.confirm_most)
    unit = np.sqrt(total.xx[0, 0] / total.gg[which])
    if firth:
        return hits.begin(state.fit, which, unit)
    return saddlepoint.begin(which, unit, hits.sizes(unit), on_covariates[which], total.gy[which], held[which])


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the tests in the order of the variants, and the genomic inflation."""
    total = state.total
    if total is None or (state.hits is not None and state.hits.open()):
        return None
    inverse = invert(total.xx, frame.columns)
    held, on_covariates, varies = _left(total, inverse)
    if params.family == "gaussian":
        pull = total.gy - on_covariates @ total.xy
        df = frame.rows - len(frame.columns) - 1
        rest = total.yy - total.xy @ inverse @ total.xy - pull**2 / held
        se = np.sqrt(np.maximum(rest, 0.0) / df / held)
        estimate = pull / held
        statistic = estimate / np.where(se > 0, se, 1.0)
        p = 2 * stdtr(df, -np.abs(statistic))
        unit = frame.outcome_scale
        chi = statistic**2
    else:
        estimate, se, unit = total.gy / held, 1 / np.sqrt(held), 1.0
        statistic = chi = total.gy**2 / held
        p = chdtrc(1, chi)
    shown: dict[str, Any] = {
        "feature": frame.features,
        "estimate": np.where(varies, estimate * unit / state.scale.scale, np.nan),
        "se": np.where(varies, se * unit / state.scale.scale, np.nan),
        "statistic": np.where(varies, statistic, np.nan),
        "p": np.where(varies, p, np.nan),
        "n": features.shown_counts(state.scale.count, frame.rows, frame.min_cell).astype(np.int64),
    }
    confirmed: dict[str, Any] = {}
    if state.hits is not None:
        if isinstance(state.hits, Hits):
            again = hits.table(state.hits, len(frame.features), state.scale.scale)
        else:
            again = saddlepoint.table(state.hits, len(frame.features))
        fitted = int(np.isfinite(again[f"{params.confirm}_p"]).sum())
        confirmed = {"confirmed": fitted, "not_confirmed": len(state.hits.which) - fitted}
        shown |= again
    few = _few(state, total)
    tested = chi[varies & ~few]
    return Result(
        method="association_scan",
        n=frame.rows,
        details={
            "family": params.family,
            "features": features.table(shown, np.flatnonzero(~few)),
            "hidden_features": int(few.sum()),
            "inflation": float(np.median(tested) / 0.45493642311957283) if len(tested) else None,
            **confirmed,
            "left_out_missing": frame.left_out,
        },
    )
