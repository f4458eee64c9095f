"""Linear models with correlated rows: what the sites' sums say of fixed effects and covariance.

V(theta) is the covariance of a person's rows, up to a factor sigma² where ``profiled``. Sites send
log|V| and A'V⁻¹A, A = [X y] T, with their first and second derivatives in theta; the centre profiles
the fixed effects (and sigma²) out and takes Newton steps in theta alone. T, made of the last total,
turns the columns so that sums of very different sizes travel with the same digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from ihds.analysis.design import Frame
from ihds.analysis.likelihood import Likelihood
from ihds.analysis.method import Contribution, Leaves, Matrix, Vector
from ihds.analysis.numerics import invert
from ihds.analysis.result import Coefficient, wald_row

#: What of ``Crosses`` no step changes.
COUNTS = ("persons", "twice")
#: The squared length of a step, in standard errors, that rounding leaves where V is nearly singular.
STILL = 1e-14


@dataclass(frozen=True, slots=True)
class Crosses(Contribution):
    """Determinants and weighted cross-products with their derivatives in theta, k = K(K+1)/2 pairs."""

    kind: ClassVar[str] = "score and information"

    persons: Annotated[float, Leaves("()", "persons with rows", bound=1, counts_persons=True)]
    twice: Annotated[float, Leaves("()", "rows beyond the first of a person and visit", bound=1)]
    log_det: Annotated[float, Leaves("()", "1")]
    log_det_1: Annotated[Vector, Leaves("(K,)", "1 / theta", bound=2**14)]
    log_det_2: Annotated[Vector, Leaves("(k,)", "1 / theta squared", bound=2**16)]
    cross: Annotated[Matrix, Leaves("(p + 1, p + 1)", "1", bound=2**20)]
    cross_1: Annotated[Any, Leaves("(K, p + 1, p + 1)", "1 / theta", bound=2**24)]
    cross_2: Annotated[Any, Leaves("(k, p + 1, p + 1)", "1 / theta squared", bound=2**28)]
    out: Annotated[float, Leaves("()", "sites out of range", bound=1, per="site")] = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """The centre's view at one theta: fixed effects in scaled units and the deviance's derivatives.

    ``reach`` (K, p, p) is the derivative in theta of the inverse of X'V⁻¹X.
    """

    beta: Vector
    inverse: Matrix
    reach: Any
    residual: float
    residual_1: Vector
    sigma2: float
    likelihood: Likelihood
    hessian: Matrix


def out_of_range(total: Crosses) -> Likelihood:
    """Return what Newton's method is told where some site's sums did not fit."""
    k = len(total.log_det_1)
    return Likelihood(np.zeros(k), np.eye(k), 0.0, out=total.out)


def pairs(k: int) -> list[tuple[int, int]]:
    """Return the pairs of parameters whose second derivatives travel."""
    return [(m, n) for m in range(k) for n in range(m, k)]


@dataclass(frozen=True, slots=True)
class Factor:
    """L, a lower triangle: rows of ``size`` (q,) times ``entries``, each sinh of its parameter, so a step may multiply.

    Where the diagonal is ``positive`` it is exp of its parameters instead: no variance is ever zero.
    """

    entries: tuple[tuple[int, int], ...]
    size: Vector
    positive: bool = False

    @classmethod
    def lower(cls, size: Vector, *, diagonal: bool = False, positive: bool = False) -> Factor:
        """Return the form of a whole lower triangle, or of its diagonal."""
        q = len(size)
        return cls(tuple((a, b) for b in range(q) for a in range(b, q) if not diagonal or a == b), size, positive)

    def parameters(self, whole: Matrix) -> Vector:
        """Return the parameters (K,) of L without its size."""
        return np.array(
            [np.log(whole[a, b]) if self.positive and a == b else np.arcsinh(whole[a, b]) for a, b in self.entries]
        )

    def _slopes(self, at: Vector) -> tuple[Vector, Vector, Vector]:
        """Return the entries with their first and second derivatives (K,)."""
        plain = np.array([self.positive and a == b for a, b in self.entries])
        grown = np.exp(np.where(plain, np.minimum(at, 300), 0.0))
        bent, slope = np.sinh(np.clip(at, -300, 300)), np.cosh(np.clip(at, -300, 300))
        value = np.where(plain, grown, bent)
        return value, np.where(plain, grown, slope), value

    def at(self, at: Vector) -> Matrix:
        """Return L (q, q)."""
        found = np.zeros((len(self.size), len(self.size)))
        for value, (a, b) in zip(self._slopes(at)[0], self.entries, strict=True):
            found[a, b] = value * self.size[a]
        return found

    def directions(self, at: Vector) -> tuple[Any, Any]:
        """Return the derivatives of D = L L' in the parameters: first (K, q, q), second (k, q, q)."""
        whole = self.at(at)
        units = []
        for a, b in self.entries:
            unit = np.zeros_like(whole)
            unit[a, b] = self.size[a]
            units.append(unit)
        plain = [u @ whole.T + whole @ u.T for u in units]
        _, slope, bend = self._slopes(at)
        first = np.array([s * d for s, d in zip(slope, plain, strict=True)]).reshape(len(units), *whole.shape)
        second = np.array(
            [
                slope[m] * slope[n] * (units[m] @ units[n].T + units[n] @ units[m].T) + (m == n) * bend[m] * plain[m]
                for m, n in pairs(len(units))
            ]
        )
        return first, second.reshape(-1, *whole.shape)


def turn(cross: Matrix, rows: int, before: Matrix) -> Matrix:
    """Return the T that makes of A'V⁻¹A as many times the identity as there are rows, so that no digit is lost.

    ``cross`` is of the columns turned by the T ``before``; the new one is an upper triangle too.
    """
    try:
        return np.asarray(before @ np.linalg.inv(np.linalg.cholesky(cross / rows).T))
    except np.linalg.LinAlgError:  # the columns determine one another; that is said elsewhere
        return before


def profile(total: Crosses, by: Matrix, rows: int, *, reml: bool, profiled: bool, terms: tuple[str, ...]) -> Profile:
    """Profile the fixed effects out and return the likelihood of theta with its derivatives.

    The log-likelihood is that of the scaled outcome and columns (Bates et al. 2015, §3.4). The total is
    of columns turned ``by`` an upper triangle: x' = X T, y' = X u + t y; all is reckoned there, where
    nothing is large or small, and only the answers are turned back.

    Raises:
        Collinear: columns determine one another.

    """
    p = len(terms)
    k = len(total.log_det_1)
    inverse = invert(total.cross[:p, :p], terms)
    beta = inverse @ total.cross[:p, p]
    v = np.append(-beta, 1.0)
    unit = float(by[p, p])
    residual = float(v @ total.cross @ v) / unit**2
    first = total.cross_1.reshape(k, p + 1, p + 1)
    second = total.cross_2.reshape(-1, p + 1, p + 1)
    slopes = np.array([first[m] @ v for m in range(k)]).reshape(k, p + 1)
    residual_1 = slopes @ v / unit**2
    nu = rows - p if reml else rows
    sigma2 = residual / nu if profiled else 1.0
    score, information, fixed = np.zeros(k), np.zeros((k, k)), np.zeros((k, k))
    for m in range(k):
        score[m] = total.log_det_1[m] + residual_1[m] / sigma2
        if reml:
            score[m] += float(np.sum(inverse * first[m, :p, :p]))
    for at, (m, n) in enumerate(pairs(k)):
        bend = float(v @ second[at] @ v - 2 * slopes[m, :p] @ inverse @ slopes[n, :p])
        value = total.log_det_2[at] + bend / unit**2 / sigma2
        if reml:
            value += float(np.sum(inverse * second[at, :p, :p]))
            value -= float(np.sum((inverse @ first[m, :p, :p] @ inverse) * first[n, :p, :p]))
        fixed[m, n] = fixed[n, m] = value
    information = fixed.copy()
    if profiled:
        information -= np.outer(residual_1, residual_1) / (sigma2 * residual)
    deviance = total.log_det + nu * np.log(2 * np.pi)
    deviance += nu * (1 + np.log(sigma2)) if profiled else residual
    back = by[:p, :p]
    if reml:
        deviance += float(np.linalg.slogdet(total.cross[:p, :p])[1]) - 2 * float(np.linalg.slogdet(back)[1])
    if not residual > 0:
        deviance = np.inf
    reach = np.array([-inverse @ first[m, :p, :p] @ inverse for m in range(k)]).reshape(k, p, p)
    found = Likelihood(-score / 2, information / 2, -float(deviance) / 2)
    return Profile(
        beta=(back @ beta - by[:p, p]) / unit,
        inverse=back @ inverse @ back.T,
        reach=back @ reach @ back.T,
        residual=residual,
        residual_1=residual_1,
        sigma2=sigma2,
        likelihood=found,
        hessian=fixed,
    )


def satterthwaite(at: Profile, rows: int, *, reml: bool, profiled: bool, contrast: Vector) -> float:
    """Return the degrees of freedom of one contrast of fixed effects (Satterthwaite 1946; Fai & Cornelius 1996).

    The variance's own variance comes from the curvature of the deviance in theta and log sigma².
    """
    k, p = len(at.residual_1), len(at.beta)
    variance = at.sigma2 * float(contrast @ at.inverse @ contrast)
    gradient = at.sigma2 * np.array([contrast @ at.reach[m] @ contrast for m in range(k)])
    hessian = at.hessian
    if profiled:
        nu = rows - p if reml else rows
        side = -at.residual_1 / at.sigma2
        hessian = np.block([[hessian, side[:, None]], [side[None, :], np.array([[float(nu)]])]])
        gradient = np.append(gradient, variance)
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    kept = values > 1e-10 * values[-1]  # a variance of zero has no spread of its own
    spread = 2 * float(along[kept] ** 2 @ (1 / values[kept]))
    return float("inf") if spread <= 0 else 2 * variance**2 / spread


def fixed_table(
    at: Profile, frame: Frame, *, reml: bool, profiled: bool
) -> tuple[tuple[Coefficient, ...], Matrix, list[float]]:
    """Return coefficient rows with t tests on Satterthwaite's degrees of freedom, covariance and the degrees."""
    unit, transform = frame.outcome_scale, frame.transform
    covariance = transform @ at.inverse @ transform.T * at.sigma2 * unit**2
    estimate = transform @ at.beta * unit
    estimate[0] += frame.outcome_centre
    found, degrees = [], []
    for j, term in enumerate(frame.columns):
        df = satterthwaite(at, frame.rows, reml=reml, profiled=profiled, contrast=transform[j])
        found.append(wald_row(term, float(estimate[j]), float(np.sqrt(covariance[j, j])), df))
        degrees.append(df)
    return tuple(found), covariance, degrees


def log_likelihood(at: Profile, frame: Frame, *, reml: bool) -> float:
    """Return the (restricted) log-likelihood of the outcome and columns in their own units."""
    nu = frame.rows - len(frame.columns) if reml else frame.rows
    columns = float(np.log(frame.scale).sum()) if reml else 0.0
    return at.likelihood.log_likelihood - nu * float(np.log(frame.outcome_scale)) - columns
