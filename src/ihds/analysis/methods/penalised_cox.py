"""Penalised Cox regression: lasso, ridge and elastic net paths, the penalty chosen by cross-validation.

Model      log partial likelihood / n less lambda (alpha |b|_1 + (1 - alpha) b² / 2), b of standardised
           columns; risk sets pooled over sites on the shared time grid.
Down       beta of every fit that still moves, then its tie sums.
Up         FoldMoments once, then Risks and Curvatures in turns, as sums over sites; Held for the folds.
Rounds     about 14 to 30 for the whole path and all folds at once.
Reveals    sums over those at risk per time bin, over all sites, at the path's coefficients; folds hold
           fewer persons, so their sums are opened to the user's code as those of cox are.
Errors     NoEvents, DidNotConverge, BadInput, BadFormula (site strata).
Source     Simon et al. 2011; Verweij & van Houwelingen 1993 (cross-validated partial likelihood).
           Checked against R glmnet (tests/vectors/penalised_cox.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import gammaln, xlogy

from ihds.analysis import partial
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.partial import CoxParams, RiskSums
from ihds.analysis.penalised import bare, descend, folds_of, without_fold
from ihds.analysis.result import Result
from ihds.analysis.survival import cells_of
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, DidNotConverge

#: A fit stands still when no standardised coefficient moves more than this.
_STILL = 1e-8


@dataclass(frozen=True, slots=True)
class Params(CoxParams):
    """``lambdas`` empty takes ``steps`` penalties from the smallest that leaves no term, downwards.

    ``folds`` 0 fits without cross-validation; a person's rows share a fold.
    """

    ties: Literal["efron", "breslow"] = "breslow"
    alpha: float = 1.0
    lambdas: tuple[float, ...] = ()
    steps: int = 20
    folds: int = 5


@dataclass(frozen=True, slots=True)
class FoldMoments(Contribution):
    """Rows, sums and sums of squares of the columns per fold."""

    rows: Annotated[Vector, Leaves("(folds,)", "rows", bound=1, counts_persons=True)]
    total: Annotated[Matrix, Leaves("(folds, p)", "scaled units", bound=2**15)]
    square: Annotated[Matrix, Leaves("(folds, p)", "scaled units squared", bound=2**30)]


@dataclass(frozen=True, slots=True)
class Risks(Contribution):
    """Sums over those at risk and those with an event, per fit and cell of stratum and time bin."""

    kind: ClassVar[str] = "curve"

    d: Annotated[Matrix, Leaves("(fits, cells)", "events", bound=1)]
    s0: Annotated[Matrix, Leaves("(fits, cells)", "relative hazard")]
    s1: Annotated[Any, Leaves("(fits, cells, p)", "relative hazard x covariate")]
    d0: Annotated[Matrix, Leaves("(fits, cells)", "relative hazard of events")]
    d1: Annotated[Any, Leaves("(fits, cells, p)", "relative hazard x covariate of events")]
    events_x: Annotated[Matrix, Leaves("(fits, p)", "covariate sums of events")]
    events_eta: Annotated[Vector, Leaves("(fits,)", "linear predictor sum of events")]


@dataclass(frozen=True, slots=True)
class Curvatures(Contribution):
    """The second-moment part of each fit's information."""

    kind: ClassVar[str] = "score and information"

    h: Annotated[Any, Leaves("(fits, p, p)", "covariate squared")]


@dataclass(frozen=True, slots=True)
class Held(Contribution):
    """Sums over all those at risk, at the coefficients of the fits that did not see every fold."""

    kind: ClassVar[str] = "curve"

    d: Annotated[Matrix, Leaves("(fits, cells)", "events", bound=1)]
    s0: Annotated[Matrix, Leaves("(fits, cells)", "relative hazard")]
    d0: Annotated[Matrix, Leaves("(fits, cells)", "relative hazard of events")]
    events_eta: Annotated[Vector, Leaves("(fits,)", "linear predictor sum of events")]


CONTRIBUTIONS = (FoldMoments, Risks, Curvatures, Held)


@dataclass(frozen=True, slots=True)
class State:
    """All fits, (folds + 1) x penalties, the whole data first; per-cell arrays are of the open ones."""

    phase: Literal["moments", "first", "sums", "curvature", "held", "done"]
    lambdas: Vector
    rows: Vector
    spread: Matrix
    beta: Matrix
    step: Matrix
    objective: Vector
    deviance: Vector
    moving: Vector
    score: Matrix
    outer: Any
    a: Matrix
    b: Matrix
    held: Vector
    events: Vector
    rounds: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask as cox does; risk sets must be pooled on a shared grid."""
    asked = partial.ask(params, codebook)
    if asked.clock == "own":
        raise BadFormula("penalised_cox takes no strata(site)", remedy="leave it out")
    if not 0 <= params.alpha <= 1:
        raise BadInput(f"alpha is {params.alpha:g}", remedy="give 0 (ridge) to 1 (lasso)")
    if params.folds not in (0, *range(2, 21)) or not 1 <= params.steps <= 100:
        raise BadInput(
            f"folds is {params.folds}, steps {params.steps}", remedy="give 0 or 2 to 20 folds, 1 to 100 steps"
        )
    if any(not 0 < value < 1e15 for value in params.lambdas):
        raise BadInput("a penalty is not positive, or larger than any use", remedy="give positive lambdas")
    return replace(asked, undivided=params.folds > 0)


def begin(params: Params, frame: Frame) -> State:
    """Start before anything is known."""
    flat, none = np.zeros(0), np.zeros((0, len(frame.columns)))
    return State(
        phase="moments",
        lambdas=flat,
        rows=flat,
        spread=none,
        beta=np.zeros((1, len(frame.columns))),
        step=none,
        objective=flat,
        deviance=flat,
        moving=np.ones(1),
        score=none,
        outer=np.zeros((0, 0, 0)),
        a=none,
        b=none,
        held=flat,
        events=flat,
        rounds=0,
    )


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    x = design.x
    if state.phase == "moments":
        fold, folds = folds_of(params.folds, design), max(1, params.folds)
        member = (fold[:, None] == np.arange(folds)).astype(np.float64)
        return FoldMoments(member.sum(axis=0), member.T @ x, member.T @ (x * x))
    size = max(len(state.lambdas), 1)
    if state.phase == "held":
        wanted = range(size, len(state.beta))
        parts = [(design, state.beta[fit]) for fit in wanted]
        sums = [_sums(part, beta) for part, beta in parts]
        return Held(*(np.array([getattr(s, name) for s in sums]) for name in Held.__slots__))
    moving = np.flatnonzero(state.moving)
    parts = [(without_fold(params.folds, design, int(fit) // size), state.beta[fit]) for fit in moving]
    if state.phase in ("first", "sums"):
        sums = [_sums(part, beta) for part, beta in parts]
        return Risks(*(np.array([getattr(s, name) for s in sums]) for name in Risks.__slots__))
    h = [
        partial.second_moment(cells_of(part), part.x, np.exp(part.x @ beta + part.offset), state.a[at], state.b[at])
        for at, (part, beta) in enumerate(parts)
    ]
    return Curvatures(np.array(h))


def _sums(part: Design, beta: Vector) -> RiskSums:
    eta = part.x @ beta + part.offset
    return partial.risk_sums(part, part.x, eta, np.exp(eta))


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        BadInput: a fold has no row.
        DidNotConverge: the rounds are used up.

    """
    state = replace(state, rounds=state.rounds + 1)
    match total:
        case FoldMoments():
            return _measured(params, state, total)
        case Risks() if state.phase == "first":
            return _begun(params, state, partial.likelihood(_of(total, 0), params.ties)[1])
        case Risks():
            return _judged(params, state, total)
        case Curvatures():
            return _stepped(params, state, total)
    whole = np.array([_deviance(params, _of(total, at)) for at in range(len(total.d))])
    return replace(state, phase="done", held=whole - state.deviance[len(state.lambdas) :])


def _deviance(params: Params, sums: RiskSums) -> float:
    """Return twice what the partial likelihood falls short of the largest that these ties allow."""
    d = np.rint(sums.d)
    most = gammaln(d + 1) if params.ties == "efron" else xlogy(d, d)
    return -2 * (float(most.sum()) + partial.log_likelihood(sums, params.ties))


def _of(total: Any, at: int) -> RiskSums:
    """Return one fit's sums."""
    none = np.zeros((total.d.shape[1], 0))
    s1, d1 = (total.s1[at], total.d1[at]) if isinstance(total, Risks) else (none, none)
    events_x = total.events_x[at] if isinstance(total, Risks) else np.zeros(0)
    return RiskSums(total.d[at], total.s0[at], s1, total.d0[at], d1, events_x, float(total.events_eta[at]))


def _measured(params: Params, state: State, total: FoldMoments) -> State:
    """Keep rows and spreads of the whole data and of every training set."""
    if params.folds and np.any(np.rint(total.rows) == 0):
        raise BadInput(f"there are too few persons for {params.folds} folds", remedy="use fewer folds")
    folds = params.folds + 1
    without = np.array([np.zeros(len(total.rows)), *np.eye(len(total.rows))])[:folds]
    rows = total.rows.sum() - without @ total.rows
    mean = (total.total.sum(axis=0) - without @ total.total) / rows[:, None]
    square = (total.square.sum(axis=0) - without @ total.square) / rows[:, None]
    variance = square - mean**2
    spread = np.sqrt(np.where(variance > 1e-12 * square, variance, 0.0))
    state = replace(state, rows=rows, spread=spread)
    if not params.lambdas:
        return replace(state, phase="first")
    return _all_fits(params, replace(state, lambdas=np.sort(np.array(params.lambdas))[::-1]))


def _begun(params: Params, state: State, score: Vector) -> State:
    """Choose the penalties: from the smallest that leaves no term, to a hundredth of it."""
    spread = state.spread[0]
    pull = np.abs(score) / np.where(spread > 0, spread, np.inf) / state.rows[0]
    largest = float(pull.max(initial=0.0)) / max(params.alpha, 1e-3) * (1 + 1e-9)
    return _all_fits(params, replace(state, lambdas=np.geomspace(largest, largest * 1e-2, params.steps)))


def _all_fits(params: Params, state: State) -> State:
    fits, p = (params.folds + 1) * len(state.lambdas), state.spread.shape[1]
    return replace(
        state,
        phase="sums",
        beta=np.zeros((fits, p)),
        step=np.zeros((fits, p)),
        objective=np.full(fits, np.inf),
        deviance=np.zeros(fits),
        moving=np.ones(fits),
        events=np.zeros(fits),
    )


def _judged(params: Params, state: State, total: Risks) -> State:
    """Halve the steps that raised their objective; keep what the others' curvature needs."""
    beta, step, objective, deviance = (v.copy() for v in (state.beta, state.step, state.objective, state.deviance))
    events = state.events.copy()
    score, outer, a, b, halved = [], [], [], [], False
    for at, fit in enumerate(np.flatnonzero(state.moving)):
        value, pull, product, tied = partial.likelihood(_of(total, at), params.ties)
        reached = -value + _cost(params, state, int(fit))
        events[fit] = round(float(total.d[at].sum()))
        if reached > objective[fit] + 1e-9 * max(1.0, abs(reached)):
            step[fit] /= 2
            beta[fit] -= step[fit]
            halved = True
        else:
            objective[fit], deviance[fit] = reached, _deviance(params, _of(total, at))
        score.append(pull)
        outer.append(product)
        a.append(tied.a)
        b.append(tied.b)
    state = replace(state, beta=beta, step=step, objective=objective, deviance=deviance, events=events)
    if halved:
        return _unless_tired(params, state)
    return replace(state, phase="curvature", score=np.array(score), outer=np.array(outer), a=np.array(a), b=np.array(b))


def _cost(params: Params, state: State, fit: int) -> float:
    part, penalty = divmod(fit, len(state.lambdas))
    size = np.abs(state.beta[fit]) * state.spread[part]
    weight = float(state.rows[part] * state.lambdas[penalty])
    return weight * float(params.alpha * size.sum() + (1 - params.alpha) * size @ size / 2)


def _stepped(params: Params, state: State, total: Curvatures) -> State:
    """Take a proximal Newton step in every fit that still moves."""
    beta, step, moving = state.beta.copy(), state.step.copy(), state.moving.copy()
    for at, fit in enumerate(np.flatnonzero(state.moving)):
        part, penalty = divmod(int(fit), len(state.lambdas))
        spread = state.spread[part]
        flat = spread <= 0
        h = np.where(np.logical_or.outer(flat, flat), 0.0, total.h[at] - state.outer[at])
        g = np.where(flat, 0.0, state.score[at] + h @ beta[fit])
        weight = state.rows[part] * state.lambdas[penalty] * spread
        new = descend(h, g, beta[fit], params.alpha * weight, (1 - params.alpha) * weight * spread)
        step[fit] = new - beta[fit]
        beta[fit] = new
        moving[fit] = float(np.max(np.abs(step[fit]) * spread, initial=0.0) >= _STILL)
    state = replace(state, phase="sums", beta=beta, step=step, moving=moving)
    if moving.any():
        return _unless_tired(params, state)
    return replace(state, phase="held" if params.folds else "done")


def _unless_tired(params: Params, state: State) -> State:
    if state.rounds >= 2 * params.max_rounds:
        raise DidNotConverge(
            f"penalised_cox: {int(state.moving.sum())} fits still move after {state.rounds} rounds",
            remedy="use larger penalties, or raise max_rounds",
        )
    return state


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the path and, with folds, the penalty that predicts best."""
    if state.phase != "done":
        return None
    size = len(state.lambdas)
    path = state.beta[:size] / frame.scale
    chosen = size - 1
    details: dict[str, Any] = {
        "alpha": params.alpha,
        "lambda": [float(v) for v in state.lambdas],
        "path": [[float(v) for v in row] for row in path],
        "terms_left": [int(np.count_nonzero(row)) for row in path],
        "left_out_missing": frame.left_out,
    }
    if params.folds:
        mean, spread = _scores(params, state)
        chosen = int(np.argmin(mean))
        simplest = int(np.flatnonzero(mean <= mean[chosen] + spread[chosen])[0])
        details |= {
            "loss": "mean partial deviance per event",
            "loss_mean": [float(v) for v in mean],
            "loss_se": [float(v) for v in spread],
            "lambda_best": details["lambda"][chosen],
            "lambda_simplest_within_one_se": details["lambda"][simplest],
        }
    return Result(
        method="penalised_cox",
        n=frame.rows,
        events=round(float(state.events[0])),
        coefficients=bare(frame.columns, path[chosen]),
        details=details,
    )


def _scores(params: Params, state: State) -> tuple[Vector, Vector]:
    """Return, per penalty, the mean partial deviance of the folds left out, per event, and its standard error."""
    size = len(state.lambdas)
    gone = state.events[0] - state.events[size::size]  # events in each fold
    weight = np.maximum(gone, 0.0)
    losses = state.held.reshape(params.folds, size) / np.maximum(weight, 1.0)[:, None]
    mean = weight @ losses / max(float(weight.sum()), 1.0)
    spread = np.sqrt(weight @ (losses - mean) ** 2 / max(float(weight.sum()), 1.0) / (params.folds - 1))
    return np.asarray(mean), np.asarray(spread)
