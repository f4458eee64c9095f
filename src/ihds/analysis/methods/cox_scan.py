"""A score test of survival per gene or variant, on top of a Cox model of the clinical covariates.

Model      hazard = baseline_site(t) exp(x · beta + z_g gamma_g); each feature alone is added to the
           model fitted without it, and tested at gamma_g = 0. Risk sets are the sites' own.
Down       beta (p,); each feature's centre and scale.
Up         Score in turns, then Magnitudes, Means and Scan, as sums over sites; nothing per time.
Rounds     4 to 7 for the base model, and 4.
Reveals    scores and information over all sites: no risk set of anybody leaves a site.
Errors     as cox; BadInput.
Source     Rao 1948; Cox 1972. Checked against the score test of R coxph with strata(site)
           (tests/vectors/scans.R). A missing value counts as the feature's mean.
Status     experimental
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.special import chdtrc

from ihds.analysis import features, partial
from ihds.analysis.design import Ask, Design, Frame
from ihds.analysis.features import Magnitudes, Means, Scale
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.partial import CoxParams, Score
from ihds.analysis.result import Result, wald_table
from ihds.analysis.survival import break_ties, cells_of
from ihds.data.codebook import Codebook


@dataclass(frozen=True, slots=True)
class Params(CoxParams):
    """``features`` is a pattern of names, for example ``gene_*``; ``strata(site)`` is always meant."""

    features: str = "*"


@dataclass(frozen=True, slots=True)
class Scan(Contribution):
    """Per feature the score, its information, and its information with the covariates."""

    kind: ClassVar[str] = "gene vector"

    score: Annotated[Vector, Leaves("(features,)", "scaled unit")]
    information: Annotated[Vector, Leaves("(features,)", "scaled unit squared", bound=2**14)]
    cross: Annotated[Matrix, Leaves("(features, p)", "scaled unit x covariate unit")]
    weights: features.Weights


CONTRIBUTIONS = (Score, Magnitudes, Means, Scan)


@dataclass(frozen=True, slots=True)
class State:
    """The base model, the features' scale and the opened sums."""

    cox: partial.State
    scale: Scale
    total: Scan | None


STATE = State


def _by_site(params: Params) -> Params:
    return params if "strata(site)" in params.formula else replace(params, formula=params.formula + " + strata(site)")


def ask(params: Params, codebook: Codebook) -> Ask:
    """Ask as cox does with strata(site), and for the features."""
    asked = partial.ask(_by_site(params), codebook)
    return replace(asked, features=features.select(params.features, codebook, asked.formula.variables))


def begin(params: Params, frame: Frame) -> State:
    """Start the base model."""
    return State(partial.begin(params, frame), features.begin(frame), None)


def local(params: Params, state: State, design: Design) -> Contribution:
    """Return the sums this round asks for."""
    if state.cox.phase != "done":
        return partial.local(params, state.cox, design)
    if not state.scale.placed:
        return features.scaling(state.scale, design)
    cells, x, beta = cells_of(design), design.x, state.cox.beta
    eta = x @ beta + design.offset
    risk = np.exp(eta)
    sums = partial.risk_sums(design, x, eta, risk)
    tied = break_ties(sums.d, sums.s0, sums.d0, params.ties)
    events = cells.event_order
    weight = risk * cells.over_risk(tied.a)
    weight[events] -= risk[events] * tied.b[cells.exit[events]]
    residual = design.event.astype(np.float64) * (design.exit > design.entry) - weight
    count = design.features.shape[1]
    score, information, cross = np.zeros(count), np.zeros(count), np.zeros((count, x.shape[1]))
    spread = np.zeros((count, 2))
    for part, block in features.centred(state.scale, design):
        z = np.where(np.isfinite(block), block, 0.0)
        s1, d1 = cells.at_risk(risk[:, None] * z), cells.at_event(risk[:, None] * z)
        score[part] = residual @ z
        outer = np.einsum("c,cg,cg->g", tied.aa, s1, s1) - 2 * np.einsum("c,cg,cg->g", tied.ab, s1, d1)
        outer += np.einsum("c,cg,cg->g", tied.bb, d1, d1)
        information[part] = weight @ (z * z) - outer
        mixed = s1.T @ (tied.aa[:, None] * sums.s1 - tied.ab[:, None] * sums.d1)
        mixed -= d1.T @ (tied.ab[:, None] * sums.s1 - tied.bb[:, None] * sums.d1)
        cross[part] = z.T @ (weight[:, None] * x) - mixed
        spread[part] = features.weights(z, design.person)
    return Scan(score, information, cross, spread)


def aggregate(params: Params, state: State, total: Any) -> State:
    """Take a total and move on."""
    if state.cox.phase != "done":
        return replace(state, cox=partial.aggregate(replace(params, robust=False), state.cox, total))
    if isinstance(total, Scan):
        return replace(state, total=total)
    return replace(state, scale=features.scaled(state.scale, total))


def finish(params: Params, frame: Frame, state: State) -> Result | None:
    """Return the score tests in the order of their p values, with the first step towards each coefficient."""
    total = state.total
    if total is None:
        return None
    few = state.scale.few(total.weights)
    kept = np.flatnonzero(~few)
    cross, held = total.cross[kept], total.information[kept]
    spread = held - np.einsum("gi,ij,gj->g", cross, state.cox.covariance, cross)
    varies = spread > 1e-10 * np.maximum(held, 1e-300)
    spread = np.where(varies, spread, 1.0)
    chi = np.where(varies, total.score[kept] ** 2 / spread, 0.0)
    p = np.where(varies, chdtrc(1, chi), 1.0)
    adjusted = features.false_discovery(p)
    found: dict[str, Any] = {
        "feature": np.array(frame.features)[kept],
        "one_step_estimate": np.where(varies, total.score[kept] / spread, 0.0) / state.scale.scale[kept],
        "chi_square": chi,
        "p": p,
        "adjusted_p": adjusted,
        "n": features.shown_counts(state.scale.count, frame.rows, frame.min_cell).astype(np.int64)[kept],
    }
    beta, covariance = frame.original(state.cox.beta, state.cox.covariance)
    return Result(
        method="cox_scan",
        n=frame.rows,
        events=state.cox.events,
        coefficients=wald_table(frame.columns, beta, covariance),
        log_likelihood={"null": state.cox.null_log_likelihood, "fitted": state.cox.log_likelihood},
        details={
            "features": features.table(found, np.argsort(p, kind="stable")),
            "hidden_features": int(few.sum()),
            "below_5_per_cent": int(np.sum(adjusted < 0.05)),
            "left_out_missing": frame.left_out,
        },
    )
