"""Kaplan–Meier curves with Greenwood's variance, medians and restricted means.

Model      S(t) = prod (1 - d_k / n_k) on the shared time grid, per group of the formula's terms.
Down       nothing but the agreed grid and groups.
Up         Exits: per group and bin the events, those who leave and those who enter.
Rounds     1.
Reveals    counts per bin, on the sum over sites only; the released curve has a point only where
           at least min_cell persons have left since the point before, and none or as many had an event;
           it ends while as many are followed, and all it says is of these points.
Errors     NoEvents, BadLevel.
Source     Kaplan & Meier 1958; Greenwood 1926; log-transformed limits as R's survfit. Checked
           against R survival::survfit on the same grid (tests/vectors/survival.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Vector
from ihds.analysis.result import Curve, Result
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


CONTRIBUTIONS = (Exits,)


STATE = Counted


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a survival outcome by groups on a shared grid."""
    formula = survival_formula(params.formula, codebook)
    if formula.strata:
        raise BadFormula("kaplan_meier takes no strata()", remedy="name the category as a group instead")
    if params.tau is not None and params.tau <= 0:
        raise BadFormula(f"tau is {params.tau:g}", remedy="give a positive time")
    return groups_ask(formula, params.time_bin, params.horizon, codebook)


def begin(params: Params, frame: Frame) -> Counted:
    """Start with nothing counted."""
    return Counted(False, np.zeros(0), np.zeros(0), np.zeros(0))


def local(params: Params, state: Counted, design: Design) -> Exits:
    """Count events, exits and entries per group and bin."""
    return Exits(*count_cells(design, design.group, len(design.frame.groups)))


def aggregate(params: Params, state: Counted, total: Exits) -> Counted:
    """Keep the totals."""
    return Counted(True, total.events, total.leave, total.enter)


def finish(params: Params, frame: Frame, state: Counted) -> Result | None:
    """Return one curve per group."""
    if not state.counted:
        return None
    bins = len(frame.times)
    groups = frame.groups or ("",)
    shape = (len(groups), bins)
    events, leave, enter = (
        np.asarray(np.rint(v).reshape(shape), dtype=np.float64) for v in (state.events, state.leave, state.enter)
    )
    curves = [
        _curve(label or "all", frame, params.tau, events[g], leave[g], enter[g]) for g, label in enumerate(groups)
    ]
    return Result(
        method="kaplan_meier",
        n=frame.rows,
        events=sum(sum(curve.events) for curve in curves),  # those after the last step would be told by the rest
        curves=tuple(curves),
        details={"time_bin": frame.time_bin, "min_exits_per_point": frame.min_cell, "left_out_missing": frame.left_out},
    )


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
