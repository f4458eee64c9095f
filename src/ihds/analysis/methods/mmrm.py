"""Mixed model for repeated measures: visits of a patient with an unstructured covariance.

Model      y = X beta + e, the visits of a patient jointly normal with a covariance matrix of their
           own; visits that are missing are left out (missing at random). REML or ML.
Down       the parameters of the Cholesky factor, and the turn of the columns.
Up         the fields of Crosses, Visits once, and Crosses again, as sums over sites.
Rounds     2 and about 8: least squares and its residuals per visit, then Newton's method with second
           derivatives.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     BadTable (two rows of one patient at one visit), Collinear, DidNotConverge, OutOfRange, Refused (fewer
           than min_cell persons with both of two visits).
Source     Mallinckrodt et al. 2008. Degrees of freedom by Satterthwaite's method. Checked against
           R nlme::gls with corSymm and varIdent (tests/vectors/mixed.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood, mixed
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.mixed import Crosses, Factor, Profile
from ihds.analysis.outcomes import categories, own_clusters
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadTable, Collinear, Refused

#: A covariance of so many visits has 55 parameters.
_MOST_VISITS = 10


@dataclass(frozen=True, slots=True)
class Params:
    """``visit`` names the category of the visit; ``cluster(patient)`` in the formula the patient."""

    formula: str
    visit: str
    criterion: Literal["REML", "ML"] = "REML"
    max_rounds: int = 100


@dataclass(frozen=True, slots=True)
class Visits(Contribution):
    """Products of least squares residuals of the same person at two visits, and how many persons have both."""

    product: Annotated[Matrix, Leaves("(visits, visits)", "scaled units squared", bound=2**14)]
    persons: Annotated[Matrix, Leaves("(visits, visits)", "persons", bound=1, counts_persons=True)]


CONTRIBUTIONS = (Crosses, Visits)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state in the entries of the Cholesky factor, in units of each visit's spread; and the last total.

    ``beta`` (p,) are the least squares coefficients once known; ``turn`` (p + 1, p + 1) is T of ``mixed``,
    ``turned`` that of the last total.
    """

    fit: Fit
    stage: Literal["least squares", "visits", "newton"]
    beta: Vector
    form: Factor
    turn: Matrix
    turned: Matrix
    min_cell: int
    visits: int
    total: Crosses | None
    rows: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number as outcome, a model matrix, the visit and the patient of each row."""
    formula = formulas.parse(params.formula, codebook.variables, categories(codebook))
    formula = own_clusters(formula, codebook)
    if formula.survival or len(formula.response) != 1 or not formula.intercept:
        raise BadFormula(f"{params.formula!r} needs one outcome and the intercept", remedy="write y ~ visit + group")
    if formula.strata or formula.offset or not formula.cluster:
        raise BadFormula("mmrm needs cluster(patient), and no strata() or offset()", remedy="add + cluster(patient)")
    if params.visit not in formula.categorical:
        raise BadFormula(
            f"the visit {params.visit!r} is no category in {params.formula!r}",
            remedy="name a category with published levels that is a term of the formula",
        )
    visits = len(codebook.variable(params.visit).levels)
    if visits > _MOST_VISITS:
        raise BadFormula(f"{visits} visits are too many for mmrm", remedy="use lmm, or fewer visits")
    return Ask(formula=formula, outcome="number", covariates="matrix", extra=visits * (visits + 1) // 2)


def begin(params: Params, frame: Frame) -> State:
    """Start with least squares: independent visits of one spread."""
    names = frame.levels[params.visit]
    form = Factor.lower(np.ones(len(names)), positive=True)
    terms = tuple(f"covariance of {names[a]} and {names[b]}" for a, b in form.entries)
    fit, r = likelihood.begin(terms, form.parameters(np.eye(len(names)))), len(frame.columns) + 1
    return State(
        fit=fit,
        stage="least squares",
        beta=np.zeros(r - 1),
        form=form,
        turn=np.eye(r),
        turned=np.eye(r),
        min_cell=frame.min_cell,
        visits=len(names),
        total=None,
        rows=frame.rows,
    )


def _patterns(params: Params, state: State, design: Design) -> tuple[list[tuple[Any, Any]], float]:
    """Return, per pattern of visits, its visits and its patients' rows (patients, visits, r); made once."""
    if "patterns" not in design.cache:
        visit = design.codes[params.visit]
        a = np.column_stack([design.x, design.y])
        patients = int(design.cluster.max()) + 1 if len(visit) else 0
        seen = np.zeros((patients, state.visits))
        np.add.at(seen, (design.cluster, visit), 1)
        wide = np.zeros((patients, state.visits, a.shape[1]))
        wide[design.cluster, visit] = a
        held = np.flatnonzero(seen.any(axis=1))
        patterns, which = np.unique(seen[held] > 0, axis=0, return_inverse=True)
        found = [(np.flatnonzero(p), wide[held[which.ravel() == at]][:, p]) for at, p in enumerate(patterns)]
        design.cache["patterns"] = (found, float(np.maximum(seen - 1, 0).sum()))
    made: tuple[list[tuple[Any, Any]], float] = design.cache["patterns"]
    return made


def _visits(state: State, patterns: list[tuple[Any, Any]]) -> Visits:
    product, persons = np.zeros((state.visits, state.visits)), np.zeros((state.visits, state.visits))
    for visits, rows in patterns:
        part = np.ix_(visits, visits)
        residual = rows @ np.append(-state.beta, 1.0)
        persons[part] += len(rows)
        product[part] += residual.T @ residual
    return Visits(product, persons)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums at the present covariance, or residuals' products, pattern by pattern."""
    patterns, twice = _patterns(params, state, design)
    if state.stage == "visits":
        return _visits(state, patterns)
    factor = state.form.at(state.fit.at)
    first, second = state.form.directions(state.fit.at)
    covariance, k, r = factor @ factor.T, len(state.form.entries), design.x.shape[1] + 1
    of_pairs = mixed.pairs(k)
    log_det, log_1, log_2 = 0.0, np.zeros(k), np.zeros(len(of_pairs))
    cross, cross_1, cross_2 = np.zeros((r, r)), np.zeros((k, r, r)), np.zeros((len(of_pairs), r, r))
    persons = 0.0
    for visits, rows in patterns:
        part, count = np.ix_(visits, visits), float(len(rows))
        turned = rows @ state.turn  # before anything is summed: a sum of large numbers would keep no residual
        products = np.einsum("iar,ibs->abrs", turned, turned, optimize=True)
        v = covariance[part]
        sign, value = np.linalg.slogdet(v)
        w = np.linalg.pinv(v) if sign <= 0 else np.linalg.inv(v)
        one = np.array([g[part] for g in first])
        wg = w @ one
        persons += count
        log_det += count * (value if sign > 0 else 1e3)
        log_1 += count * np.trace(wg, axis1=1, axis2=2)
        cross += np.einsum("ab,abrs->rs", w, products)
        cross_1 -= np.einsum("kab,abrs->krs", wg @ w, products)
        for at, (m, n) in enumerate(of_pairs):
            bend = w @ second[at][part]
            log_2[at] += count * float(np.trace(bend) - np.sum(wg[m] * wg[n].T))
            twisted = wg[n] @ wg[m] @ w
            cross_2[at] += np.einsum("ab,abrs->rs", twisted + twisted.T - bend @ w, products)
    found = Crosses(
        persons=persons,
        twice=twice,
        log_det=float(log_det),
        log_det_1=log_1,
        log_det_2=log_2,
        cross=cross,
        cross_1=cross_1,
        cross_2=cross_2,
    )
    return likelihood.within(found, design.frame.rows, mixed.COUNTS)


def _profile(params: Params, state: State, total: Crosses, by: Matrix, terms: tuple[str, ...]) -> Profile:
    return mixed.profile(total, by, state.rows, reml=params.criterion == "REML", profiled=False, terms=terms)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Keep least squares, start at the covariance of its residuals, then take Newton steps.

    Raises:
        BadTable: a patient has two rows at one visit.
        Collinear: the covariates determine the outcome.
        Refused: few persons have both of two visits.

    """
    if isinstance(total, Visits):
        return _started(state, total)
    if total.twice > 0:
        raise BadTable(
            f"some patients have two rows at one level of {params.visit!r}", remedy="keep one row per patient and visit"
        )
    if total.out > 0.5:
        fit = likelihood.newton(state.fit, mixed.out_of_range(total), "mmrm", params.max_rounds)
        return replace(state, fit=fit)
    terms = tuple(f"column {j}" for j in range(len(total.cross) - 1))
    at = _profile(params, state, total, state.turn, terms)
    turn = mixed.turn(total.cross, state.rows, state.turn)
    if state.stage == "least squares":
        known = replace(state.fit, log_likelihood=at.likelihood.log_likelihood)
        return replace(state, stage="visits", beta=at.beta, fit=known, turn=turn)
    fit = likelihood.newton(
        state.fit, at.likelihood, "mmrm", params.max_rounds, finite=True, reach=1.0, still=mixed.STILL
    )
    return replace(state, fit=fit, total=total, turned=state.turn, turn=state.turn if fit.halvings else turn)


def _started(state: State, total: Visits) -> State:
    """Start at the residuals' spreads and correlations, moved away from one until they are possible.

    Should their sums be out of range, Newton's halving goes back towards least squares.
    """
    persons = np.rint(total.persons)
    if bool(np.any((persons > 0) & (persons < state.min_cell))):
        raise Refused(
            "too few persons have both of two visits",
            reasons=(f"min_cell: at least {state.min_cell} persons for each pair of visits, or none",),
            remedy="leave a visit out",
        )
    covariance = total.product / np.maximum(persons, 1.0)
    if bool(np.any(np.diag(covariance)[np.diag(persons) > 0] < 1e-18)):
        raise Collinear(
            "the covariates determine the outcome: its residuals are lost in rounding",
            remedy="look for the outcome, or a copy of it, among the covariates",
        )
    size = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    possible = (vectors * np.maximum(values, 1e-4)) @ vectors.T
    lower = np.linalg.cholesky(possible / np.sqrt(np.outer(np.diag(possible), np.diag(possible))))
    form = replace(state.form, size=size)
    at, before = form.parameters(lower), form.parameters(np.diag(1 / size))  # the latter is least squares
    return replace(state, stage="newton", form=form, fit=replace(state.fit, at=at, step=at - before))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return fixed effects and the covariance of the visits once it has settled."""
    if state.fit.phase != "done" or state.total is None:
        return None
    at = _profile(params, state, state.total, state.turned, frame.columns)
    reml = params.criterion == "REML"
    coefficients, covariance, degrees = mixed.fixed_table(at, frame, reml=reml, profiled=False)
    factor = state.form.at(state.fit.at)
    visits = factor @ factor.T * frame.outcome_scale**2
    return Result(
        method="mmrm",
        n=frame.rows,
        coefficients=coefficients,
        log_likelihood={"fitted": mixed.log_likelihood(at, frame, reml=reml)},
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "criterion": params.criterion,
            "visits": list(frame.levels[params.visit]),
            "visit_covariance": [[float(c) for c in row] for row in visits],
            "groups": round(state.total.persons),
            "degrees_of_freedom": degrees,
            "left_out_missing": frame.left_out,
        },
    )
