"""Cox proportional hazards regression with pooled or site-stratified risk sets.

Model      hazard(t | x) = hazard0_s(t) exp(x · beta), strata s; partial likelihood with ties by
           Efron or Breslow; (start, stop] intervals, so recurrent events and late entry fit in;
           rows may be weighted.
Down       beta (p,), and per cell of the shared time grid the tie sums A, B; for the robust
           variance also their means. Nothing per person.
Up         RiskSums, then Curvature, in turn; Score instead of both when stratified by site;
           Meat once for the robust variance. Only ever read as sums over sites.
Rounds     two per Newton step (one when stratified by site), 4 to 7 steps, one for Meat.
Reveals    differences of RiskSums between neighbouring cells are the covariate sums of those who
           leave: hence the secure sum and the time grid (methods of reconstruction fail on it).
           Weights must be worth min_cell equal persons, and so must those of the events.
Errors     Refused (weights of few persons), NoEvents, Collinear, Separation, DidNotConverge.
Source     Cox 1972; Efron 1977; Therneau & Grambsch 2000 §3, §7.2. Checked against R
           survival::coxph on the same grid (tests/vectors/survival.R).
Status     reviewed
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ihds.analysis import partial
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.method import Contribution, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.partial import CoxParams, Curvature, Meat, RiskSums, Score, State
from ihds.analysis.result import Result, Test, chi_square, wald_table
from ihds.data.codebook import Codebook

Params = CoxParams

CONTRIBUTIONS = (RiskSums, Curvature, Score, Meat)


STATE = State


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask for a survival outcome, a model matrix and a shared or the site's own clock."""
    return replace(partial.ask(params, codebook), weighted=True)


def begin(params: Params, frame: Frame) -> State:
    """Start at beta = 0."""
    return partial.begin(params, frame)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    return partial.local(params, state, design)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total: evaluate the likelihood, or take a Newton step, or finish the variance."""
    return partial.aggregate(params, state, total)


def _wald(beta: Vector, covariance: Matrix) -> tuple[float, int]:
    """Return the Wald statistic and its rank: with fewer clusters than terms the variance is singular."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > values[-1] * 1e-10
    along = vectors[:, kept].T @ beta
    return float(along**2 @ (1 / values[kept])), int(kept.sum())


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the table once the steps have settled."""
    if state.phase != "done":
        return None
    beta, covariance = frame.original(state.beta, state.covariance)
    robust = frame.original(state.beta, state.robust)[1] if len(state.robust) else None
    p = len(beta)
    null_inverse = invert(state.null_information, state.terms)
    wald, rank = _wald(state.beta, state.robust if len(state.robust) else state.covariance)
    weighting, weighted = frame.weighting, bool(frame.weighting.total)
    covariance = covariance / weighting.scale
    log_likelihood = {"null": state.null_log_likelihood, "fitted": state.log_likelihood}
    tests: tuple[Test, ...] = (chi_square("Wald", wald, rank),)
    if weighted:  # the sums were of weights in units of their scale
        lost = weighting.events * np.log(weighting.scale)
        log_likelihood = {name: weighting.scale * (value - lost) for name, value in log_likelihood.items()}
    else:  # tests that take the information for the variance say nothing of weighted rows
        ratio = chi_square("likelihood ratio", 2 * (state.log_likelihood - state.null_log_likelihood), p)
        score = chi_square("score", float(state.null_score @ null_inverse @ state.null_score), p)
        tests = (ratio, *tests, score)
    grid = "each site's own times" if not len(frame.times) else f"time bins of {frame.time_bin:g}"
    if len(frame.times) and frame.time_bin == 0:
        grid = "exact event times"
    return Result(
        method="cox",
        n=frame.rows,
        events=state.events,
        coefficients=wald_table(frame.columns, beta, covariance, robust),
        log_likelihood=log_likelihood,
        tests=tests,
        covariance=tuple(tuple(map(float, row)) for row in (covariance if robust is None else robust)),
        details={
            "ties": params.ties,
            "risk_sets": grid,
            "left_out_missing": frame.left_out,
            "clusters_within_sites": state.clusters or None,
            **({"effective_persons": weighting.effective} if weighted else {}),
        },
    )
