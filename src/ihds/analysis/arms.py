"""Arms whose persons are weighted: balance, hazard ratio and curves, with variances that let weights vary.

Methods of causal inference weigh each row at its site; here is what they then have in common. A row's arm
is its ``group``: 0 for the untreated, 1 for the treated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.special import ndtri

from ihds.analysis import partial
from ihds.analysis.design import INTERCEPT, Design, Floats, Frame, Ints
from ihds.analysis.features import resting
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.partial import CoxParams
from ihds.analysis.result import Coefficient, Curve, Test, wald_row
from ihds.analysis.rows import per_person
from ihds.analysis.survival import Cells, Steps, at_risk, count_cells, median_of, segment_sums
from ihds.errors import NoEvents, Refused


@dataclass(frozen=True, slots=True)
class ArmExits(Contribution):
    """Who leaves each arm and what those at risk weigh.

    ``apart`` are the kinds of persons that two curves tell apart, ``alone`` those at risk in one of them only;
    ``worth`` are weights and their squares, of those who leave and of those with an event.
    """

    kind: ClassVar[str] = "curve"

    events: Annotated[Vector, Leaves("(arms*bins,)", "persons", bound=1, counts_persons=True)]
    leave: Annotated[Vector, Leaves("(arms*bins,)", "rows", bound=1, counts_persons=True)]
    enter: Annotated[Vector, Leaves("(arms*bins,)", "rows", bound=1)]
    apart: Annotated[Matrix, Leaves("(kinds, bins)", "persons", bound=1, counts_persons=True)]
    alone: Annotated[Matrix, Leaves("(groups, bins)", "persons", bound=1, counts_persons=True)]
    risk: Annotated[Vector, Leaves("(arms*bins,)", "weights at risk")]
    fall: Annotated[Vector, Leaves("(arms*bins,)", "weights of events")]
    worth: Annotated[Any, Leaves("(2, arms*bins, 2)", "weights and their squares", bound=2**26)]


@dataclass(frozen=True, slots=True)
class Spread(Contribution):
    """Squared influences of persons on the curves' logarithms and on the restricted means, in Greenwood's units.

    Those are what the variance would be if weights were persons; public, for they follow from ``ArmExits``.
    """

    kind: ClassVar[str] = "moment"

    curve: Annotated[Vector, Leaves("(steps of all arms,)", "squared influence / Greenwood", bound=2**8)]
    mean: Annotated[Matrix, Leaves("(arms, arms)", "products of influences / Greenwood", bound=2**8)]


@dataclass(frozen=True, slots=True)
class Curves:
    """What is opened of the curves of some arms; ``tau`` is where restricted means end, 0 for where the curve does.

    With ``joint`` they end with the shortest curve, so that they can be compared.
    """

    tau: float
    arms: int
    joint: bool
    exits: ArmExits | None = None
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One curve: its steps that are shown, and per bin hazard, weight that is left, survival and persons at risk."""

    steps: Steps
    hazard: Floats
    left: Floats
    survival: Floats
    persons: Floats
    events: Floats

    def units(self, end: float) -> tuple[Floats, float]:
        """Return Greenwood's sum at each step (k,), and the error of the mean to ``end``, if weights were persons."""
        grown = np.cumsum(np.divide(self.hazard, self.left, out=np.zeros(len(self.left)), where=self.left > 0))
        at = grown[self.steps.ends]
        beyond = self.steps.area(self.survival[self.steps.ends], end)[1]
        return at, float(np.sqrt(beyond**2 @ np.diff(at, prepend=0.0)))


def begin(tau: float | None, arms: int = 2, *, joint: bool = True) -> Curves:
    """Start with nothing counted."""
    return Curves(tau or 0.0, arms, joint)


def local(curves: Curves, design: Design, apart: Matrix, alone: Matrix) -> Contribution:
    """Return the sums that the curves need next; ``apart`` (kinds, bins) and ``alone`` as in ``ArmExits``."""
    if curves.exits is None:
        weight = _weight(design)
        cells = Cells.of(design.exit, design.entry, design.event, design.group, curves.arms, len(design.times))
        events, leave, enter = count_cells(design, design.group, curves.arms)
        both = np.column_stack([weight, weight**2])
        worth = np.stack([segment_sums(both, cells.order, cells.first), cells.at_event(both)])
        return ArmExits(events, leave, enter, apart, alone, cells.at_risk(weight), cells.at_event(weight), worth)
    return _spread(curves, design)


def aggregate(curves: Curves, total: Any) -> Curves:
    """Keep a total."""
    return replace(curves, exits=total) if isinstance(total, ArmExits) else replace(curves, spread=total)


def _weight(design: Design) -> Vector:
    assert design.weight is not None
    return design.weight


def _arms(curves: Curves, frame: Frame) -> list[Arm]:
    """Return the curves; where kinds of persons stand in two, the curves have their steps in common."""
    total = curves.exits
    assert total is not None
    bins = len(frame.times)
    counts = [np.rint(v.reshape(curves.arms, bins)) for v in (total.events, total.leave, total.enter)]
    events, leave, enter = counts
    shared = None
    if len(total.apart):
        apart, alone = np.rint(total.apart), np.rint(total.alone)
        shared = Steps.of(frame.times, leave, enter, apart, frame.min_cell, alone)
        if frame.min_cell > 1:
            each = total.worth.reshape(2, curves.arms, bins, 2)
            shared = shared.worth(frame.times, each.reshape(2 * curves.arms, bins, 2), frame.min_cell, curves.arms)
    found = []
    for arm in range(curves.arms):
        part = slice(arm * bins, (arm + 1) * bins)
        persons = at_risk(leave[arm], enter[arm])
        risk, fall = total.risk[part], np.where(events[arm] > 0, total.fall[part], 0.0)
        held = persons > 0.5
        left = np.where(held & (persons > events[arm]), risk - fall, 0.0)
        hazard = np.where(held, np.where(left > 0, fall / np.where(held, risk, 1.0), events[arm] > 0), 0.0)
        steps = shared or Steps.of(frame.times, leave[arm], enter[arm], events[arm], frame.min_cell)
        if shared is None and frame.min_cell > 1:
            steps = steps.worth(frame.times, total.worth[:, part], frame.min_cell)
        found.append(Arm(steps, hazard, left, np.cumprod(1 - hazard), persons, events[arm]))
    return found


def _ends(curves: Curves, arms: list[Arm]) -> list[float]:
    """Return where each restricted mean ends: the curve is known until there."""
    until = [arm.steps.until for arm in arms]
    until = [min(until)] * len(until) if curves.joint else until
    return [min(curves.tau, end) if curves.tau else end for end in until]


def _influences(design: Design, code: int, arm: Arm) -> Iterator[Vector]:
    """Return, per step of an arm, each row's influence (n,) on the logarithm of the curve there."""
    mine = np.flatnonzero((design.group == code) & (design.exit > design.entry))
    entry, exit_ = design.entry[mine], design.exit[mine]
    weight = _weight(design)[mine]
    inverse = np.divide(1.0, arm.left, out=np.zeros(len(arm.left)), where=arm.left > 0)
    grown = np.concatenate([[0.0], np.cumsum(arm.hazard * inverse)])  # grown[k + 1] is up to bin k
    fallen = np.where(design.event[mine], inverse[exit_], 0.0)
    for end in arm.steps.ends:
        seen = grown[np.minimum(exit_, end) + 1] - grown[np.minimum(entry, end) + 1]
        whole = np.zeros(len(design.group))
        whole[mine] = weight * (seen - np.where(exit_ <= end, fallen, 0.0))
        yield whole


def _spread(curves: Curves, design: Design) -> Spread:
    """Return the squared influences, a person's rows in all arms taken together."""
    arms = _arms(curves, design.frame)
    squares, means = [np.zeros(0)], []
    for code, (arm, end) in enumerate(zip(arms, _ends(curves, arms), strict=True)):
        widths = np.diff(np.minimum([*arm.steps.times, np.inf], end)) * arm.survival[arm.steps.ends]
        units, unit = arm.units(end)
        mean = np.zeros(len(design.group))
        for width, square, influence in zip(widths, units, _influences(design, code, arm), strict=True):
            mean += width * influence
            each = per_person(influence[:, None], design.person)[:, 0]
            squares.append(np.array([each @ each / (square or 1.0)]))
        means.append(per_person(mean[:, None], design.person)[:, 0] / (unit or 1.0))
    return Spread(np.concatenate(squares), np.array(means) @ np.array(means).T)


def shown(curves: Curves, frame: Frame, names: tuple[str, ...]) -> tuple[tuple[Curve, ...], tuple[Test, ...]]:
    """Return the curves with log-transformed limits; of two that end together, the difference of restricted means."""
    assert curves.spread is not None
    arms = _arms(curves, frame)
    until, at, z = _ends(curves, arms), 0, float(ndtri(0.975))
    found, means, errors = [], [], []
    for code, (arm, end) in enumerate(zip(arms, until, strict=True)):
        ends = arm.steps.ends
        units, unit = arm.units(end)
        error = np.full(len(arm.survival), np.nan)
        error[ends] = np.sqrt(np.maximum(curves.spread.curve[at : at + len(ends)], 0.0) * units)
        at += len(ends)
        survival = arm.survival
        with np.errstate(over="ignore", invalid="ignore"):
            estimates = {
                "estimate": survival,
                "se": np.where(survival > 0, survival * error, np.nan),
                "lower": np.where(survival > 0, survival * np.exp(-z * error), np.nan),
                "upper": np.where(survival > 0, np.minimum(1.0, survival * np.exp(z * error)), np.nan),
            }
        means.append(arm.steps.area(survival[ends], end)[0] if end else float("nan"))
        errors.append(unit)
        found.append(
            arm.steps.curve(
                arm.persons,
                arm.events,
                estimates,
                group=names[code],
                median=median_of(arm.steps.times, survival[ends], arm.steps.sums(arm.events) > 0),
                rmst=means[-1],
                rmst_se=float(np.sqrt(max(curves.spread.mean[code, code], 0.0))) * unit,
                tau=end,
            )
        )
    if not curves.joint or not all(until):
        return tuple(found), ()
    apart = np.array([-errors[0], errors[1]])
    variance = float(apart @ curves.spread.mean @ apart)
    row = wald_row("", means[1] - means[0], float(np.sqrt(max(variance, 0.0))), np.inf)
    told = {"difference": row.estimate, "se": row.se, "lower": row.lower, "upper": row.upper}
    return tuple(found), (Test("difference of restricted means", row.z, float("nan"), row.p, (told,)),)


# -- the hazard ratio ---------------------------------------------------------------------------


def model(ties: Any, max_rounds: int) -> CoxParams:
    """Return the parameters of the Cox model of the arm alone, with the robust variance."""
    return CoxParams(formula="", ties=ties, robust=True, max_rounds=max_rounds)


def hazards(frame: Frame, term: str) -> partial.State:
    """Return the first state of the Cox model of the arm alone."""
    return partial.begin(model("efron", 1), replace(frame, columns=(term,)))


def placed(design: Design, arm: Ints, weight: Vector) -> Design:
    """Return a design of weighted rows whose one covariate is their arm."""
    return replace(design, x=arm[:, None].astype(np.float64), group=arm, weight=weight, cluster=design.person)


def hazard_ratio(state: partial.State, term: str) -> Coefficient:
    """Return the row of the arm's coefficient."""
    se, robust = (float(np.sqrt(v[0, 0])) for v in (state.covariance, state.robust))
    return wald_row(term, float(state.beta[0]), se, np.inf, robust_se=robust)


# -- weights and balance ------------------------------------------------------------------------


def refuse_few(persons: Vector, events: Vector, sites: Vector, frame: Frame, names: tuple[str, str]) -> None:
    """Refuse arms of few persons, or whose events are few persons', or that too few sites hold.

    Raises:
        NoEvents: an arm has none.
        Refused: an arm tells of too few.

    """
    least = max(frame.min_cell, 1)
    for name, held, had, where in zip(names, np.rint(persons), np.rint(events), np.rint(sites), strict=True):
        if held >= least and had == 0:
            raise NoEvents(f"nobody in the arm {name!r} has the event", remedy="wait for events, or name another")
        if min(had, held) < least or where < frame.min_sites:
            raise Refused(
                f"the arm {name!r} tells of too few persons, or of one site",
                reasons=(f"min_cell: at least {least} persons in each arm, as many with the event, at several sites",),
                remedy="name another treatment or outcome",
            )


def refuse_dominated(moments: Matrix, least: int) -> None:
    """Refuse weights, from sums of persons' weights and of their squares (k, 2), that rest on few persons.

    Raises:
        Refused: some do.

    """
    if resting(moments, least).any():
        raise Refused(
            "the weights of an arm rest on few persons",
            reasons=(f"min_cell: they must tell of {least} persons who weigh the same",),
            remedy="truncate the weights, or leave out what decides the treatment",
        )


def weights_table(
    names: tuple[str, str],
    persons: Vector,
    weight: Vector,
    squares: Vector,
    cut: Vector,
    frame: Frame,
    *,
    counted: bool = True,
) -> list[dict[str, Any]]:
    """Return what the weights of each arm are worth, from sums (2,) that begin with the treated; no extremes.

    ``counted`` says whether it may be told how many persons they are of.
    """
    rows: list[dict[str, Any]] = []
    for name, k in zip(names, (1, 0), strict=True):
        held, lost = round(float(persons[k])), round(float(cut[k]))
        rows.append(
            {
                "group": name,
                "persons": held if counted else None,
                "mean": float(weight[k] / persons[k]),
                "effective_persons": float(weight[k] ** 2 / squares[k]) if counted else None,
                "cut": lost if counted and all(c == 0 or c >= frame.min_cell for c in (lost, held - lost)) else None,
            }
        )
    return rows


def balance(names: tuple[str, ...], persons: Vector, plain: Matrix, weight: Vector, balanced: Matrix) -> Any:
    """Return each covariate's standardised difference between two arms, before and after weighting.

    ``persons`` and ``weight`` (2,), the first arm being the treated; ``plain`` (2, 2 p) are sums of covariates
    and of their squares, ``balanced`` (2, p) sums of weights times covariates.
    """
    p, rows = len(names), []
    n = persons[:, None]
    mean = plain[:, :p] / n
    variance = (plain[:, p:] - n * mean**2) / np.maximum(n - 1, 1)
    pooled = np.sqrt(np.maximum(variance.mean(axis=0), 0.0))
    weighted = balanced / weight[:, None]
    for j, name in enumerate(names):
        if name != INTERCEPT and pooled[j] > 0:
            before, after = (float((m[0, j] - m[1, j]) / pooled[j]) for m in (mean, weighted))
            rows.append({"covariate": name, "before": before, "after": after})
    return rows
