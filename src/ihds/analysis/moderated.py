"""Many variances moderated together (limma's empirical Bayes), and the tests that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, polygamma, stdtr, stdtrit

from ihds.analysis import features
from ihds.analysis.method import Matrix, Vector

#: The share of features limma takes to be different, for its log odds.
_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Fits:
    """Linear fits of features: coefficients (g, p), inverse cross-products (g, p, p), variances and degrees (g,)."""

    beta: Matrix
    unscaled: Any
    variance: Vector
    df: Vector


def moderated(fits: Fits, contrast: Vector) -> tuple[dict[str, Vector], float, float]:
    """Return limma's columns for a contrast (p,) of coefficients, and the prior's degrees of freedom and variance."""
    prior_df, prior = _prior(fits.variance, fits.df)
    posterior = fits.variance if prior_df == 0 else _squeezed(fits.variance, fits.df, prior, prior_df)
    total_df = np.minimum(fits.df + prior_df, fits.df.sum())
    estimate = fits.beta @ contrast
    spread = np.sqrt(np.einsum("i,gij,j->g", contrast, fits.unscaled, contrast))
    se = spread * np.sqrt(posterior)
    t = np.divide(estimate, se, out=np.zeros_like(se), where=(se > 0) | (estimate != 0))  # what never varies: 0
    p = 2 * stdtr(total_df, -np.abs(t))
    found = {
        "estimate": estimate,
        "se": se,
        "t": t,
        "p": p,
        "adjusted_p": features.false_discovery(p),
        "log_odds": _log_odds(t, spread, total_df, prior_df, prior),
    }
    return found, prior_df, prior


def _prior(variance: Vector, df: Vector) -> tuple[float, float]:
    """Return the prior's degrees of freedom and variance from the spread of log variances (Smyth 2004, §6.2)."""
    middle = float(np.median(variance))
    kept = np.maximum(variance, 1e-5 * (middle or 1.0))  # where most are 0 limma takes 1 for the middle
    e = np.log(kept) - digamma(df / 2) + np.log(df / 2)
    mean, n = float(e.mean()), len(e)
    spread = float(np.sum((e - mean) ** 2) / max(n - 1, 1) - np.mean(polygamma(1, df / 2)))
    if n < 2:
        return 0.0, float(kept[0])
    if spread <= 0:
        return float("inf"), float(np.exp(mean))
    half = _inverse_trigamma(spread)
    return 2 * half, float(np.exp(mean + digamma(half) - np.log(half)))


def _inverse_trigamma(x: float) -> float:
    """Return y with trigamma(y) = x by Newton's method (Smyth 2004, appendix)."""
    if x > 1e7:
        return float(1 / np.sqrt(x))
    if x < 1e-6:
        return 1 / x
    y = 0.5 + 1 / x
    for _ in range(50):
        value = float(polygamma(1, y))
        step = value * (1 - value / x) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-12:
            break
    return y


def _squeezed(variance: Vector, df: Vector, prior: float, prior_df: float) -> Vector:
    if not np.isfinite(prior_df):
        return np.full_like(variance, prior)
    return np.asarray((df * variance + prior_df * prior) / (df + prior_df))


def _log_odds(t: Vector, spread: Vector, df: Vector, prior_df: float, prior: float) -> Vector:
    """Return limma's log odds that a feature differs, its prior spread from the largest t values."""
    n, most = len(t), float(df.max())
    target = int(np.ceil(_SHARE / 2 * n))
    share = max(target / n, _SHARE)
    tail = stdtr(df, -np.abs(t))
    even = np.where(df < most, -stdtrit(most, np.maximum(tail, 1e-300)), np.abs(t))
    order = np.argsort(-even, kind="stable")[:target]
    p0 = 2 * stdtr(most, -even[order])
    wanted = ((np.arange(target) + 0.5) / n - (1 - share) * p0) / share
    v0 = np.zeros(target)
    high = wanted > p0
    with np.errstate(divide="ignore", invalid="ignore"):
        v0[high] = (spread[order] ** 2 * ((even[order] / -stdtrit(most, wanted / 2)) ** 2 - 1))[high]
    v0 = np.clip(v0, 0.1**2 / prior, 4**2 / prior)
    ratio = 1 + float(v0.mean()) / spread**2
    if prior_df > 1e6:
        kernel = t**2 * (1 - 1 / ratio) / 2
    else:
        kernel = (1 + df) / 2 * np.log((t**2 + df) / (t**2 / ratio + df))
    return np.asarray(np.log(_SHARE / (1 - _SHARE)) - np.log(ratio) / 2 + kernel)
