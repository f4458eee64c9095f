"""The effect of a treatment on survival: hazard ratio and curves weighted by the inverse probability of treatment.

Model      propensity e = P(treated | x), logistic; weights 1 / e and 1 / (1 - e), stabilised by the share
           of each arm, cut at public bounds; hazard(t) = hazard0(t) exp(beta treated) among the weighted.
Down       the coefficients of the propensity, then the Cox model's, then the hazards of both curves.
Up         Arms, Likelihood in turns, Weighing, RiskSums and Curvature in turns, Meat, ArmExits, Spread, as
           sums over sites; a person's propensity or weight never leaves.
Rounds     about 20.
Reveals    weighted curves at steps of min_cell persons, as kaplan_meier; arms, and the events of each, are
           of min_cell persons, and so is what the weights are worth; weights are told by their means.
Errors     Separation (some covariates decide the treatment), Collinear, NoEvents, Refused, BadTable.
Source     Robins, Hernan & Brumback 2000; Cole & Hernan 2008 (stabilised, cut); Xie & Liu 2005 (curves). The
           variance is the sandwich with weights taken as known. Checked against R glm and survival::coxph
           and survfit (tests/vectors/weighted.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis import arms, likelihood, partial
from ihds.analysis.arms import ArmExits, Curves, Spread
from ihds.analysis.design import INTERCEPT, Ask, Design, Frame, Ints
from ihds.analysis.likelihood import Fit, Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import weighted_gram
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.partial import Curvature, Meat, RiskSums
from ihds.analysis.result import Result
from ihds.analysis.rows import distinct, per_person, persons_with
from ihds.analysis.survival import grid_end, grid_width, survival_formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadInput, BadTable


@dataclass(frozen=True, slots=True)
class Params:
    """The formula is the treatment's (0 or 1) on the covariates; ``outcome`` is ``Surv(time, event)``.

    ``bounds`` are the lowest and the highest weight, beyond which weights are cut.
    """

    formula: str
    outcome: str
    stabilised: bool = True
    bounds: tuple[float, ...] = ()
    ties: Literal["efron", "breslow"] = "efron"
    time_bin: float | None = None
    horizon: float | None = None
    tau: float | None = None
    max_rounds: int = 60


@dataclass(frozen=True, slots=True)
class Arms(Contribution):
    """Persons and persons with an event, untreated and treated; ``wrong`` are rows of no arm, and a person's second."""

    kind: ClassVar[str] = "count table"

    persons: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    events: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    sites: Annotated[Vector, Leaves("(2,)", "sites with such persons", bound=1, per="site")]
    wrong: Annotated[Vector, Leaves("(2,)", "rows", bound=1)]


@dataclass(frozen=True, slots=True)
class Weighing(Contribution):
    """What the weights do: their sums and squares of both arms, of all and of events; covariates before and after."""

    kind: ClassVar[str] = "moment"

    moments: Annotated[Matrix, Leaves("(4, 2)", "weights and their squares", bound=2**26)]
    cut: Annotated[Vector, Leaves("(2,)", "persons", bound=1, counts_persons=True)]
    plain: Annotated[Matrix, Leaves("(2, 2 p)", "covariates and their squares", bound=2**16)]
    balanced: Annotated[Matrix, Leaves("(2, p)", "weights x covariates", bound=2**16)]


CONTRIBUTIONS = (Arms, Likelihood, Weighing, RiskSums, Curvature, Meat, ArmExits, Spread)


@dataclass(frozen=True, slots=True)
class State:
    """What is known: the arms, the propensity's fit, what the weights do, the Cox model, the curves."""

    treated: int
    arms: Arms | None
    propensity: Fit
    weighing: Weighing | None
    cox: partial.State
    curves: Curves


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for the outcome, the treatment and the covariates."""
    treatment = plain_formula(params.formula, codebook, "survival_effect")
    name = treatment.label(treatment.response[0])
    if name not in codebook.variables or codebook.variable(name).kind != "number":
        raise BadFormula(f"the treatment {name!r} is no number", remedy="name a column that is 1 if treated, else 0")
    if not treatment.terms:
        raise BadFormula(f"{params.formula!r} names no covariate", remedy="write treated ~ age + stage")
    if params.bounds and (len(params.bounds) != 2 or not 0 <= params.bounds[0] < params.bounds[1]):
        raise BadInput(f"bounds are {params.bounds}", remedy="give the lowest and the highest weight, as 0.1, 10")
    if params.tau is not None and params.tau <= 0:
        raise BadInput(f"tau is {params.tau:g}", remedy="give a positive time")
    left, right = params.formula.split("~")
    formula = survival_formula(f"{params.outcome} ~ {left.strip()} + {right.strip()}", codebook)
    within = [label for term in treatment.terms if name in _words(label := treatment.label(term))]
    if len(formula.response) != 2 or within or "~" in params.outcome:
        raise BadFormula(
            f"{params.outcome!r} is no Surv(time, event), or {name!r} is among the covariates",
            remedy="write outcome = Surv(time, event), and leave the treatment out of the covariates",
        )
    return Ask(
        formula=replace(formula, intercept=True),
        outcome="survival",
        covariates="matrix",
        clock="grid",
        time_bin=grid_width(params.time_bin, formula, codebook),
        horizon=grid_end(params.horizon, formula, codebook),
        extra=1,
    )


def _words(label: str) -> set[str]:
    return set(label.replace("(", ":").replace(")", ":").replace(" ", ":").split(":"))


def _names(params: Params) -> tuple[str, str]:
    """Return the labels of both arms, the untreated first."""
    name = params.formula.split("~")[0].strip("() `")
    return f"{name}=0", f"{name}=1"


def begin(params: Params, frame: Frame) -> State:
    """Start with nothing counted."""
    name = _names(params)[1][:-2]
    treated = frame.columns.index(name)
    terms = (INTERCEPT, *(c for c in frame.columns if c != name))
    propensity = likelihood.begin(terms, np.zeros(len(terms)))
    return State(treated, None, propensity, None, arms.hazards(frame, name), arms.begin(params.tau))


def _split(state: State, design: Design) -> tuple[Vector, Matrix]:
    """Return the treatment as it is, and the covariates with an intercept."""
    own = design.x[:, state.treated] * design.frame.scale[state.treated] + design.frame.centre[state.treated]
    treated = np.where(np.abs(own - np.rint(own)) < 1e-9, np.rint(own), np.nan)
    return treated, np.column_stack([np.ones(len(own)), np.delete(design.x, state.treated, axis=1)])


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    treated, x = _split(state, design)
    if state.arms is None:
        flags = np.column_stack([treated == 0, treated == 1])
        repeated = float(len(treated) - distinct(design.person))
        had = persons_with(flags & design.event[:, None], design.person)
        wrong = np.array([float((~flags.any(axis=1)).sum()), repeated])
        return Arms(persons_with(flags, design.person), had, np.asarray(flags.any(axis=0), dtype=np.float64), wrong)
    if state.propensity.phase != "done":
        eta = x @ state.propensity.at
        mean = expit(eta)
        value = float((treated * eta - np.logaddexp(0, eta)).sum())
        return Likelihood(x.T @ (treated - mean), weighted_gram(x, mean * expit(-eta)), value)
    arm, eta = treated.astype(np.int64), x @ state.propensity.at
    weight, cut = _weights(params, state, arm, eta)
    if state.weighing is None:
        return _weighing(arm, weight, cut, x, design)
    weighted = arms.placed(design, arm, weight)
    if state.cox.phase != "done":
        return partial.local(arms.model(params.ties, params.max_rounds), state.cox, weighted)
    none = np.zeros((0, len(design.times)))
    return arms.local(state.curves, weighted, none, none)


def _weights(params: Params, state: State, arm: Ints, eta: Vector) -> tuple[Vector, Any]:
    """Return each row's weight, and whether it was cut."""
    assert state.arms is not None
    share = state.arms.persons / state.arms.persons.sum() if params.stabilised else np.ones(2)
    with np.errstate(over="ignore"):
        weight = share[arm] / expit(np.where(arm == 1, eta, -eta))
    low, high = params.bounds or (0.0, np.inf)
    return np.clip(weight, low, high), (weight < low) | (weight > high)


def _weighing(arm: Ints, weight: Vector, cut: Any, x: Matrix, design: Design) -> Weighing:
    mine = (arm == 1, arm == 0)
    flags = np.column_stack([*mine, *(m & design.event for m in mine)]).astype(np.float64)
    each = per_person(flags * weight[:, None], design.person)
    return Weighing(
        moments=np.column_stack([each.sum(axis=0), (each**2).sum(axis=0)]),
        cut=np.array([float((m & cut).sum()) for m in mine]),
        plain=np.array([np.concatenate([m @ x, m @ x**2]) for m in mine], dtype=np.float64),
        balanced=np.array([(m * weight) @ x for m in mine]),
    )


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on.

    Raises:
        BadTable: the treatment is not coded 0 and 1, or a person has several rows.

    """
    match total:
        case Arms():
            if total.wrong[0]:
                raise BadTable(f"{_names(params)[1][:-2]!r} is not coded 0 and 1", remedy="recode the treatment")
            if total.wrong[1]:
                raise BadTable("some persons have several rows", remedy="give one row per person")
            return replace(state, arms=total)
        case Likelihood():
            name = "survival_effect: propensity"
            return replace(state, propensity=likelihood.newton(state.propensity, total, name, params.max_rounds))
        case Weighing():
            return replace(state, weighing=total)
        case ArmExits() | Spread():
            return replace(state, curves=arms.aggregate(state.curves, total))
    return replace(state, cox=partial.aggregate(arms.model(params.ties, params.max_rounds), state.cox, total))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return hazard ratio, curves and balance; refuse as soon as an arm tells of too few."""
    names, found = _names(params), state.arms
    if found is not None:
        arms.refuse_few(found.persons, found.events, found.sites, frame, names)
    weighing = state.weighing
    if weighing is not None:
        arms.refuse_dominated(weighing.moments, frame.min_cell)
    if state.curves.spread is None or weighing is None or found is None:
        return None
    curves, tests = arms.shown(state.curves, frame, names)
    ratio = arms.hazard_ratio(state.cox, names[1][:-2])
    weight, squares = weighing.moments[:2].T
    fit, persons = state.propensity, found.persons[::-1]
    kept = [frame.columns.index(term) for term in fit.terms[1:]]
    transform = np.diag(np.concatenate([[1.0], 1 / frame.scale[kept]]))
    transform[0, 1:] = -frame.centre[kept] / frame.scale[kept]
    return Result(
        method="survival_effect",
        n=frame.rows,
        events=sum(sum(curve.events) for curve in curves),  # the rest of all would tell of few
        coefficients=(ratio,),
        curves=curves,
        tests=tests,
        details={
            "outcome": params.outcome,
            "weights": arms.weights_table(names, persons, weight, squares, weighing.cut, frame),
            "balance": arms.balance(fit.terms, persons, weighing.plain, weight, weighing.balanced),
            "propensity": dict(zip(fit.terms, (float(v) for v in transform @ fit.at), strict=True)),
            "ties": params.ties,
            "time_bin": frame.time_bin,
            "left_out_missing": frame.left_out,
        },
    )
