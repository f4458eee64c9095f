"""Maximum likelihood by Newton's method on sums: what every model with a smooth likelihood shares.

A method gives score, information and log-likelihood at the present parameters; this file takes the
steps. The null model is fitted first, its parameters alone being free, then the whole one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.method import Contribution, Leaves, Matrix, Vector, leaves
from ihds.analysis.numerics import RANK_TOLERANCE, has_settled, invert, newton_decrement, runs_away
from ihds.analysis.result import Coefficient, Test, chi_square, wald_table
from ihds.errors import DidNotConverge, OutOfRange, Separation

#: The null model's log-likelihood is exact once a step gains less than this.
_NULL_GAIN = 1e-11
_HALVINGS = 30


@dataclass(frozen=True, slots=True)
class Likelihood(Contribution):
    """Score, information and log-likelihood of all parameters, in scaled units."""

    kind: ClassVar[str] = "score and information"

    score: Annotated[Vector, Leaves("(q,)", "1 / parameter")]
    information: Annotated[Matrix, Leaves("(q, q)", "1 / parameter squared")]
    log_likelihood: Annotated[float, Leaves("()", "1")]
    out: Annotated[float, Leaves("()", "sites out of range", bound=1, per="site")] = field(default=0.0, kw_only=True)


C = TypeVar("C", bound=Contribution)


@dataclass(frozen=True, slots=True)
class Fit:
    """Newton's state; ``null`` (q,) is 1 for the parameters of the null model, else 0.

    ``covariance`` is the inverse information of the free parameters, zero elsewhere.
    """

    phase: Literal["null", "whole", "done"]
    terms: tuple[str, ...]
    at: Vector
    null: NDArray[np.int64]
    step: Vector
    gains: tuple[float, float, float]
    covariance: Matrix
    log_likelihood: float
    null_log_likelihood: float
    rounds: int
    halvings: int

    def free(self) -> NDArray[np.intp]:
        """Return the parameters that are fitted now."""
        return np.flatnonzero(self.null) if self.phase == "null" else np.arange(len(self.at))


def begin(terms: tuple[str, ...], at: Vector, null: NDArray[np.bool_] | None = None) -> Fit:
    """Start at ``at`` (q,); ``null`` marks the null model, without it the whole model is fitted at once."""
    q = len(terms)
    return Fit(
        phase="null" if null is not None and null.any() else "whole",
        terms=terms,
        at=at,
        null=np.zeros(q, dtype=np.int64) if null is None else null.astype(np.int64),
        step=np.zeros(q),
        gains=(np.inf, np.inf, np.inf),
        covariance=np.zeros((q, q)),
        log_likelihood=-np.inf,
        null_log_likelihood=-np.inf,
        rounds=0,
        halvings=0,
    )


def newton(
    fit: Fit,
    total: Likelihood,
    name: str,
    max_rounds: int,
    *,
    finite: bool = False,
    reach: float | Vector = np.inf,
    still: float = 0.0,
) -> Fit:
    """Take the step that a total asks for.

    Far from the maximum the information may not be positive definite; the step is then damped
    (Levenberg). A step that lowers the likelihood is halved. ``finite`` says that no parameter can
    run to infinity, so that slow convergence is only slow; ``reach`` is the furthest any parameter,
    or each (q,), may move in one step; a gain of ``still`` is none, where derivatives are numerical.

    Raises:
        Collinear: parameters determine one another.
        Separation: a parameter runs to infinity.
        DidNotConverge: the rounds are used up.
        OutOfRange: the sums do not fit where the search starts; later, the step is halved.

    """
    fit = replace(fit, rounds=fit.rounds + 1)
    known = np.isfinite(fit.log_likelihood)
    slack = 1e-9 * max(1.0, abs(fit.log_likelihood)) if known else 0.0
    if total.out > 0.5 and not known:
        raise OutOfRange(
            f"{name}: the sums of some site are out of range where the search starts",
            remedy="rescale the variables, or look for a wrong unit or an extreme value",
        )
    if total.out > 0.5 or (known and not total.log_likelihood >= fit.log_likelihood - slack):
        if fit.halvings >= _HALVINGS:
            raise DidNotConverge(f"{name}: no step raises the likelihood", remedy="use fewer terms")
        step = fit.step / 2
        return replace(fit, at=fit.at - step, step=step, halvings=fit.halvings + 1)
    free = fit.free()
    terms = tuple(fit.terms[i] for i in free)
    inverse, damped = _inverse(total.information[np.ix_(free, free)], terms)
    step, covariance = np.zeros_like(fit.at), np.zeros_like(fit.covariance)
    step[free] = inverse @ total.score[free]
    covariance[np.ix_(free, free)] = inverse
    furthest = float(np.max(np.abs(step) / reach, initial=0.0))
    if furthest > 1:
        step, damped = step / furthest, True
    gain = newton_decrement(step, total.score)
    gains = fit.gains if damped else (*fit.gains[1:], gain)
    fit = replace(fit, step=step, gains=gains, covariance=covariance, log_likelihood=total.log_likelihood, halvings=0)
    if fit.phase == "null" and gain <= max(_NULL_GAIN, still) and not damped:
        reached = total.log_likelihood + gain / 2
        done = bool(fit.null.all()) and has_settled(gain, fit.gains[1])
        return replace(
            fit,
            phase="done" if done else "whole",
            at=fit.at + step,
            null_log_likelihood=reached,
            gains=(np.inf, np.inf, np.inf),
            log_likelihood=reached if done else -np.inf,
        )
    if not damped and (gain <= still or has_settled(gain, fit.gains[1])):
        return replace(fit, phase="done", at=fit.at + step, log_likelihood=total.log_likelihood + gain / 2)
    if not damped and not finite and runs_away(gains):
        term = fit.terms[int(np.argmax(np.abs(step)))]
        raise Separation(
            f"{term!r} predicts the outcome perfectly, so its coefficient is infinite",
            remedy="leave it out, merge categories, or use a penalised model",
        )
    if fit.rounds >= max_rounds:
        raise DidNotConverge(
            f"{name}: the last step was {np.sqrt(gain):.1e} standard errors after {fit.rounds} rounds",
            remedy="look for a rare category, or raise max_rounds",
        )
    return replace(fit, at=fit.at + step)


def within(found: C, rows: int, kept: tuple[str, ...] = ()) -> C:
    """Return a site's sums, or, where they exceed half of what is declared, only that: the step is halved.

    ``rows`` are those of all sites; ``found`` has a leaf ``out`` of sites that did not fit, and ``kept`` are
    the leaves that no step changes.
    """
    judged = [(name, leaf) for name, leaf in leaves(type(found)).items() if name not in (*kept, "out")]
    sums = {name: (getattr(found, name), leaf.bound / 2) for name, leaf in judged}
    if all(bool(np.all(np.abs(v) <= bound * max(rows, 1))) for v, bound in sums.values()):  # NaN is no such number
        return found
    empty: dict[str, Any] = {name: np.zeros_like(v) if np.ndim(v) else 0.0 for name, (v, _) in sums.items()}
    return replace(found, **{**empty, "out": 1.0})


def _inverse(information: Matrix, terms: tuple[str, ...]) -> tuple[Matrix, bool]:
    """Return the inverse of the information, damped if it is not positive definite."""
    information = (information + information.T) / 2
    size = np.sqrt(np.maximum(np.abs(np.diag(information)), 1e-300))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    if values[0] > -RANK_TOLERANCE:
        return invert(information, terms), False
    lifted = np.maximum(np.abs(values), 0.1)  # the step goes uphill along every direction, at most ten sizes far
    return np.asarray((vectors / lifted) @ vectors.T / np.outer(size, size)), True


def table(fit: Fit, transform: Matrix, shift: Vector | float = 0.0) -> tuple[tuple[Coefficient, ...], Matrix]:
    """Return the coefficient rows and the covariance after a linear change of parameters."""
    covariance = transform @ fit.covariance @ transform.T
    return wald_table(fit.terms, transform @ fit.at + shift, covariance), covariance


def ratio_test(fit: Fit) -> tuple[Test, ...]:
    """Return the likelihood ratio test against the null model; none if they are the same."""
    df = int((fit.null == 0).sum())
    if not df or not fit.null.any():
        return ()
    return (chi_square("likelihood ratio", 2 * (fit.log_likelihood - fit.null_log_likelihood), df),)
