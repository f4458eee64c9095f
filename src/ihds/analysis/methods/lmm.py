"""Linear mixed models: random intercepts and slopes of patients, by REML or ML.

Model      y = X beta + Z b + e within each patient, b ~ N(0, sigma² L L'), e ~ N(0, sigma²); patients
           lie within one site, so no effect of a patient ever leaves.
Down       the parameters of L, each the arsinh of an entry, and the turn of the columns.
Up         the fields of Crosses, as sums over sites.
Rounds     about 8: Newton's method with second derivatives.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Collinear (also: one row per patient), DidNotConverge, OutOfRange, BadFormula.
Source     Laird & Ware 1982; Bates et al. 2015; Satterthwaite's degrees of freedom as
           Kuznetsova et al. 2017. Checked against R lme4 and lmerTest (tests/vectors/mixed.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis import likelihood, mixed
from ihds.analysis.design import INTERCEPT, Ask, Design, Frame
from ihds.analysis.likelihood import Fit
from ihds.analysis.method import Matrix
from ihds.analysis.mixed import Crosses, Factor, Profile
from ihds.analysis.outcomes import categories, names_in, own_clusters, split_bars
from ihds.analysis.result import Result
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula, Collinear

#: A row tells less than this of an entry of L: there is one row per patient.
_NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Params:
    """The formula is lme4's: ``y ~ time + age + (time | patient)``, ``||`` for no correlation."""

    formula: str
    criterion: str = "REML"
    max_rounds: int = 100


CONTRIBUTIONS = (Crosses,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state, the last total, and which columns are random, in which units.

    ``turn`` (p + 1, p + 1) is T of ``mixed``, ``turned`` that of the last total.
    """

    fit: Fit
    turn: Matrix
    turned: Matrix
    random: tuple[int, ...]
    form: Factor
    total: Crosses | None
    rows: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a number as outcome, a model matrix and the patient of each row."""
    if params.criterion not in ("REML", "ML"):
        raise BadFormula(f"criterion is {params.criterion!r}", remedy="use REML or ML")
    fixed, inner, bar, group = split_bars(params.formula)
    formula = formulas.parse(f"{fixed} + cluster({group})", codebook.variables, categories(codebook))
    formula = own_clusters(formula, codebook)
    if formula.survival or len(formula.response) != 1 or not formula.intercept:
        raise BadFormula(f"{params.formula!r} needs one outcome and the fixed intercept", remedy="write y ~ time")
    if formula.strata or formula.offset:
        raise BadFormula("lmm takes no strata() or offset()", remedy="leave it out")
    size = len(_random_terms(inner, codebook)[1])
    if size > 3:
        raise BadFormula("lmm takes at most three random terms", remedy="leave some out")
    known = {formula.label(t) for t in formula.terms}
    for term in _random_terms(inner, codebook)[1]:
        if term != INTERCEPT and term not in known:
            raise BadFormula(
                f"the random term {term!r} is no fixed term", remedy="add it to the fixed terms, written the same way"
            )
        if term in categories(codebook):
            raise BadFormula(f"the random term {term!r} is a category", remedy="name a number")
    extra = size * (size + 1) // 2 + 1 if bar == "|" else size + 1
    return Ask(formula=formula, outcome="number", covariates="matrix", extra=extra)


def _random_terms(inner: str, codebook: Any) -> tuple[bool, list[str]]:
    """Return the random columns' names, the intercept first unless it is left out."""
    parsed = formulas.parse(f"~ {inner}", list(codebook.variables), categories(codebook))
    terms = [parsed.label(t) for t in parsed.terms]
    return parsed.intercept, ([INTERCEPT] if parsed.intercept else []) + terms


def begin(params: Params, frame: Frame) -> State:
    """Start at L = I."""
    _, inner, bar, _ = split_bars(params.formula)
    parsed = formulas.parse(f"~ {inner}", names_in(params.formula), list(frame.levels))
    named = ((INTERCEPT,) if parsed.intercept else ()) + tuple(parsed.label(t) for t in parsed.terms)
    random = tuple(frame.columns.index(name) for name in named)
    form = Factor.lower(np.ones(len(random)), diagonal=bar == "||")
    terms = tuple(f"theta {frame.columns[random[a]]}, {frame.columns[random[b]]}" for a, b in form.entries)
    fit = likelihood.begin(terms, form.parameters(np.eye(len(random))))
    plain = np.eye(len(frame.columns) + 1)
    state = State(fit, plain, plain, random, form, None, frame.rows)
    if not _centred(state):  # a year, for example, is about 2000 of its own spreads
        size = 1 / np.sqrt(1 + (frame.centre / frame.scale)[list(random)] ** 2)
        state = replace(state, form=replace(form, size=size))
    return state


def _random_columns(state: State, frame: Frame, x: Matrix) -> Matrix:
    """Return Z: centred columns where intercept and slope may correlate, plain ones where not."""
    z = np.asarray(x[:, list(state.random)])
    if _centred(state):
        return z
    return np.asarray(z + (frame.centre / frame.scale)[list(state.random)])


def _centred(state: State) -> bool:
    q = len(state.random)
    return 0 in state.random and len(state.form.entries) == q * (q + 1) // 2


def _products(state: State, design: Design) -> tuple[Any, Any, Matrix]:
    """Return, per patient, Z'Z and Z'[X y], and the total of [X y]'[X y]; made once."""
    if "products" not in design.cache:
        order = np.argsort(design.cluster, kind="stable")
        first = np.flatnonzero(np.diff(design.cluster[order], prepend=-1)) if len(order) else order
        a = np.column_stack([design.x, design.y])[order]
        z = _random_columns(state, design.frame, design.x)[order]
        q, r = z.shape[1], a.shape[1]
        if not len(order):
            design.cache["products"] = (np.zeros((0, q, q)), np.zeros((0, q, r)), np.zeros((r, r)))
        else:
            zz = np.stack([np.add.reduceat(z * z[:, [i]], first) for i in range(q)], axis=1)
            za = np.stack([np.add.reduceat(a * z[:, [i]], first) for i in range(q)], axis=1)
            design.cache["products"] = (zz, za, a.T @ a)
    found: tuple[Any, Any, Matrix] = design.cache["products"]
    return found


def local(params: Params, state: State, design: Design) -> Crosses:
    """Return the sums at theta, from per-patient products that do not depend on it (Woodbury)."""
    zz, za, whole = _products(state, design)
    za, whole = za @ state.turn, state.turn.T @ whole @ state.turn
    factor = state.form.at(state.fit.at)
    d = factor @ factor.T
    inner = np.eye(len(d)) + zz @ d
    try:
        f, e = np.linalg.solve(inner, zz), np.linalg.solve(inner, za)
    except np.linalg.LinAlgError:  # lost in rounding: the centre sees what does not fit, and halves its step
        inverse = np.linalg.pinv(inner)
        f, e = inverse @ zz, inverse @ za
    f = (f + f.transpose(0, 2, 1)) / 2
    first, second = state.form.directions(state.fit.at)
    r = len(whole)
    fe = [f @ (g @ e) for g in first]
    ge = [g @ e for g in first]
    fg = [f @ g for g in first]
    cross_2, log_2 = [], []
    for at, (m, n) in enumerate(mixed.pairs(len(first))):
        both = np.einsum("cqr,cqs->rs", ge[n], fe[m])
        cross_2.append(both + both.T - np.einsum("cqr,cqs->rs", e, second[at] @ e))
        log_2.append(float(np.sum(f * second[at]) - np.sum(fg[n] * fg[m].transpose(0, 2, 1))))
    found = Crosses(
        persons=float(len(zz)),
        twice=0.0,
        log_det=float(np.linalg.slogdet(inner)[1].sum()),
        log_det_1=np.array([float(np.sum(f * g)) for g in first]),
        log_det_2=np.array(log_2),
        cross=whole - np.einsum("cqr,cqs->rs", za, d @ e),
        cross_1=np.array([-np.einsum("cqr,cqs->rs", e, g) for g in ge]).reshape(len(first), r, r),
        cross_2=np.array(cross_2).reshape(-1, r, r),
    )
    return likelihood.within(found, design.frame.rows, mixed.COUNTS)


def _profile(params: Params, state: State, total: Crosses, by: Matrix, terms: tuple[str, ...]) -> Profile:
    return mixed.profile(total, by, state.rows, reml=params.criterion == "REML", profiled=True, terms=terms)


def aggregate(params: Params, state: State, total: Crosses) -> State:
    """Take a Newton step in theta.

    Raises:
        Collinear: nothing can be told of a random effect.

    """
    if total.out > 0.5:
        fit = likelihood.newton(state.fit, mixed.out_of_range(total), "lmm", params.max_rounds)
        return replace(state, fit=fit)
    terms = tuple(f"column {j}" for j in range(len(total.cross) - 1))
    found = _profile(params, state, total, state.turn, terms).likelihood
    told = np.abs(np.diag(found.information))
    if np.any(told <= _NOTHING * state.rows):
        term = state.fit.terms[int(np.argmin(told))]
        raise Collinear(f"{term!r} carries no information", remedy="leave it out of the model")
    fit = likelihood.newton(state.fit, found, "lmm", params.max_rounds, finite=True, reach=2.0, still=mixed.STILL)
    turn = state.turn if fit.halvings else mixed.turn(total.cross, state.rows, state.turn)
    return replace(state, fit=fit, total=total, turned=state.turn, turn=turn)


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return fixed effects, variance components and intraclass correlation once theta has settled."""
    if state.fit.phase != "done" or state.total is None:
        return None
    at = _profile(params, state, state.total, state.turned, frame.columns)
    reml = params.criterion == "REML"
    coefficients, covariance, degrees = mixed.fixed_table(at, frame, reml=reml, profiled=True)
    sigma2 = at.sigma2 * frame.outcome_scale**2
    components = _components(state, frame, sigma2)
    details: dict[str, Any] = {
        "criterion": params.criterion,
        "residual_sd": float(np.sqrt(sigma2)),
        "random": components,
        "groups": round(state.total.persons),
        "degrees_of_freedom": degrees,
        "left_out_missing": frame.left_out,
    }
    if state.random == (0,):
        between = components[0]["sd"] ** 2
        details["intraclass_correlation"] = between / (between + sigma2)
    return Result(
        method="lmm",
        n=frame.rows,
        coefficients=coefficients,
        log_likelihood={"fitted": mixed.log_likelihood(at, frame, reml=reml)},
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details=details,
    )


def _components(state: State, frame: Frame, sigma2: float) -> list[dict[str, Any]]:
    """Return standard deviations and correlations of the random effects in the variables' own units."""
    factor = state.form.at(state.fit.at)
    back = np.diag(1 / frame.scale[list(state.random)])
    if _centred(state):
        back[0] -= frame.centre[list(state.random)] / frame.scale[list(state.random)]
        back[0, 0] = 1.0
    d = back @ factor @ factor.T @ back.T * sigma2
    sd = np.sqrt(np.diag(d))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = d / np.outer(sd, sd)
    return [
        {
            "term": frame.columns[column],
            "sd": float(sd[i]),
            "correlation": [float(c) for c in correlation[i, :i]],
        }
        for i, column in enumerate(state.random)
    ]
