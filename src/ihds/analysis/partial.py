"""The partial likelihood of proportional hazards as sums: Newton's method that Cox methods share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import SETTLED, has_settled, invert, newton_decrement, runs_away, weighted_gram
from ihds.analysis.outcomes import own_clusters
from ihds.analysis.rows import distinct
from ihds.analysis.survival import Ties, break_ties, cells_of, grid_end, grid_width, survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, DidNotConverge, Separation


@dataclass(frozen=True, slots=True)
class CoxParams:
    """``time_bin`` None takes the codebook's unit or 30 days; 0 asks for exact times."""

    formula: str
    ties: Literal["efron", "breslow"] = "efron"
    time_bin: float | None = None
    horizon: float | None = None
    robust: bool | None = None
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class RiskSums(Contribution):
    """Sums over those at risk and those with an event, per cell of stratum and time bin."""

    kind: ClassVar[str] = "curve"

    d: Annotated[Vector, Leaves("(cells,)", "events", bound=1)]
    s0: Annotated[Vector, Leaves("(cells,)", "relative hazard")]
    s1: Annotated[Matrix, Leaves("(cells, p)", "relative hazard x covariate")]
    d0: Annotated[Vector, Leaves("(cells,)", "relative hazard of events")]
    d1: Annotated[Matrix, Leaves("(cells, p)", "relative hazard x covariate of events")]
    events_x: Annotated[Vector, Leaves("(p,)", "covariate sums of events")]
    events_eta: Annotated[float, Leaves("()", "linear predictor sum of events")]
    dw: Annotated[Vector, Leaves("(cells,), none without weights", "weights of events")] = field(
        default_factory=lambda: np.zeros(0)
    )


@dataclass(frozen=True, slots=True)
class Curvature(Contribution):
    """The second-moment part of the information; S2(t) itself never leaves a site."""

    kind: ClassVar[str] = "score and information"

    h: Annotated[Matrix, Leaves("(p, p)", "covariate squared")]


@dataclass(frozen=True, slots=True)
class Score(Contribution):
    """Everything a site-stratified fit needs: the site's own partial likelihood, summed."""

    kind: ClassVar[str] = "score and information"

    events: Annotated[float, Leaves("()", "events", bound=1)]
    log_likelihood: Annotated[float, Leaves("()", "1")]
    score: Annotated[Vector, Leaves("(p,)", "covariate")]
    information: Annotated[Matrix, Leaves("(p, p)", "covariate squared")]


@dataclass(frozen=True, slots=True)
class Meat(Contribution):
    """Sum over clusters of the outer product of their score residuals."""

    kind: ClassVar[str] = "score and information"

    meat: Annotated[Matrix, Leaves("(p, p)", "covariate squared", bound=2**16)]
    clusters: Annotated[float, Leaves("()", "clusters", bound=1)]


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state on centred, scaled columns; per-cell arrays are what the sites need next."""

    phase: Literal["sums", "curvature", "score", "meat", "done"]
    terms: tuple[str, ...]
    beta: Vector
    step: Vector
    gains: tuple[float, float, float]
    log_likelihood: float
    null_log_likelihood: float
    null_score: Vector
    null_information: Matrix
    score: Vector
    outer: Matrix
    covariance: Matrix
    robust: Matrix
    clusters: int
    events: int
    a: Vector
    b: Vector
    ax: Matrix
    bx: Matrix
    mean: Matrix
    rounds: int
    halvings: int


def ask(params: CoxParams, codebook: Codebook) -> Ask:
    """Ask for a survival outcome, a model matrix and a shared or the site's own clock."""
    formula = survival_formula(params.formula, codebook)
    if not formula.terms:
        raise BadFormula(f"{params.formula!r} has no covariate", remedy="add one, or use kaplan_meier")
    formula = replace(
        own_clusters(formula, codebook), intercept=True
    )  # as coxph: categories keep their reference level
    own = "site" in formula.strata
    return Ask(
        formula=formula,
        outcome="survival",
        covariates="matrix",
        clock="own" if own else "grid",
        time_bin=0.0 if own else grid_width(params.time_bin, formula, codebook),
        horizon=grid_end(params.horizon, formula, codebook),
    )


def wants_robust(params: CoxParams) -> bool:
    """Return whether to report the robust variance: if asked, or with a cluster or weights, as in R."""
    if params.robust is None:
        return any(f"{word}(" in params.formula for word in ("cluster", "weights"))
    return params.robust


def begin(params: CoxParams, frame: Frame) -> State:
    """Start at beta = 0."""
    p = len(frame.columns)
    none, flat = np.zeros((0, p)), np.zeros(0)
    own = frame.time_bin == 0 and not len(frame.times)
    return State(
        phase="score" if own else "sums",
        terms=frame.columns,
        beta=np.zeros(p),
        step=np.full(p, np.inf),
        gains=(np.inf, np.inf, np.inf),
        log_likelihood=-np.inf,
        null_log_likelihood=-np.inf,
        null_score=np.zeros(p),
        null_information=np.zeros((p, p)),
        score=np.zeros(p),
        outer=np.zeros((p, p)),
        covariance=np.zeros((p, p)),
        robust=np.zeros((0, 0)),
        clusters=0,
        events=0,
        a=flat,
        b=flat,
        ax=none,
        bx=none,
        mean=none,
        rounds=0,
        halvings=0,
    )


def local(params: CoxParams, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    x = design.x
    with np.errstate(over="ignore"):
        eta = x @ state.beta + design.offset
        risk = np.exp(eta)
        risk = risk * design.weight if design.weight is not None else risk
    match state.phase:
        case "sums":
            return risk_sums(design, x, eta, risk)
        case "curvature":
            cells = cells_of(design)
            return Curvature(second_moment(cells, x, risk, state.a, state.b))
        case "score":
            return _score(params, design, x, eta, risk)
        case _:
            per_cell: Any = state
            if not len(design.frame.times):
                sums = risk_sums(design, x, eta, risk)
                per_cell = _explained(state, sums, params.ties)
            return _meat(design, x, risk, per_cell)


def risk_sums(design: Design, x: Matrix, eta: Vector, risk: Vector) -> RiskSums:
    """Return the sums over those at risk, and over events, per cell; ``risk`` (n,) is times the weights."""
    cells = cells_of(design)
    weighted = risk[:, None] * np.column_stack([np.ones(len(risk)), x])
    at_risk, at_event = cells.at_risk(weighted), cells.at_event(weighted)
    events = cells.event_order
    weight = design.weight[events] if design.weight is not None else np.ones(len(events))
    return RiskSums(
        d=np.diff(cells.event_first).astype(float),
        s0=at_risk[:, 0],
        s1=at_risk[:, 1:],
        d0=at_event[:, 0],
        d1=at_event[:, 1:],
        events_x=weight @ x[events],
        events_eta=float(weight @ eta[events]),
        dw=cells.at_event(design.weight) if design.weight is not None else np.zeros(0),
    )


def second_moment(cells: Any, x: Matrix, risk: Vector, a: Vector, b: Vector) -> Matrix:
    """Return the sum over cells of a S2 - b D2 (p, p); a and b are per cell."""
    weight = risk * cells.over_risk(a)
    events = cells.event_order
    weight[events] -= risk[events] * b[cells.exit[events]]
    return weighted_gram(x, weight)


def _score(params: CoxParams, design: Design, x: Matrix, eta: Vector, risk: Vector) -> Score:
    sums = risk_sums(design, x, eta, risk)
    log_likelihood, score, outer, tied = likelihood(sums, params.ties)
    h = second_moment(cells_of(design), x, risk, tied.a, tied.b)
    return Score(float(sums.d.sum()), log_likelihood, score, h - outer)


def likelihood(sums: RiskSums, ties: str) -> tuple[float, Vector, Matrix, Ties]:
    """Return log partial likelihood, score, sum of mean outer products, and the tie sums."""
    tied = break_ties(sums.d, sums.s0, sums.d0, ties, sums.dw)
    log_likelihood = sums.events_eta - float(tied.log.sum())
    score = sums.events_x - (tied.a @ sums.s1 - tied.b @ sums.d1)
    cross = sums.s1.T @ (tied.ab[:, None] * sums.d1)
    outer = sums.s1.T @ (tied.aa[:, None] * sums.s1) - cross - cross.T + sums.d1.T @ (tied.bb[:, None] * sums.d1)
    return log_likelihood, score, outer, tied


def log_likelihood(sums: RiskSums, ties: str) -> float:
    """Return the log partial likelihood; the covariates' sums are not looked at."""
    return sums.events_eta - float(break_ties(sums.d, sums.s0, sums.d0, ties, sums.dw).log.sum())


def _explained(state: State, sums: RiskSums, ties: str) -> State:
    """Return the state with the per-cell quantities that score residuals need."""
    tied = break_ties(sums.d, sums.s0, sums.d0, ties, sums.dw)
    d = np.where(sums.d > 0.5, sums.dw if len(sums.dw) else sums.d, 1.0)[:, None]
    return replace(
        state,
        a=tied.a,
        b=tied.b,
        ax=tied.aa[:, None] * sums.s1 - tied.ab[:, None] * sums.d1,
        bx=tied.ab[:, None] * sums.s1 - tied.bb[:, None] * sums.d1,
        mean=(tied.a[:, None] * sums.s1 - tied.b[:, None] * sums.d1) / d,
    )


def _meat(design: Design, x: Matrix, risk: Vector, state: State) -> Meat:
    cells = cells_of(design)
    events = cells.event_order
    at = cells.exit[events]
    residual = -risk[:, None] * (cells.over_risk(state.a)[:, None] * x - cells.over_risk(state.ax))
    own = design.weight[events, None] if design.weight is not None else 1.0
    residual[events] += own * (x[events] - state.mean[at])
    residual[events] += risk[events, None] * (state.b[at, None] * x[events] - state.bx[at])
    count = int(design.cluster.max()) + 1 if len(design.cluster) else 0
    by_cluster = np.zeros((count, x.shape[1]))
    np.add.at(by_cluster, design.cluster, residual)
    return Meat(by_cluster.T @ by_cluster, float(distinct(design.cluster)))


def aggregate(params: CoxParams, state: State, total: Any) -> State:
    """Take a total: evaluate the likelihood, or take a Newton step, or finish the variance."""
    state = replace(state, rounds=state.rounds + 1)
    match total:
        case RiskSums():
            log_likelihood, score, outer, _ = likelihood(total, params.ties)
            state = replace(state, events=round(float(total.d.sum())))
            if _worse(state, log_likelihood):
                return _halve(state)
            explained = _explained(state, total, params.ties)
            return replace(
                explained,
                phase="curvature",
                score=score,
                outer=outer,
                null_log_likelihood=log_likelihood if state.rounds == 1 else state.null_log_likelihood,
                null_score=score if state.rounds == 1 else state.null_score,
                log_likelihood=log_likelihood,
            )
        case Curvature():
            return _newton(params, state, total.h - state.outer, "sums")
        case Score():
            state = replace(state, events=round(total.events))
            if _worse(state, total.log_likelihood):
                return _halve(state)
            if state.rounds == 1:
                state = replace(state, null_log_likelihood=total.log_likelihood, null_score=total.score)
            state = replace(state, score=total.score, log_likelihood=total.log_likelihood)
            return _newton(params, state, total.information, "score")
        case Meat():
            robust = state.covariance @ total.meat @ state.covariance
            return replace(state, phase="done", robust=robust, clusters=round(total.clusters))
    raise DidNotConverge(f"unexpected total {type(total).__name__}")


def _worse(state: State, log_likelihood: float) -> bool:
    known = np.isfinite(state.log_likelihood)
    slack = 1e-9 * abs(state.log_likelihood) if known else 0.0
    return bool(known and not log_likelihood >= state.log_likelihood - slack and state.halvings < 20)


def _halve(state: State) -> State:
    step = state.step / 2
    phase: Any = "score" if state.phase == "score" else "sums"
    return replace(state, phase=phase, beta=state.beta - step, step=step, halvings=state.halvings + 1)


def _newton(params: CoxParams, state: State, information: Matrix, phase: Any) -> State:
    covariance = invert(information, state.terms)
    if not state.null_information.any():
        state = replace(state, null_information=information)
    step = covariance @ state.score
    gain = newton_decrement(step, state.score)
    gains = (*state.gains[1:], gain)
    state = replace(state, covariance=covariance, gains=gains)
    robust = wants_robust(params)  # its sums are of the means before this step, so no step may be left
    if has_settled(gain, gains[1]) and not (robust and gain > SETTLED**2):
        done: Any = "meat" if robust else "done"
        return replace(state, phase=done, beta=state.beta + step, step=step)
    if runs_away(gains):
        term = state.terms[int(np.argmax(np.abs(step)))]
        raise Separation(
            f"{term!r} predicts the event perfectly, so its coefficient is infinite",
            remedy="leave it out, merge categories, or use a penalised model",
        )
    if state.rounds >= params.max_rounds:
        raise DidNotConverge(
            f"cox: the last step was {np.sqrt(gain):.1e} standard errors after {state.rounds} rounds",
            remedy="look for a rare category, or raise max_rounds",
        )
    return replace(state, phase=phase, beta=state.beta + step, step=step, halvings=0)
