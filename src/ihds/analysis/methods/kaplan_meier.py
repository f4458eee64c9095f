"""Kaplan–Meier curves with Greenwood's variance, medians and restricted means.

Model      S(t) = prod (1 - d_k / n_k) on the shared time grid, per group of the formula's terms; rows may
           be weighted, and the variance is then the sandwich by person.
Down       nothing but the agreed grid and groups; of weighted rows the hazards.
Up         Exits: per group and bin the events, those who leave and those who enter. Of weighted rows Worth,
           ArmExits, Spread.
Rounds     1; 3 of weighted rows.
Reveals    counts per bin, on the sum over sites only; the released curve has a point only where
           at least min_cell persons have left since the point before, and none or as many had an event;
           it ends while as many are followed, and all it says is of these points.
           Weights must be worth min_cell equal persons in each group and step, and so must those of its events.
Errors     NoEvents, BadLevel, Refused (weights of few persons).
Source     Kaplan & Meier 1958; Greenwood 1926; log-transformed limits as R's survfit. Checked
           against R survival::survfit on the same grid (tests/vectors/survival.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.special import ndtri

from ihds.analysis import arms
from ihds.analysis.arms import ArmExits, Curves, Spread
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.result import Curve, Result
from ihds.analysis.rows import per_person
from ihds.analysis.survival import Counted, Exits, Steps, at_risk, count_cells, groups_ask, median_of, survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula


@dataclass(frozen=True, slots=True)
class Params:
    """``tau`` is the end of the restricted mean; by default where the curve ends."""

    formula: str
    time_bin: float | None = None
    horizon: float | None = None
    tau: float | None = None


@dataclass(frozen=True, slots=True)
class Worth(Contribution):
    """What weights are worth, per group: sums over persons of them and of their squares; then those of events."""

    kind: ClassVar[str] = "moment"

    moments: Annotated[Matrix, Leaves("(2 groups, 2)", "weights and their squares", bound=2**24)]


CONTRIBUTIONS = (Exits, Worth, ArmExits, Spread)


@dataclass(frozen=True, slots=True)
class State:
    """The opened totals; those of weighted rows, once there."""

    counted: Counted
    worth: Worth | None
    curves: Curves


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a survival outcome by groups on a shared grid."""
    formula = survival_formula(params.formula, codebook)
    if formula.strata:
        raise BadFormula("kaplan_meier takes no strata()", remedy="name the category as a group instead")
    if params.tau is not None and params.tau <= 0:
        raise BadFormula(f"tau is {params.tau:g}", remedy="give a positive time")
    return replace(groups_ask(formula, params.time_bin, params.horizon, codebook), weighted=True)


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    none = np.zeros(0)
    curves = arms.begin(params.tau, max(1, len(frame.groups)), joint=False)
    return State(Counted(False, none, none, none), None, curves)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Count events, exits and entries per group and bin, or what they weigh."""
    if design.weight is None:
        return Exits(*count_cells(design, design.group, len(design.frame.groups)))
    if state.worth is None:
        flags = design.group[:, None] == np.arange(max(1, len(design.frame.groups)))
        held = np.column_stack([flags, flags & design.event[:, None]]) * design.weight[:, None]
        each = per_person(held, design.person)
        return Worth(np.column_stack([each.sum(axis=0), (each**2).sum(axis=0)]))
    none = np.zeros((0, len(design.times)))
    return arms.local(state.curves, design, none, none)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep the totals."""
    match total:
        case Exits():
            return replace(state, counted=Counted(True, total.events, total.leave, total.enter))
        case Worth():
            return replace(state, worth=total)
    return replace(state, curves=arms.aggregate(state.curves, total))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return one curve per group.

    Raises:
        Refused: the weights of a group rest on few persons.

    """
    if state.worth is not None:
        arms.refuse_dominated(state.worth.moments, frame.min_cell)
    names = tuple(label or "all" for label in frame.groups or ("",))
    if state.curves.spread is not None:
        curves, _ = arms.shown(state.curves, frame, names)
        told = {"effective_persons": frame.weighting.effective}
    elif state.counted.counted:
        curves, told = _counted(params, frame, state.counted, names), {}
    else:
        return None
    return Result(
        method="kaplan_meier",
        n=frame.rows,
        events=sum(sum(curve.events) for curve in curves),  # those after the last step would be told by the rest
        curves=curves,
        details={
            "time_bin": frame.time_bin,
            "min_exits_per_point": frame.min_cell,
            "left_out_missing": frame.left_out,
            **told,
        },
    )


def _counted(params: Params, frame: Frame, counted: Counted, names: tuple[str, ...]) -> tuple[Curve, ...]:
    shape = (len(names), len(frame.times))
    events, leave, enter = (
        np.asarray(np.rint(v).reshape(shape), dtype=np.float64) for v in (counted.events, counted.leave, counted.enter)
    )
    return tuple(_curve(name, frame, params.tau, events[g], leave[g], enter[g]) for g, name in enumerate(names))


def _curve(label: str, frame: Frame, tau: float | None, d: Vector, leave: Vector, enter: Vector) -> Curve:
    n = at_risk(leave, enter)
    times: Vector = frame.times
    with np.errstate(divide="ignore", invalid="ignore"):
        steps: Vector = np.where(n > 0, 1 - d / np.where(n > 0, n, 1), 1.0)
        survival: Vector = np.cumprod(steps, dtype=np.float64)
        greenwood = np.cumsum(np.where((d > 0) & (n > 0), d / (n * (n - d)), 0.0))
    se_log = np.sqrt(greenwood)
    z = float(ndtri(0.975))
    with np.errstate(over="ignore", invalid="ignore"):
        lower = np.where(survival > 0, survival * np.exp(-z * se_log), np.nan)
        upper = np.where(survival > 0, np.minimum(1.0, survival * np.exp(z * se_log)), np.nan)
        se = np.where(survival > 0, survival * se_log, np.nan)
    shown = Steps.of(times, leave, enter, d, frame.min_cell)
    end = shown.until if tau is None else min(tau, shown.until)
    mean, beyond = shown.area(survival[shown.ends], end)
    # each step's part of Greenwood's sum; beyond a curve that has reached zero nothing follows
    with np.errstate(invalid="ignore"):
        grown = np.diff(greenwood[shown.ends], prepend=0.0)
    grown = np.where(np.isfinite(grown) & (shown.times <= end), grown, 0.0)
    return shown.curve(
        n,
        d,
        {"estimate": survival, "se": se, "lower": lower, "upper": upper},
        group=label,
        median=median_of(shown.times, survival[shown.ends], shown.sums(d) > 0),
        rmst=mean,
        rmst_se=float(np.sqrt(beyond**2 @ grown)) if len(beyond) else float("nan"),
        tau=end if len(beyond) else float("nan"),
    )
