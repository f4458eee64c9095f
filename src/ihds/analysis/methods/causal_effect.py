"""The average effect of a treatment: inverse probability weighting and its doubly robust form, with balance.

Model      propensity e = P(treated | x), logistic; weights 1 / e and 1 / (1 - e); outcome models per arm,
           linear or logistic in the same covariates; AIPW joins both and needs only one to be right.
Down       the coefficients of the propensity and of the outcome models.
Up         Magnitudes and Means of the outcome, Likelihood in turns, ArmSums in turns, then Effects, as
           sums over sites; a person's propensity or weight never leaves.
Rounds     about 10; 15 for binary outcomes.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10; tenths of the
           propensity are hidden below min_cell persons.
Errors     Separation (some covariates decide the treatment), Collinear, BadFormula, Refused.
Source     Robins, Rotnitzky & Zhao 1994; Austin & Stuart 2015 (balance). Variances: the sandwich with
           weights taken as known, and the influence function. Checked against R (tests/vectors/causal.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis import features, likelihood
from ihds.analysis.arms import balance
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import weighted_gram
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.result import Result, wald_row
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, BadTable, Refused
from ihds.privacy.disclosure import suppress


@dataclass(frozen=True, slots=True)
class Params:
    """The formula is the treatment's (0 or 1) on the covariates; ``trim`` bounds propensities away from 0 and 1."""

    formula: str
    outcome: str
    family: Literal["gaussian", "binomial"] = "gaussian"
    trim: float = 0.0
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class ArmSums(Contribution):
    """Score and information of the outcome model in each arm; ``wrong`` counts outcomes that do not fit."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Vector, Leaves("(2 p,)", "1 / parameter")]
    information: Annotated[Matrix, Leaves("(2 p, 2 p)", "1 / parameter squared")]
    log_likelihood: Annotated[float, Leaves("()", "1")]
    wrong: Annotated[float, Leaves("()", "rows", bound=1)]


@dataclass(frozen=True, slots=True)
class Effects(Contribution):
    """Weighted moments of outcome and covariates per arm, and moments of the influence function."""

    kind: ClassVar[str] = "moment"

    persons: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    weight: Annotated[Vector, Leaves("(2,)", "weights", bound=2**16)]
    outcome: Annotated[Vector, Leaves("(2,)", "weights x outcome", bound=2**20)]
    square: Annotated[Matrix, Leaves("(2, 3)", "squared weights x 1, outcome, outcome squared", bound=2**26)]
    influence: Annotated[Vector, Leaves("(2,)", "influence and its square", bound=2**26)]
    plain: Annotated[Matrix, Leaves("(2, 2 p)", "covariates and their squares", bound=2**16)]
    balanced: Annotated[Matrix, Leaves("(2, p)", "weights x covariates", bound=2**16)]
    spread: Annotated[Matrix, Leaves("(2, 2)", "scaled units squared, and to the fourth", bound=features.MOST)]
    tenths: Annotated[Matrix, Leaves("(2, 10)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (Magnitudes, Means, Likelihood, ArmSums, Effects)


@dataclass(frozen=True, slots=True)
class State:
    """The outcome's scale, both fits, and the opened sums."""

    scale: Scale
    propensity: Fit
    arms: Fit
    total: Effects | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the treatment, the covariates and the outcome."""
    formula = plain_formula(params.formula, codebook, "causal_effect")
    if not formula.terms:
        raise BadFormula(f"{params.formula!r} names no covariate", remedy="write treated ~ age + stage")
    if not 0 <= params.trim < 0.5:
        raise BadInput(f"trim is {params.trim:g}", remedy="give 0 to less than 0.5, for example 0.01")
    found = codebook.variable(params.outcome)
    if found.kind != "number" or params.outcome in formula.variables:
        raise BadFormula(f"the outcome {params.outcome!r} is no number of its own", remedy="name another variable")
    return Ask(formula=formula, outcome="binary", covariates="matrix", sets=2, features=(params.outcome,))


def begin(params: Params, frame: Frame) -> State:
    """Start both models at nothing."""
    p = len(frame.columns)
    propensity = likelihood.begin(frame.columns, np.zeros(p))
    terms = tuple(f"{arm}: {c}" for arm in ("treated", "untreated") for c in frame.columns)
    return State(features.begin(frame), propensity, likelihood.begin(terms, np.zeros(2 * p)), None)


def _outcome(params: Params, state: State, design: Design) -> tuple[Any, Vector]:
    """Return who has an outcome, and the outcome, scaled if it is a number, 0 where it is missing."""
    value = design.features[:, 0]
    held = np.isfinite(value)
    if params.family == "gaussian":
        value = (value - state.scale.centre[0]) / state.scale.scale[0]
    return held, np.where(held, value, 0.0)


def _mean(params: Params, eta: Vector) -> Vector:
    return np.asarray(expit(eta)) if params.family == "binomial" else eta


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for; rows without an outcome count nowhere."""
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    held, y = _outcome(params, state, design)
    x, treated = design.x, design.y > 0.5
    if state.propensity.phase != "done":
        eta = x @ state.propensity.at
        mean = expit(eta)
        value = float((held * (treated * eta - np.logaddexp(0, eta))).sum())
        return Likelihood(x.T @ (held * (treated - mean)), weighted_gram(x, held * mean * expit(-eta)), value)
    arms = (held & treated, held & ~treated)
    p = x.shape[1]
    if state.arms.phase != "done":
        return _arm_sums(params, state, x, y, held, arms)
    e = np.clip(expit(x @ state.propensity.at), params.trim, 1 - params.trim)
    chance = (e, 1 - e)
    m1, m0 = (_mean(params, x @ at) for at in state.arms.at.reshape(2, p))
    influence = m1 - m0 + treated * (y - m1) / e - ~treated * (y - m0) / (1 - e)
    influence = np.where(held, influence, 0.0)
    tenth = np.minimum((e * 10).astype(np.int64), 9)
    weights = [np.where(arm, 1 / c, 0.0) for arm, c in zip(arms, chance, strict=True)]
    return Effects(
        persons=np.array([float(a.sum()) for a in arms]),
        weight=np.array([w.sum() for w in weights]),
        outcome=np.array([w @ y for w in weights]),
        square=np.array([[w @ w, w**2 @ y, w**2 @ y**2] for w in weights]),
        influence=np.array([influence.sum(), influence @ influence]),
        plain=np.array([np.concatenate([a @ x, a @ x**2]) for a in arms], dtype=np.float64).reshape(2, 2 * p),
        balanced=np.array([w @ x for w in weights]).reshape(2, p),
        spread=np.concatenate([features.weights(_about(state, design, arm), design.person[arm]) for arm in arms]),
        tenths=np.array([np.bincount(tenth[a], minlength=10) for a in arms], dtype=np.float64),
    )


def _about(state: State, design: Design, arm: Any) -> Matrix:
    """Return an arm's outcomes about the mean of all (n, 1)."""
    return (design.features[arm] - state.scale.centre) / state.scale.scale


def _arm_sums(params: Params, state: State, x: Matrix, y: Vector, held: Any, arms: tuple[Any, Any]) -> ArmSums:
    p = x.shape[1]
    score, information, value = np.zeros(2 * p), np.zeros((2 * p, 2 * p)), 0.0
    for number, arm in enumerate(arms):
        part = slice(number * p, (number + 1) * p)
        eta = x[arm] @ state.arms.at[part]
        mean = _mean(params, eta)
        weight = mean * (1 - mean) if params.family == "binomial" else np.ones(len(eta))
        score[part] = x[arm].T @ (y[arm] - mean)
        information[part, part] = weighted_gram(x[arm], weight)
        gaussian = -0.5 * float(np.sum((y[arm] - eta) ** 2))
        value += gaussian if params.family == "gaussian" else float((y[arm] * eta - np.logaddexp(0, eta)).sum())
    wrong = float(np.sum(held & (y != 0) & (y != 1))) if params.family == "binomial" else 0.0
    return ArmSums(score, information, value, wrong)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        BadTable: a binary outcome is not coded 0 and 1.
        Refused: too few persons have an outcome.

    """
    match total:
        case Likelihood():
            fit = likelihood.newton(state.propensity, total, "causal_effect: propensity", params.max_rounds)
            return replace(state, propensity=fit)
        case ArmSums():
            if total.wrong:
                raise BadTable(f"{params.outcome!r} is not coded 0 and 1", remedy="recode it, or use family = gaussian")
            whole = Likelihood(total.score, total.information, total.log_likelihood)
            return replace(
                state, arms=likelihood.newton(state.arms, whole, "causal_effect: outcome", params.max_rounds)
            )
        case Effects():
            return replace(state, total=total)
    scale = features.scaled(state.scale, total)
    features.refuse_few(scale, f"the outcome {params.outcome!r}")
    return replace(state, scale=scale)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return both estimates of the average effect, and how well weighting balances the covariates.

    Raises:
        Refused: an arm has too few persons.

    """
    total = state.total
    if total is None:
        return None
    unit = float(state.scale.scale[0]) if params.family == "gaussian" else 1.0
    centre = float(state.scale.centre[0]) if params.family == "gaussian" else 0.0
    n = float(total.persons.sum())
    few = features.resting(total.spread, frame.min_cell)
    if bool(np.any((total.persons < max(frame.min_cell, 1)) | few)):
        raise Refused(
            "the outcome of one arm rests on too few persons",
            reasons=(f"min_cell: at least {max(frame.min_cell, 1)} persons in each arm",),
            remedy="name another treatment or outcome",
        )
    mean = total.outcome / total.weight
    w2, w2y, w2y2 = total.square.T
    spread = (w2y2 - 2 * mean * w2y + mean**2 * w2) / total.weight**2
    effect = float(mean[0] - mean[1])
    robust = float(total.influence[0] / n)
    variance = max(float(total.influence[1]) - n * robust**2, 0.0) / n**2
    left_out = frame.left_out + frame.rows - round(n)
    return Result(
        method="causal_effect",
        n=round(n),
        coefficients=(
            wald_row("effect by weighting", effect * unit, float(np.sqrt(spread.sum())) * unit, np.inf),
            wald_row("effect, doubly robust", robust * unit, float(np.sqrt(variance)) * unit, np.inf),
        ),
        details={
            "outcome": params.outcome,
            "means": {"treated": float(mean[0]) * unit + centre, "untreated": float(mean[1]) * unit + centre},
            "persons": {"treated": round(float(total.persons[0])), "untreated": round(float(total.persons[1]))},
            "effective_persons": {
                arm: float(total.weight[k] ** 2 / w2[k]) for k, arm in enumerate(("treated", "untreated"))
            },
            "balance": balance(frame.columns, total.persons, total.plain, total.weight, total.balanced),
            "propensity_tenths": {
                arm: suppress(np.rint(total.tenths[k]), max(frame.min_cell, 1))
                for k, arm in enumerate(("treated", "untreated"))
            },
            "propensity": dict(
                zip(frame.columns, (float(v) for v in frame.transform @ state.propensity.at), strict=True)
            ),
            "left_out_missing": left_out if left_out >= frame.min_cell else 0,
        },
    )
