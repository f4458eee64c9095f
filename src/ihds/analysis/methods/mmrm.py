"""Mixed model for repeated measures: visits of a patient with an unstructured covariance.

Model      y = X beta + e, the visits of a patient jointly normal with a covariance matrix of their
           own; visits that are missing are left out (missing at random). REML or ML.
Down       the Cholesky factor of the covariance.
Up         the fields of Crosses, as sums over sites.
Rounds     about 12: Newton's method with second derivatives.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     BadTable (two rows of one patient at one visit), Collinear, DidNotConverge.
Source     Mallinckrodt et al. 2008. Degrees of freedom by Satterthwaite's method. Checked against
           R nlme::gls with corSymm and varIdent (tests/vectors/mixed.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood, mixed
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.likelihood import Fit
from ihds.analysis.method import Matrix
from ihds.analysis.mixed import Crosses, Profile
from ihds.analysis.outcomes import categories
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, BadTable

#: A covariance of so many visits has 55 parameters.
_MOST_VISITS = 10


@dataclass(frozen=True, slots=True)
class Params:
    """``visit`` names the category of the visit; ``cluster(patient)`` in the formula the patient."""

    formula: str
    visit: str
    criterion: Literal["REML", "ML"] = "REML"
    max_rounds: int = 100


CONTRIBUTIONS = (Crosses,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state in the entries of the Cholesky factor, and the last total."""

    fit: Fit
    entries: tuple[tuple[int, int], ...]
    visits: int
    total: Crosses | None
    rows: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number as outcome, a model matrix, the visit and the patient of each row."""
    formula = formulas.parse(params.formula, codebook.variables, categories(codebook))
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
    """Start at independent visits of the outcome's own spread."""
    visits = len(frame.levels[params.visit])
    entries = tuple((a, b) for b in range(visits) for a in range(b, visits))
    names = frame.levels[params.visit]
    terms = tuple(f"covariance of {names[a]} and {names[b]}" for a, b in entries)
    start = np.array([1.0 if a == b else 0.0 for a, b in entries])
    return State(likelihood.begin(terms, start), entries, visits, None, frame.rows)


def _products(params: Params, state: State, design: Design) -> tuple[list[tuple[Any, float, Any]], float]:
    """Return, per pattern of visits, its visits, its patients and their cross-products (v, v, r, r)."""
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
        found = []
        for at, pattern in enumerate(patterns):
            rows = wide[held[which.ravel() == at]][:, pattern]
            found.append((np.flatnonzero(pattern), float(len(rows)), np.einsum("iar,ibs->abrs", rows, rows)))
        design.cache["patterns"] = (found, float(np.maximum(seen - 1, 0).sum()))
    made: tuple[list[tuple[Any, float, Any]], float] = design.cache["patterns"]
    return made


def _factor(state: State) -> Matrix:
    factor = np.zeros((state.visits, state.visits))
    for value, (a, b) in zip(state.fit.at, state.entries, strict=True):
        factor[a, b] = value
    return factor


def local(params: Params, state: State, design: Design) -> Crosses:
    """Return the sums at the present covariance, pattern by pattern."""
    patterns, twice = _products(params, state, design)
    factor = _factor(state)
    first, second = mixed.directions(list(state.entries), factor)
    covariance, k, r = factor @ factor.T, len(state.entries), design.x.shape[1] + 1
    of_pairs = mixed.pairs(k)
    log_det, log_1, log_2 = 0.0, np.zeros(k), np.zeros(len(of_pairs))
    cross, cross_1, cross_2 = np.zeros((r, r)), np.zeros((k, r, r)), np.zeros((len(of_pairs), r, r))
    persons = 0.0
    for visits, count, products in patterns:
        part = np.ix_(visits, visits)
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
    return Crosses(
        persons=persons,
        twice=twice,
        log_det=float(log_det),
        log_det_1=log_1,
        log_det_2=log_2,
        cross=cross,
        cross_1=cross_1,
        cross_2=cross_2,
    )


def _profile(params: Params, state: State, total: Crosses, terms: tuple[str, ...]) -> Profile:
    return mixed.profile(total, state.rows, reml=params.criterion == "REML", profiled=False, terms=terms)


def aggregate(params: Params, state: State, total: Crosses) -> State:
    """Take a Newton step.

    Raises:
        BadTable: a patient has two rows at one visit.

    """
    if total.twice > 0:
        raise BadTable(
            f"some patients have two rows at one level of {params.visit!r}", remedy="keep one row per patient and visit"
        )
    terms = tuple(f"column {j}" for j in range(len(total.cross) - 1))
    at = _profile(params, state, total, terms)
    fit = likelihood.newton(state.fit, at.likelihood, "mmrm", params.max_rounds, finite=True, reach=0.25)
    return replace(state, fit=fit, total=total)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return fixed effects and the covariance of the visits once it has settled."""
    if state.fit.phase != "done" or state.total is None:
        return None
    at = _profile(params, state, state.total, frame.columns)
    reml = params.criterion == "REML"
    coefficients, covariance, degrees = mixed.fixed_table(at, frame, reml=reml, profiled=False)
    factor = _factor(state)
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
