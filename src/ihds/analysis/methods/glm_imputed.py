"""Generalised linear models with multiple imputation of missing covariates, within sites, by Rubin's rules.

Model      missing numbers are drawn, several times, from a Bayesian linear regression on all other
           columns and the outcome, fitted within the site by chained equations; each completed data
           set is fitted over all sites, and the fits are joined.
Down       the coefficients of every completed data set.
Up         Imputed: score, information and log-likelihood of every completed data set, as sums over
           sites; imputed values never leave.
Rounds     2 for gaussian, 4 to 8 otherwise.
Reveals    p = n would determine rows: disclosure refuses p > n / 3 and n - p < 10.
Errors     Separation, Collinear, DidNotConverge, BadFormula (a category has missing values: those
           rows are left out; name it as numbers to impute it).
Source     Rubin 1987; van Buuren 2018, algorithm 3.1; Barnard & Rubin 1999 (degrees of freedom). The
           pooling is checked against R mice (tests/vectors/regression.R).
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from scipy.special import expit

from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import has_settled, invert, newton_decrement, runs_away, weighted_gram
from ihds.analysis.outcomes import plain_formula
from ihds.analysis.result import Result, wald_row
from ihds.data.codebook import Codebook
from ihds.errors import BadInput, BadTable, DidNotConverge, Separation

#: Rounds of the chained equations, and the ridge that keeps a small site's regressions solvable.
_CYCLES, _RIDGE = 10, 1e-5


@dataclass(frozen=True, slots=True)
class Params:
    """``imputations`` completed data sets are drawn; the same ``seed`` draws the same ones."""

    formula: str
    family: Literal["gaussian", "binomial"] = "gaussian"
    imputations: int = 20
    seed: int = 1
    max_rounds: int = 40


@dataclass(frozen=True, slots=True)
class Imputed(Contribution):
    """Score, information and log-likelihood per completed data set; how many rows had something missing."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Matrix, Leaves("(imputations, p)", "1 / covariate unit")]
    information: Annotated[Any, Leaves("(imputations, p, p)", "1 / covariate unit squared")]
    log_likelihood: Annotated[Vector, Leaves("(imputations,)", "1, up to a constant")]
    incomplete: Annotated[float, Leaves("()", "rows with an imputed value", bound=1)]
    blind: Annotated[Vector, Leaves("(p,)", "sites without any value of the column", bound=1, per="site")]


CONTRIBUTIONS = (Imputed,)


@dataclass(frozen=True, slots=True)
class State:
    """Newton's state of every completed data set."""

    terms: tuple[str, ...]
    beta: Matrix
    gains: Matrix
    inverse: Any
    residual: Vector
    incomplete: int
    settled: bool
    rounds: int


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for an outcome and a model matrix whose numbers may be missing."""
    formula = plain_formula(params.formula, codebook, "glm_imputed")
    if not 2 <= params.imputations <= 200:
        raise BadInput(f"imputations is {params.imputations}", remedy="give 2 to 200")
    outcome: Any = "number" if params.family == "gaussian" else "binary"
    return Ask(formula=formula, outcome=outcome, covariates="matrix", gaps=True, undivided=True)


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0."""
    p, m = len(frame.columns), params.imputations
    return State(
        frame.columns, np.zeros((m, p)), np.full((m, 3), np.inf), np.zeros((m, p, p)), np.zeros(m), 0, False, 0
    )


def _complete(params: Params, design: Design) -> Any:
    """Return the completed model matrices (imputations, n, p); drawn once, the same again after a crash."""
    if "completed" not in design.cache:
        x, y = design.x, design.y
        gaps = ~np.isfinite(x)
        # the site's own values seed its draws, so that no two sites draw alike and a restart draws the same
        own = np.frombuffer(np.ascontiguousarray(np.where(gaps, 0.0, x)).tobytes(), dtype=np.uint32)
        rng = np.random.default_rng([params.seed, int(own.sum(dtype=np.uint64) % 2**32), len(y)])
        design.cache["completed"] = np.array([_draw(rng, x, y, gaps) for _ in range(params.imputations)])
    return design.cache["completed"]


def _draw(rng: np.random.Generator, x: Matrix, y: Vector, gaps: Any) -> Matrix:
    """Return one completed matrix by chained Bayesian regressions, starting from values seen at random."""
    filled = np.array(x, order="C")
    lacking = np.flatnonzero(gaps.any(axis=0))
    for j in lacking:
        seen = x[~gaps[:, j], j]
        filled[gaps[:, j], j] = rng.choice(seen, int(gaps[:, j].sum())) if len(seen) else 0.0
    for _ in range(_CYCLES if len(lacking) else 0):
        for j in lacking:
            held = ~gaps[:, j]
            others = np.column_stack([np.delete(filled, j, axis=1), y])
            if held.sum() <= others.shape[1]:
                continue  # too few rows to regress on: the random draw stays
            a, b = others[held], x[held, j]
            gram = a.T @ a
            gram[np.diag_indices(len(gram))] *= 1 + _RIDGE
            gram[np.diag_indices(len(gram))] += 1e-12
            inverse = np.linalg.inv(gram)
            centre = inverse @ (a.T @ b)
            residual = b - a @ centre
            spread = np.sqrt(residual @ residual / rng.chisquare(max(len(b) - a.shape[1], 1)))
            drawn = centre + spread * np.linalg.cholesky((inverse + inverse.T) / 2) @ rng.normal(size=len(centre))
            filled[~held, j] = others[~held] @ drawn + spread * rng.normal(size=int((~held).sum()))
    return filled


def local(params: Params, state: State, design: Design) -> Imputed:
    """Return the sums of every completed data set at its own coefficients."""
    completed, y = _complete(params, design), design.y
    m, p = state.beta.shape
    score, information, value = np.zeros((m, p)), np.zeros((m, p, p)), np.zeros(m)
    for i in range(m):
        x = completed[i]
        eta = x @ state.beta[i]
        if params.family == "binomial":
            mean = expit(eta)
            weight = mean * expit(-eta)
            value[i] = (y * eta - np.logaddexp(0, eta)).sum()
        else:
            mean, weight = eta, np.ones(len(y))
            value[i] = -0.5 * np.sum((y - eta) ** 2)
        score[i] = x.T @ (y - mean)
        information[i] = weighted_gram(x, weight)
    incomplete = float(np.count_nonzero(~np.isfinite(design.x).all(axis=1)))
    blind = ~np.isfinite(design.x).any(axis=0) if len(y) else np.zeros(p, dtype=bool)
    return Imputed(score, information, value, incomplete, np.asarray(blind, dtype=np.float64))


def aggregate(params: Params, state: State, total: Imputed) -> State:
    """Take a Newton step in every completed data set.

    Raises:
        BadTable: a site has no value at all of a covariate, so nothing to draw it from.
        Separation: a coefficient runs to infinity in one of them.
        DidNotConverge: the rounds are used up.

    """
    if total.blind.any():
        raise BadTable(
            f"some site has no value at all of {state.terms[int(np.argmax(total.blind))]!r}",
            remedy="leave the variable or that site out: there is nothing to draw its values from",
        )
    beta, gains, inverse = state.beta.copy(), state.gains.copy(), state.inverse.copy()
    settled = True
    for i in range(len(beta)):
        inverse[i] = invert(total.information[i], state.terms)
        step = inverse[i] @ total.score[i]
        gain = newton_decrement(step, total.score[i])
        gains[i] = [*gains[i, 1:], gain]
        beta[i] += step
        settled &= has_settled(gain, float(gains[i, 1]))
        if params.family == "binomial" and runs_away(tuple(gains[i])):
            term = state.terms[int(np.argmax(np.abs(step)))]
            raise Separation(f"{term!r} predicts the outcome perfectly", remedy="leave it out, or merge categories")
    rounds = state.rounds + 1
    if rounds >= params.max_rounds and not settled:
        raise DidNotConverge(f"glm_imputed: still moving after {rounds} rounds", remedy="look for a rare category")
    return replace(
        state,
        beta=beta,
        gains=gains,
        inverse=inverse,
        residual=-2 * total.log_likelihood,
        incomplete=round(total.incomplete),
        settled=settled,
        rounds=rounds,
    )


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the joined coefficients once every fit has settled."""
    if not state.settled:
        return None
    n, p = frame.rows, len(frame.columns)
    unit = frame.outcome_scale if params.family == "gaussian" else 1.0
    estimates = state.beta @ frame.transform.T * unit
    if params.family == "gaussian":
        estimates[:, 0] += frame.outcome_centre
    scale = state.residual / (n - p) if params.family == "gaussian" else np.ones(len(state.beta))
    spread = np.einsum("ij,mjk,lk->mil", frame.transform, state.inverse, frame.transform)
    within = spread * scale[:, None, None] * unit**2
    centre, covariance, df, share = pool(estimates, within, n - p)
    return Result(
        method="glm_imputed",
        n=n,
        coefficients=tuple(
            wald_row(term, float(centre[j]), float(np.sqrt(covariance[j, j])), float(df[j]))
            for j, term in enumerate(frame.columns)
        ),
        covariance=tuple(tuple(map(float, row)) for row in covariance),
        details={
            "family": params.family,
            "imputations": params.imputations,
            "rows_with_imputed_values": state.incomplete if state.incomplete >= frame.min_cell else None,
            "missing_information": dict(zip(frame.columns, (float(v) for v in share), strict=True)),
            "degrees_of_freedom": [float(v) for v in df],
            "left_out_missing": frame.left_out,
        },
    )


def pool(estimates: Matrix, within: Any, complete_df: float) -> tuple[Vector, Matrix, Vector, Vector]:
    """Return Rubin's estimate (p,), total covariance (p, p), degrees of freedom and fraction of missing information.

    Shapes: ``estimates`` (m, p), ``within`` (m, p, p). Degrees of freedom are Barnard and Rubin's.
    """
    m = len(estimates)
    centre, inside = estimates.mean(axis=0), within.mean(axis=0)
    off = estimates - centre
    between = off.T @ off / (m - 1)
    total = inside + (1 + 1 / m) * between
    share = np.maximum((1 + 1 / m) * np.diag(between) / np.diag(total), 1e-12)
    old = (m - 1) / share**2
    observed = (complete_df + 1) / (complete_df + 3) * complete_df * (1 - share)
    df = old * observed / (old + observed)
    increase = share / (1 - share)
    return centre, total, df, (increase + 2 / (df + 3)) / (increase + 1)
