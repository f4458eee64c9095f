"""Checks and predictions of a Cox model: proportional hazards, concordance, predicted curves.

Model      the fit of cox; then the score test of each covariate's change with g(time), Harrell's
           concordance on a grid of risk scores, and survival predicted at given covariates.
Down       what cox sends; then per cell the tie sums times g(time), and the edges of risk scores.
Up         what cox sends; then Leaving, RiskSums once more, Trend, and, if asked for, Ranks.
Rounds     those of cox and 3 (4 with concordance).
Reveals    Ranks: persons per time bin and risk score bin, over all sites; released is their
           summary only. Predicted curves have the steps kaplan_meier would show.
Errors     as cox; BadFormula (site strata, an unreadable prediction).
Source     Grambsch & Therneau 1994; Harrell et al. 1982. Checked against R survival: cox.zph,
           concordance and survfit.coxph (tests/vectors/competing.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy.special import ndtri

from ihds.analysis import formula as formulas
from ihds.analysis import partial
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.outcomes import names_in
from ihds.analysis.partial import CoxParams, Curvature, Meat, RiskSums, second_moment
from ihds.analysis.result import Curve, Result, Test, chi_square, wald_table
from ihds.analysis.survival import Steps, at_risk, break_ties, cells_of, count_cells
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula

#: A log relative hazard beyond this is of no person.
_FAR = 300.0
#: Bins of the risk score, over so many standard deviations on each side.
_SCORES, _REACH = 32, 3.0


@dataclass(frozen=True, slots=True)
class Params(CoxParams):
    """``predict`` lists covariates of persons to predict: ``age=50, sex=f; age=70, sex=m``."""

    transform: Literal["km", "identity", "log"] = "km"
    predict: str = ""
    concordance: bool = False


@dataclass(frozen=True, slots=True)
class Leaving(Contribution):
    """Who leaves and who enters, per cell of stratum and time bin."""

    kind: ClassVar[str] = "curve"

    leave: Annotated[Vector, Leaves("(cells,)", "persons", bound=1, counts_persons=True)]
    enter: Annotated[Vector, Leaves("(cells,)", "persons", bound=1)]


@dataclass(frozen=True, slots=True)
class Trend(Contribution):
    """The score of a change with g(time), its information, and the risk scores' moments."""

    kind: ClassVar[str] = "score and information"

    events_gx: Annotated[Vector, Leaves("(p,)", "g x covariate sums of events")]
    once: Annotated[Matrix, Leaves("(p, p)", "g x covariate squared", bound=2**16)]
    twice: Annotated[Matrix, Leaves("(p, p)", "g squared x covariate squared", bound=2**20)]
    score: Annotated[float, Leaves("()", "risk scores")]
    score_square: Annotated[float, Leaves("()", "risk scores squared", bound=2**20)]
    rows: Annotated[float, Leaves("()", "rows", bound=1, counts_persons=True)]


@dataclass(frozen=True, slots=True)
class Ranks(Contribution):
    """Persons per cell of stratum and time bin and bin of the risk score."""

    kind: ClassVar[str] = "count table"

    events: Annotated[Matrix, Leaves("(cells, 32)", "persons", bound=1, counts_persons=True)]
    leave: Annotated[Matrix, Leaves("(cells, 32)", "persons", bound=1, counts_persons=True)]
    enter: Annotated[Matrix, Leaves("(cells, 32)", "persons", bound=1)]


CONTRIBUTIONS = (RiskSums, Curvature, Meat, Leaving, Trend, Ranks)


@dataclass(frozen=True, slots=True)
class State:
    """The Cox fit, then what its checks need; per-cell arrays are public."""

    phase: Literal["fit", "leaving", "sums", "trend", "ranks", "done"]
    cox: partial.State
    times: Vector
    leave: Vector
    enter: Vector
    sums: RiskSums | None
    g: Vector
    trend: Trend | None
    ranks: Ranks | None


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask as cox does; risk sets must be pooled on a shared grid."""
    asked = partial.ask(params, codebook)
    if asked.clock == "own":
        raise BadFormula("cox_check takes no strata(site): its curves would be a site's own", remedy="leave it out")
    _persons(params.predict)
    return asked


def begin(params: Params, frame: Frame) -> State:
    """Start the fit."""
    none = np.zeros(0)
    return State("fit", partial.begin(params, frame), frame.times, none, none, None, none, None, None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    strata = max(1, len(design.frame.strata))
    match state.phase:
        case "fit":
            return partial.local(params, state.cox, design)
        case "leaving":
            _, leave, enter = count_cells(design, design.stratum, strata)
            return Leaving(leave, enter)
        case "sums":
            return partial.local(params, replace(state.cox, phase="sums"), design)
        case "trend":
            return _trend(params, state, design)
    score, cells = _scores(state, design), strata * len(design.times)
    edges = _edges(state)
    rank, seen = np.searchsorted(edges, score, side="right"), design.exit > design.entry

    def counted(rows: Any, when: Any) -> Matrix:
        at = (design.stratum[rows] * len(design.times) + when[rows]) * _SCORES + rank[rows]
        return np.bincount(at, minlength=cells * _SCORES).reshape(cells, _SCORES).astype(np.float64)

    late = seen & (design.entry >= 0)
    return Ranks(counted(seen & design.event, design.exit), counted(seen, design.exit), counted(late, design.entry))


def _scores(state: State, design: Design) -> Vector:
    return np.asarray(design.x @ state.cox.beta + design.offset)


def _edges(state: State) -> Vector:
    """Return the inner edges of the risk score's bins (31,)."""
    assert state.trend is not None
    mean = state.trend.score / max(state.trend.rows, 1.0)
    spread = np.sqrt(max(state.trend.score_square / max(state.trend.rows, 1.0) - mean**2, 1e-300))
    return np.asarray(mean + spread * np.linspace(-_REACH, _REACH, _SCORES - 1))


def _trend(params: Params, state: State, design: Design) -> Trend:
    assert state.sums is not None
    cells, x = cells_of(design), design.x
    g = np.tile(state.g, cells.strata)
    score = _scores(state, design)
    risk = np.exp(score)
    tied = break_ties(state.sums.d, state.sums.s0, state.sums.d0, params.ties)
    events = cells.event_order
    return Trend(
        events_gx=g[cells.exit[events]] @ x[events],
        once=second_moment(cells, x, risk, tied.a * g, tied.b * g),
        twice=second_moment(cells, x, risk, tied.a * g**2, tied.b * g**2),
        score=float(score.sum()),
        score_square=float(score @ score),
        rows=float(len(score)),
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on."""
    match state.phase:
        case "fit":
            cox = partial.aggregate(params, state.cox, total)
            return replace(state, cox=cox, phase="leaving" if cox.phase == "done" else "fit")
        case "leaving":
            return replace(state, phase="sums", leave=total.leave, enter=total.enter)
        case "sums":
            return replace(state, phase="trend", sums=total, g=_clock(params, state, total))
        case "trend":
            return replace(state, phase="ranks" if params.concordance else "done", trend=total)
    return replace(state, phase="done", ranks=total)


def _by_stratum(state: State, values: Vector) -> Matrix:
    return values.reshape(-1, len(state.times))


def _survivors(state: State, events: Vector) -> Vector:
    """Return the Kaplan–Meier estimate before each bin, strata pooled."""
    d = _by_stratum(state, events).sum(axis=0)
    n = at_risk(_by_stratum(state, state.leave).sum(axis=0), _by_stratum(state, state.enter).sum(axis=0))
    steps = np.where(n > 0, 1 - d / np.where(n > 0, n, 1.0), 1.0)
    return np.concatenate([[1.0], np.cumprod(steps)[:-1]])


def _clock(params: Params, state: State, sums: RiskSums) -> Vector:
    """Return g per time bin, centred and scaled over the events; neither changes the test."""
    d = _by_stratum(state, sums.d).sum(axis=0)
    held = d > 0
    times = np.where(held, state.times, 1.0)
    if params.transform == "log" and bool(np.any(times <= 0)):
        raise BadFormula("an event at time 0 has no logarithm", remedy="use transform = km or identity")
    g = {"identity": times, "log": np.log(times), "km": 1 - _survivors(state, sums.d)}[params.transform]
    g = g - d @ g / d.sum()
    spread = np.sqrt(d @ g**2 / d.sum())
    return np.where(held, g / (spread if spread > 0 else 1.0), 0.0)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the coefficients, the tests of proportional hazards, concordance and predicted curves."""
    if state.phase != "done" or state.sums is None or state.trend is None:
        return None
    cox = state.cox
    beta, covariance = frame.original(cox.beta, cox.covariance)
    robust = frame.original(cox.beta, cox.robust)[1] if len(cox.robust) else None
    return Result(
        method="cox_check",
        n=frame.rows,
        events=cox.events,
        coefficients=wald_table(frame.columns, beta, covariance, robust),
        log_likelihood={"null": cox.null_log_likelihood, "fitted": cox.log_likelihood},
        tests=_proportional(params, frame, state, state.sums, state.trend),
        curves=_predicted(params, frame, state, state.sums),
        details={
            "curve": "survival",
            "transform": params.transform,
            "concordance": _concordance(state) if state.ranks is not None else None,
            "left_out_missing": frame.left_out,
        },
    )


def _outer(sums: RiskSums, weight: Vector, ties: str) -> Matrix:
    """Return the sum over cells and tied events of weight times the outer product of weighted means."""
    tied = break_ties(sums.d, sums.s0, sums.d0, ties)
    cross = sums.s1.T @ ((weight * tied.ab)[:, None] * sums.d1)
    both = sums.s1.T @ ((weight * tied.aa)[:, None] * sums.s1) + sums.d1.T @ ((weight * tied.bb)[:, None] * sums.d1)
    return np.asarray(both - cross - cross.T)


def _proportional(params: Params, frame: Frame, state: State, sums: RiskSums, trend: Trend) -> tuple[Test, ...]:
    """Return the score test of beta + theta g(time) for each column and for all (cox.zph)."""
    g = np.tile(state.g, len(sums.d) // len(state.g))
    tied = break_ties(sums.d, sums.s0, sums.d0, params.ties)
    score = trend.events_gx - (tied.a * g) @ sums.s1 + (tied.b * g) @ sums.d1
    once = trend.once - _outer(sums, g, params.ties)
    twice = trend.twice - _outer(sums, g**2, params.ties)
    information = twice - once.T @ state.cox.covariance @ once
    found = [
        chi_square(f"proportional: {term}", float(score[j] ** 2 / information[j, j]), 1)
        for j, term in enumerate(frame.columns)
    ]
    whole = float(score @ invert(information, frame.columns) @ score)
    return (*found, chi_square("proportional: all", whole, len(frame.columns)))


def _concordance(state: State) -> dict[str, float]:
    """Return Harrell's concordance and its limits: pairs within one bin of the score may lie either way."""
    assert state.ranks is not None
    bins = len(state.times)
    concordant = tied = discordant = 0.0
    for stratum in range(len(state.ranks.events) // bins):
        part = slice(stratum * bins, (stratum + 1) * bins)
        events, leave = state.ranks.events[part], state.ranks.leave[part]
        later = np.cumsum(leave[::-1], axis=0)[::-1] - leave  # who leaves in a later bin
        outlive = later + leave - events  # or is censored in the same
        outlive -= np.cumsum(state.ranks.enter[part][::-1], axis=0)[::-1]  # but was followed by then
        below = np.cumsum(outlive, axis=1) - outlive
        concordant += float(np.sum(events * below))
        tied += float(np.sum(events * outlive))
        discordant += float(np.sum(events * (outlive.sum(axis=1, keepdims=True) - below - outlive)))
    pairs = concordant + tied + discordant
    return {
        "estimate": (concordant + tied / 2) / pairs,
        "at_least": concordant / pairs,
        "at_most": (concordant + tied) / pairs,
        "pairs": pairs,
    }


def _persons(text: str) -> list[dict[str, str]]:
    """Return the persons of ``predict``.

    Raises:
        BadFormula: it is not of the form ``name=value, name=value; ...``.

    """
    found = []
    for person in filter(str.strip, text.split(";")):
        pairs = [pair.partition("=") for pair in person.split(",")]
        if not all(name.strip() and value.strip() for name, _, value in pairs):
            raise BadFormula(f"the prediction {person.strip()!r} cannot be read", remedy="write age=50, sex=f")
        named = [name.strip() for name, _, _ in pairs]
        if len(set(named)) < len(named):
            raise BadFormula(f"the prediction {person.strip()!r} gives a name twice", remedy="give each once")
        found.append({name.strip(): value.strip() for name, _, value in pairs})
    return found


def _covariates(text: str, frame: Frame, person: dict[str, str]) -> tuple[Vector, float]:
    """Return a person's scaled columns (p,), and the offset."""
    parsed = replace(formulas.parse(text, names_in(text), list(frame.levels)), intercept=True)
    parts = [parsed.label(e) for e in (*parsed.terms, *parsed.offset)]
    needed = {n for n in parsed.variables if any(n in names_in(part) for part in parts)}
    missing = sorted(needed - set(person))
    if missing:
        raise BadFormula(f"the prediction gives no {missing[0]!r}", remedy=f"give {', '.join(sorted(needed))}")
    table: dict[str, Any] = {}
    for name, value in person.items():
        levels = frame.levels.get(name)
        if levels is not None and value not in levels:
            raise BadFormula(f"{value!r} is no level of {name!r}", remedy=f"use one of: {', '.join(levels)}")
        try:
            table[name] = [float(value)] if levels is None else pd.Categorical([value], categories=list(levels))
        except ValueError as error:
            raise BadFormula(f"{name}={value!r} is not a number", remedy="give a number") from error
    data = pd.DataFrame(table, index=[0]).rename(columns=dict(parsed.alias))
    columns, matrix = formulas.matrix(parsed, data)
    labels = [parsed.label(c) for c in columns]
    row = np.array([matrix[0, labels.index(c)] for c in frame.columns])
    if not np.isfinite(row).all():
        wrong = frame.columns[int(np.flatnonzero(~np.isfinite(row))[0])]
        raise BadFormula(f"the prediction gives {wrong!r} no finite value", remedy="give numbers the formula can take")
    offset = sum(float(formulas.evaluate(e, data)[0]) for e in parsed.offset) - frame.offset_centre
    return np.asarray((row - frame.centre) / frame.scale), offset


def _predicted(params: Params, frame: Frame, state: State, sums: RiskSums) -> tuple[Curve, ...]:
    """Return a survival curve per stratum and person, as R's survfit of a Cox model."""
    tied = break_ties(sums.d, sums.s0, sums.d0, params.ties)
    bins = len(state.times)
    variance = state.cox.robust if len(state.cox.robust) else state.cox.covariance
    pull = tied.aa[:, None] * sums.s1 - tied.ab[:, None] * sums.d1
    curves = []
    for stratum, label in enumerate(frame.strata or ("",)):
        part = slice(stratum * bins, (stratum + 1) * bins)
        hazard, spread = np.cumsum(tied.a[part]), np.cumsum(tied.aa[part])
        drift, leave = np.cumsum(pull[part], axis=0), state.leave[part]
        n = at_risk(leave, state.enter[part])
        d, times = sums.d[part], state.times
        steps = Steps.of(times, leave, state.enter[part], d, frame.min_cell)
        for person in _persons(params.predict):
            x, offset = _covariates(params.formula, frame, person)
            eta = float(x @ state.cox.beta) + offset
            if not abs(eta) < _FAR:
                raise BadFormula("a prediction lies too far from all persons", remedy="look at its units")
            ratio = float(np.exp(eta))
            away = hazard[:, None] * x - drift
            se = ratio * np.sqrt(spread + np.einsum("ki,ij,kj->k", away, variance, away))
            survival, z = np.exp(-ratio * hazard), float(ndtri(0.975))
            below = np.flatnonzero(survival[steps.ends] <= 0.5)
            named = ", ".join(f"{k}={v}" for k, v in person.items())
            estimates = {
                "estimate": survival,
                "se": survival * se,
                "lower": survival * np.exp(-z * se),
                "upper": np.minimum(survival * np.exp(z * se), 1.0),
            }
            curves.append(
                steps.curve(
                    n,
                    d,
                    estimates,
                    group=f"{label}: {named}" if label else named,
                    median=float(steps.times[below[0]]) if len(below) else None,
                    rmst=steps.area(survival[steps.ends], steps.until)[0],
                    rmst_se=float("nan"),
                )
            )
    return tuple(curves)
