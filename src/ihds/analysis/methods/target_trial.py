"""A trial emulated from observed starts of treatment: clones, censored where they deviate, weighted for it.

Model      two strategies from time 0: start treatment within a grace period, or do not. Each person is in
           both arms, and leaves an arm on deviating: the first at the end of the grace period if untreated,
           the second on starting within it. What this selects is undone by weights 1 / P(not deviated | x):
           logistic among those followed beyond the grace period (first arm), pooled logistic over intervals
           among those untreated and followed beyond each (second); stabilised, cut at public bounds.
Down       the coefficients of the weights' models, then the Cox model's, then the hazards of both curves.
Up         Starts, Likelihood in turns, Weighing, RiskSums and Curvature in turns, Meat, ArmExits, Spread, as
           sums over sites; clones are made and weighted at the site and never leave.
Rounds     about 20.
Reveals    two weighted curves that share their steps, each of min_cell persons of every kind: who is in
           both arms, in one alone, who starts, who lets the grace period pass. Clones are one person, for
           thresholds and for variances.
Errors     Separation, Collinear, NoEvents, Refused, BadTable.
Source     Cain et al. 2010; Hernan & Robins 2016; Maringe et al. 2020. The variance is the sandwich with weights
           taken as known. Checked against R glm, survival::coxph and survfit on clones written out
           (tests/vectors/weighted.R).
Status     experimental
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis import arms, clones, likelihood, partial
from ihds.analysis.arms import ArmExits, Curves, Spread
from ihds.analysis.clones import Clones, Flags, Weight
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import weighted_gram
from ihds.analysis.partial import Curvature, Meat, RiskSums
from ihds.analysis.result import Result
from ihds.analysis.rows import distinct
from ihds.analysis.survival import grid_end, grid_width, survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, BadTable, Refused


@dataclass(frozen=True, slots=True)
class Params:
    """The covariates are those of the weights; ``treated_at`` is the time of the start, missing for never.

    ``cuts`` are the ends of intervals within the grace period, in which starting is modelled; by default the
    period is one. ``bounds`` are the lowest and the highest weight, beyond which weights are cut.
    """

    formula: str
    treated_at: str
    grace: float
    cuts: tuple[float, ...] = ()
    stabilised: bool = True
    bounds: tuple[float, ...] = ()
    ties: Literal["efron", "breslow"] = "efron"
    time_bin: float | None = None
    horizon: float | None = None
    tau: float | None = None
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class Starts(Contribution):
    """Who follows which strategy, and who deviates from it when.

    ``persons``: untreated beyond the grace period, and treated within it; ``events`` of each arm's clones.
    ``seen`` and ``left``: those of whom each intercept of the weights' models tells, and of them the deviating.
    """

    kind: ClassVar[str] = "count table"

    persons: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    events: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(2,)", "sites with such persons", bound=1, per="site")]
    seen: Annotated[Vector, Leaves("(1 + intervals,)", "persons", bound=1, counts_persons=True)]
    left: Annotated[Vector, Leaves("(1 + intervals,)", "persons", bound=1, counts_persons=True)]
    wrong: Annotated[Vector, Leaves("(2,)", "rows: treated before time 0, a person's second", bound=1)]


@dataclass(frozen=True, slots=True)
class Weighing(Contribution):
    """What the weights do beyond the grace period: sums and squares, of all and of events; covariates with and without.

    The treated come first.
    """

    kind: ClassVar[str] = "moment"

    moments: Annotated[Matrix, Leaves("(4, 2)", "weights and their squares", bound=2**26)]
    persons: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    cut: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    plain: Annotated[Matrix, Leaves("(2, 2 p)", "covariates and their squares", bound=2**16)]
    balanced: Annotated[Matrix, Leaves("(2, p)", "weights x covariates", bound=2**16)]


CONTRIBUTIONS = (Starts, Likelihood, Weighing, RiskSums, Curvature, Meat, ArmExits, Spread)


@dataclass(frozen=True, slots=True)
class State:
    """What is known: the counts, the fit of the weights' models, what weights do, the Cox model, the curves."""

    starts: Starts | None
    fit: Fit
    weighing: Weighing | None
    cox: partial.State
    curves: Curves


STATE = State
_COARSE = "who starts is not weighed for before the end of the grace period: give cuts within it"
TERM = "treated within the grace period"


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the outcome, the covariates of the weights and the time of the start, which rows may lack."""
    formula = survival_formula(params.formula, codebook)
    if len(formula.response) != 2 or not formula.terms:
        raise BadFormula(f"{params.formula!r} is no outcome on covariates", remedy="write Surv(time, event) ~ age")
    if formula.strata or formula.cluster or formula.offset:
        raise BadFormula("target_trial takes no strata(), cluster() or offset()", remedy="leave it out")
    found = codebook.variable(params.treated_at)
    if found.kind != "number" or params.treated_at in formula.variables:
        raise BadFormula(
            f"the start {params.treated_at!r} is no number of its own", remedy="name the time of the start"
        )
    width = grid_width(params.time_bin, formula, codebook)
    ends = np.array([0.0, *params.cuts, params.grace])
    off = width > 0 and np.abs(ends / max(width, 1e-300) - np.rint(ends / max(width, 1e-300))).max() > 1e-9
    if np.any(np.diff(ends) <= 0) or off:
        raise BadInput(
            f"grace {params.grace:g} and cuts {params.cuts} are not positive times that rise on the grid of {width:g}",
            remedy=f"give whole multiples of {width:g}, cuts before the end of the grace period",
        )
    if params.bounds and (len(params.bounds) != 2 or not 0 <= params.bounds[0] <= 1 <= params.bounds[1]):
        raise BadInput(f"bounds are {params.bounds}", remedy="give the lowest and the highest weight, as 0.1, 10")
    if params.tau is not None and params.tau <= 0:
        raise BadInput(f"tau is {params.tau:g}", remedy="give a positive time")
    return Ask(
        formula=replace(formula, intercept=True),
        outcome="survival",
        covariates="matrix",
        clock="grid",
        time_bin=width,
        horizon=grid_end(params.horizon, formula, codebook),
        sets=2,
        extra=1 + len(_ends(params)),
        features=(params.treated_at,),
    )


def _ends(params: Params) -> tuple[float, ...]:
    """Return the ends of the intervals in which starting is modelled; the last is that of the grace period."""
    return (*params.cuts, params.grace)


def _names(params: Params) -> tuple[str, str]:
    return f"not within {params.grace:g}", f"within {params.grace:g}"


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    edges = [f"({a:g}, {b:g}]" for a, b in zip((0.0, *params.cuts), _ends(params), strict=True)]
    terms = ["not started", *(f"not started: {c}" for c in frame.columns)]
    terms += [*(f"started {e}" for e in edges), *(f"started: {c}" for c in frame.columns)]
    fit = likelihood.begin(tuple(terms), np.zeros(len(terms)))
    return State(None, fit, None, arms.hazards(frame, TERM), arms.begin(params.tau))


def _models(params: Params, width: float, followed: Clones) -> Iterator[tuple[int, Flags, Flags]]:
    """Return, per intercept of the weights' models, its number, whom it tells of, and who of them deviates."""
    ends = clones.on_grid(np.array(_ends(params)), width)
    yield 0, followed.time > ends[-1], ~followed.started
    before = -np.inf
    for number, end in enumerate(ends, start=1):
        yield number, (followed.treated_at > before) & (followed.time > end), followed.treated_at <= end
        before = end


def _places(params: Params, number: int, p: int) -> tuple[int, slice]:
    """Return where in the parameters an intercept and the coefficients with it stand."""
    if number == 0:
        return 0, slice(1, 1 + p)
    return p + number, slice(1 + p + len(_ends(params)), 1 + 2 * p + len(_ends(params)))


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    followed = clones.follow(design, params.grace)
    if state.starts is None:
        return _starts(params, followed, design)
    if state.fit.phase != "done":
        return _likelihood(params, state.fit, followed, design)
    weights = _weights(params, state, design)
    if state.weighing is None:
        return _weighing(params, followed, weights, design)
    key = state.fit.at.tobytes()
    if design.cache.get("clones", (b"",))[0] != key:
        design.cache["clones"] = key, clones.expanded(followed, weights, design)
    whole: Design = design.cache["clones"][1]
    if state.cox.phase != "done":
        return partial.local(arms.model(params.ties, params.max_rounds), state.cox, whole)
    apart = clones.kinds(followed, design)
    return arms.local(state.curves, whole, apart, clones.alone(apart))


def _starts(params: Params, followed: Clones, design: Design) -> Starts:
    untreated = ~followed.started & followed.past
    persons = np.array([untreated.sum(), followed.started.sum()], dtype=np.float64)
    told = [
        (float(seen.sum()), float((seen & left).sum()))
        for _, seen, left in _models(params, design.frame.time_bin, followed)
    ]
    seen, left = np.array(told).T
    early = float(np.sum(design.features[:, 0] < 0))
    return Starts(
        persons=persons,
        events=followed.had.sum(axis=1).astype(np.float64),
        sites=(persons > 0).astype(np.float64),
        seen=seen,
        left=left,
        wrong=np.array([early, float(len(followed.time) - distinct(design.person))]),
    )


def _likelihood(params: Params, fit: Fit, followed: Clones, design: Design) -> Likelihood:
    x, width = design.x, design.frame.time_bin
    q, p = len(fit.at), x.shape[1]
    score, information, value = np.zeros(q), np.zeros((q, q)), 0.0
    for number, seen, left in _models(params, width, followed):
        intercept, slopes = _places(params, number, p)
        at = np.concatenate([[intercept], np.arange(slopes.start, slopes.stop)])
        z = np.column_stack([np.ones(int(seen.sum())), x[seen]])
        eta, y = z @ fit.at[at], left[seen]
        mean = expit(eta)
        value += float((y * eta - np.logaddexp(0, eta)).sum())
        score[at] += z.T @ (y - mean)
        information[np.ix_(at, at)] += weighted_gram(z, mean * expit(-eta))
    return Likelihood(score, information, value)


def _weights(params: Params, state: State, design: Design) -> list[Weight]:
    """Return what the clones of each arm weigh from the end of each interval on; before the first they weigh 1."""
    assert state.starts is not None
    share = np.rint(state.starts.left) / np.rint(state.starts.seen)
    low, high = params.bounds or (0.0, np.inf)
    x, ends = design.x, clones.on_grid(np.array(_ends(params)), design.frame.time_bin)
    found, whole = [], np.ones(len(x))
    for number, end in enumerate((ends[-1], *ends)):
        intercept, slopes = _places(params, number, x.shape[1])
        eta = state.fit.at[intercept] + x @ state.fit.at[slopes]
        stay = 1 - share[number] if params.stabilised else 1.0
        with np.errstate(over="ignore"):
            own = stay / expit(-eta)
        whole = own * whole if number > 1 else own  # intervals follow one another in the arm of the untreated
        found.append(Weight(int(number == 0), float(end), np.clip(whole, low, high), (whole < low) | (whole > high)))
    return found


def _weighing(params: Params, followed: Clones, weights: list[Weight], design: Design) -> Weighing:
    """Look at the weights beyond the grace period; every person is there in one arm only."""
    past, x = followed.past, design.x
    parts = ((past & followed.started, weights[0]), (past & ~followed.started, weights[-1]))
    flagged = [*parts, *((m & design.event, w) for m, w in parts)]
    return Weighing(
        moments=np.array([[w.weight[m].sum(), w.weight[m] @ w.weight[m]] for m, w in flagged]),
        persons=np.array([float(m.sum()) for m, _ in parts]),
        cut=np.array([float((m & w.cut).sum()) for m, w in parts]),
        plain=np.array([np.concatenate([m @ x, m @ x**2]) for m, _ in parts], dtype=np.float64),
        balanced=np.array([w.weight[m] @ x[m] for m, w in parts]),
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        BadTable: somebody is treated before time 0, or has several rows.

    """
    match total:
        case Starts():
            if total.wrong[0]:
                raise BadTable(f"{params.treated_at!r} is before time 0 for some", remedy="leave out the treated")
            if total.wrong[1]:
                raise BadTable("some persons have several rows", remedy="give one row per person")
            return replace(state, starts=total)
        case Likelihood():
            return replace(state, fit=likelihood.newton(state.fit, total, "target_trial: weights", params.max_rounds))
        case Weighing():
            return replace(state, weighing=total)
        case ArmExits() | Spread():
            return replace(state, curves=arms.aggregate(state.curves, total))
    return replace(state, cox=partial.aggregate(arms.model(params.ties, params.max_rounds), state.cox, total))


def _refuse_few(params: Params, frame: Frame, starts: Starts) -> None:
    """Refuse arms and intervals of too few persons.

    Raises:
        Refused: in some interval too few deviate, or do not.

    """
    arms.refuse_few(starts.persons, starts.events, starts.sites, frame, _names(params))
    least = max(frame.min_cell, 1)
    left = np.rint(starts.left)
    if np.any((left < least) | (np.rint(starts.seen) - left < least)):
        raise Refused(
            "in some interval of the grace period too few start treatment, or do not",
            reasons=(f"min_cell: at least {least} persons who do, and who do not, in each interval",),
            remedy="leave a cut out, or choose another grace period",
        )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return hazard ratio, curves, weights and balance; refuse as soon as something tells of too few."""
    if state.starts is not None:
        _refuse_few(params, frame, state.starts)
    weighing = state.weighing
    if weighing is not None:
        arms.refuse_dominated(weighing.moments, frame.min_cell)
    exits = state.curves.exits
    if state.curves.spread is None or weighing is None or exits is None or state.starts is None:
        return None
    names = _names(params)
    curves, tests = arms.shown(state.curves, frame, names)
    last = np.searchsorted(frame.times, curves[0].time[-1], side="right") if curves[0].time else 0
    persons, (weight, squares) = weighing.persons, weighing.moments[:2].T
    # elsewhere than at a step's end those still followed would tell of few, against those at risk in the curves
    grace = clones.on_grid(np.array([params.grace]), frame.time_bin)[0]
    counted = frame.min_cell <= 1 or bool(np.isclose(curves[0].time, grace, rtol=1e-12).any())
    return Result(
        method="target_trial",
        n=frame.rows,
        events=round(float(exits.apart[:3, :last].sum())),  # persons, not clones; the rest of all would tell of few
        coefficients=(arms.hazard_ratio(state.cox, TERM),),
        curves=curves,
        tests=tests,
        details={
            "strategies": list(names),
            "weights": arms.weights_table(names, persons, weight, squares, weighing.cut, frame, counted=counted),
            "balance": arms.balance(frame.columns, persons, weighing.plain, weight, weighing.balanced),
            "intervals": [0.0, *_ends(params)],
            "ties": params.ties,
            "time_bin": frame.time_bin,
            "left_out_missing": frame.left_out,
            **({} if params.cuts else {"warning": _COARSE}),
        },
    )
