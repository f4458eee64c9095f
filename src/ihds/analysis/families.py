"""Families of generalised linear models: score, weight and log-likelihood of a person's outcome."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr, logit, ndtri

from ihds.analysis.design import Floats

#: The links of each family; the first is taken unless another is named.
LINKS = {
    "gaussian": ("identity",),
    "binomial": ("logit", "probit", "cloglog"),
    "poisson": ("log",),
    "gamma": ("log", "inverse"),
}


def terms(family: str, link: str, eta: Floats, y: Floats, unit: float) -> tuple[Floats, Floats, Floats]:
    """Return score in eta, weight and log-likelihood (up to a constant) per person; ``y`` is in ``unit``s."""
    match family:
        case "gaussian":
            return y - eta, np.ones_like(eta), -0.5 * (y - eta) ** 2
        case "binomial" if link == "logit":
            tail = np.exp(-np.abs(eta))
            larger = 1 / (1 + tail)  # the larger of mean and 1 - mean: neither loses digits far out
            mean = np.where(eta >= 0, larger, tail * larger)
            return y - mean, tail * larger * larger, y * eta - np.maximum(eta, 0) + np.log(larger)
        case "binomial":
            return _probit(eta, y) if link == "probit" else _cloglog(eta, y)
        case "gamma":
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                inverse = eta if link == "inverse" else np.exp(-eta)  # 1 / mean, in units
                ratio = np.where(inverse > 0, y * unit * inverse, np.inf)
                value = np.log(np.where(inverse > 0, inverse, np.nan)) - ratio
            value = np.where(np.isfinite(value), value, -(2.0**11))  # a mean below zero: the step is halved
            ratio = np.minimum(ratio, 2.0**11)
            if link == "inverse":
                safe = np.where(inverse > 0, inverse, 1.0)
                return (1 - ratio) / safe, 1 / safe**2, value
            return ratio - 1, np.ones_like(eta), value
        case _:
            with np.errstate(over="ignore"):
                mean = np.exp(eta) / unit
            return y - mean, mean, y * eta - mean


def _probit(eta: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    log_density = -0.5 * eta * eta - 0.5 * np.log(2 * np.pi)
    log_mean, log_rest = log_ndtr(eta), log_ndtr(-eta)
    up, down = np.exp(log_density - log_mean), np.exp(log_density - log_rest)
    return np.where(y > 0, up, -down), up * down, np.where(y > 0, log_mean, log_rest)


def _cloglog(eta: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
    rate = np.exp(np.minimum(eta, 600))
    lost = -np.expm1(-rate)
    up = rate * np.exp(-rate) / np.where(lost > 0, lost, 1.0)  # rate / (exp(rate) - 1), 1 at rate 0
    up = np.where(lost > 0, up, 1.0)
    return np.where(y > 0, up, -rate), up * rate, np.where(y > 0, np.log(np.maximum(lost, 1e-300)), -rate)


#: Each binomial link: the mean's linear predictor, and the mean's slope in it.
_BINOMIAL: dict[str, Any] = {
    "logit": (logit, lambda eta: expit(eta) * expit(-eta)),
    "probit": (ndtri, lambda eta: np.exp(-0.5 * eta**2) / np.sqrt(2 * np.pi)),
    "cloglog": (lambda mean: np.log(-np.log1p(-mean)), lambda eta: np.exp(eta - np.exp(eta))),
}


def start(family: str, link: str, y: Floats, unit: float) -> tuple[Floats, Floats, Floats]:
    """Return linear predictor, score in it and weight of R's first iteration, which starts at the outcome itself."""
    if family == "poisson":
        mean = y + 0.1 / unit
        return np.log(mean * unit), y - mean, mean
    if family == "gamma":
        if link == "log":
            return np.log(y * unit), np.zeros(len(y)), np.ones(len(y))
        return 1 / (y * unit), np.zeros(len(y)), (y * unit) ** 2
    mean = (y + 0.5) / 2
    inverse, slope_at = _BINOMIAL[link]
    eta = inverse(mean)
    slope = slope_at(eta)
    variance = mean * (1 - mean)
    return eta, (y - mean) * slope / variance, slope**2 / variance
