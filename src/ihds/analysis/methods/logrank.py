"""The log-rank test between groups, optionally stratified.

Model      under equal hazards, observed less expected events per group, hypergeometric variance,
           on the shared time grid; strata are summed.
Down       nothing but the agreed grid, groups and strata.
Up         Exits: per stratum, group and bin the events, those who leave and those who enter.
Rounds     1.
Reveals    counts per bin, on the sum over sites only; released are totals per group.
Errors     NoEvents, BadLevel, ConstantColumn (one group only).
Source     Mantel 1966; Peto & Peto 1972. Checked against R survival::survdiff on the same grid
           (tests/vectors/survival.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Vector
from ihds.analysis.numerics import invert
from ihds.analysis.result import Result, chi_square
from ihds.analysis.survival import Counted, Exits, at_risk, count_cells, groups_ask, survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear, ConstantColumn
from ihds.privacy.disclosure import suppress


@dataclass(frozen=True, slots=True)
class Params:
    """``rho`` 0 is the log-rank test, 1 the Peto–Peto modification of Fleming and Harrington."""

    formula: str
    time_bin: float | None = None
    horizon: float | None = None
    rho: float = 0.0


CONTRIBUTIONS = (Exits,)


STATE = Counted


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a survival outcome by groups on a shared grid."""
    formula = survival_formula(params.formula, codebook)
    if not formula.terms:
        raise BadFormula(f"{params.formula!r} names no group", remedy="write Surv(...) ~ group")
    return groups_ask(formula, params.time_bin, params.horizon, codebook)


def begin(params: Params, frame: Frame) -> Counted:
    """Start with nothing counted.

    Raises:
        ConstantColumn: everybody is in one group.

    """
    if len(frame.groups) < 2:
        raise ConstantColumn("there is only one group to compare", remedy="name another variable")
    return Counted(False, np.zeros(0), np.zeros(0), np.zeros(0))


def local(params: Params, state: Counted, design: Design) -> Exits:
    """Count events, exits and entries per stratum, group and bin."""
    groups, strata = len(design.frame.groups), len(design.frame.strata)
    return Exits(*count_cells(design, design.stratum * groups + design.group, groups * strata))


def aggregate(params: Params, state: Counted, total: Exits) -> Counted:
    """Keep the totals."""
    return Counted(True, total.events, total.leave, total.enter)


def finish(params: Params, frame: Frame, state: Counted) -> Result | None:
    """Return the test."""
    if not state.counted:
        return None
    groups, strata, bins = len(frame.groups), len(frame.strata), len(frame.times)
    shape = (strata, groups, bins)
    d, leave, enter = (np.rint(v).reshape(shape) for v in (state.events, state.leave, state.enter))
    n = at_risk(leave, enter)
    total_d, total_n = d.sum(axis=1), n.sum(axis=1)
    weight = _weights(params.rho, total_d, total_n)
    share = n / np.where(total_n > 0, total_n, 1)[:, None]
    observed = (weight[:, None] * d).sum(axis=(0, 2))
    expected = (weight[:, None] * total_d[:, None] * share).sum(axis=(0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(total_n > 1, weight**2 * total_d * (total_n - total_d) / (total_n - 1), 0.0)
    variance = -np.einsum("sk,sgk,shk->gh", factor, share, share)
    variance[np.diag_indices(groups)] += np.einsum("sk,sgk->g", factor, share)
    used = expected > 0
    difference = (observed - expected)[used][1:]
    if bool(np.any(np.diag(variance)[used] <= 1e-10 * expected[used])):
        raise Collinear("each group lies in a stratum of its own", remedy="leave the stratum out")
    terms = tuple(label for label, u in zip(frame.groups, used, strict=True) if u)[1:]
    statistic = float(difference @ invert(variance[np.ix_(used, used)][1:, 1:], terms) @ difference)
    told = suppress(d.sum(axis=(0, 2)), max(frame.min_cell, 1))
    rows = [
        {"group": label, "observed": None if t is None else float(o), "expected": None if t is None else float(e)}
        for label, o, e, t in zip(frame.groups, observed, expected, told, strict=True)
    ]
    return Result(
        method="logrank",
        n=frame.rows,
        events=int(d.sum()),
        tests=(
            chi_square(
                "log-rank" if params.rho == 0 else f"G-rho {params.rho:g}", statistic, int(used.sum()) - 1, rows
            ),
        ),
        details={
            "time_bin": frame.time_bin,
            "strata": list(frame.strata) if strata > 1 else [],
            "left_out_missing": frame.left_out,
        },
    )


def _weights(rho: float, d: Vector, n: Vector) -> Vector:
    """Return S(t-)^rho per stratum and bin, S the left-continuous Kaplan–Meier estimate."""
    if rho == 0:
        return np.ones_like(d)
    steps = np.where(n > 0, 1 - d / np.where(n > 0, n, 1), 1.0)
    survival = np.cumprod(steps, axis=1)
    before = np.concatenate([np.ones((len(d), 1)), survival[:, :-1]], axis=1)
    return np.asarray(before**rho)
