"""What a study returns: coefficients, tests, curves and where they came from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One row of a coefficient table; ``lower`` and ``upper`` are the 95 % Wald interval."""

    term: str
    estimate: float
    se: float
    robust_se: float | None
    z: float
    p: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True)
class Curve:
    """A step function per group: values hold from ``time`` on; each point covers >= min_cell exits."""

    group: str
    time: tuple[float, ...]
    at_risk: tuple[int, ...]
    events: tuple[int, ...]
    estimate: tuple[float, ...]
    se: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    median: float | None
    rmst: float
    rmst_se: float
    tau: float


@dataclass(frozen=True, slots=True)
class Test:
    """A test of a hypothesis: statistic, degrees of freedom, p value and its parts."""

    __test__ = False  # not a pytest class

    name: str
    statistic: float
    df: float
    p: float
    details: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer of a study. ``provenance`` is part of it, not beside it."""

    method: str
    n: int
    events: int | None = None
    coefficients: tuple[Coefficient, ...] = ()
    log_likelihood: dict[str, float] | None = None
    curves: tuple[Curve, ...] = ()
    tests: tuple[Test, ...] = ()
    table: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    covariance: tuple[tuple[float, ...], ...] = ()
    rounds: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    def with_provenance(self, rounds: int, provenance: dict[str, Any]) -> Result:
        """Return the result with the record of how it came about."""
        return replace(self, rounds=rounds, provenance=provenance)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; numbers that are not finite become null."""
        cleaned = _clean(asdict(self))
        assert isinstance(cleaned, dict)
        return cleaned

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Result:
        """Rebuild a result from its JSON form; numbers that were not finite come back as NaN."""
        parts: dict[str, Any] = dict(body)
        parts["coefficients"] = tuple(Coefficient(**_numbers(c, ("robust_se",))) for c in body.get("coefficients", ()))
        parts["curves"] = tuple(_curve(c) for c in body.get("curves", ()))
        parts["tests"] = tuple(
            Test(**{**_numbers(t), "details": tuple(t.get("details", ()))}) for t in body.get("tests", ())
        )
        parts["table"] = tuple(body.get("table", ()))
        parts["covariance"] = tuple(tuple(row) for row in body.get("covariance", ()))
        return cls(**parts)

    def summary(self) -> str:
        """Return the result as the text a statistician expects."""
        from ihds.analysis.summary import render

        return render(self)

    def plot(self) -> Figure:
        """Return a matplotlib figure: curves for survival, a forest plot for coefficients, a picture per test."""
        from ihds.analysis.plots import draw

        return draw(self)


def _curve(body: dict[str, Any]) -> Curve:
    known = _numbers(body, ("median",))
    parts: dict[str, Any] = {
        k: tuple(math.nan if x is None else x for x in v) if isinstance(v, list) else v for k, v in known.items()
    }
    return Curve(**parts)


def _numbers(body: dict[str, Any], may_lack: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a JSON object with NaN for null, except where null means that there is none."""
    return {k: math.nan if v is None and k not in may_lack else v for k, v in body.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return _clean(value.item())
    if isinstance(value, dict):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return value


def wald_table(
    terms: tuple[str, ...],
    estimate: NDArray[np.float64],
    covariance: NDArray[np.float64],
    robust: NDArray[np.float64] | None = None,
    residual_df: float | None = None,
) -> tuple[Coefficient, ...]:
    """Return coefficient rows: z (or t with ``residual_df``) tests, robust where given."""
    se = np.sqrt(np.diag(covariance))
    robust_se = None if robust is None else np.sqrt(np.diag(robust))
    return tuple(
        wald_row(
            term,
            float(estimate[j]),
            float(se[j]),
            np.inf if residual_df is None else residual_df,
            robust_se=None if robust_se is None else float(robust_se[j]),
        )
        for j, term in enumerate(terms)
    )


def wald_row(term: str, estimate: float, se: float, df: float, *, robust_se: float | None = None) -> Coefficient:
    """Return one coefficient row: a z test for infinite ``df``, else a t test; robust where given."""
    estimate, se = float(estimate), float(se)
    used = se if robust_se is None else robust_se
    with np.errstate(divide="ignore", invalid="ignore"):
        z = float(np.divide(estimate, used))
    normal = not np.isfinite(df)
    half = float(special.ndtri(0.975) if normal else special.stdtrit(df, 0.975)) * used
    return Coefficient(
        term=term,
        estimate=estimate,
        se=se,
        robust_se=robust_se,
        z=z,
        p=float(2 * (special.ndtr(-abs(z)) if normal else special.stdtr(df, -abs(z)))),
        lower=estimate - half,
        upper=estimate + half,
    )


def chi_square(name: str, statistic: float, df: int, details: Any = ()) -> Test:
    """Return a chi-square test."""
    p = float(special.chdtrc(df, statistic)) if df > 0 else float("nan")
    return Test(name, float(statistic), float(df), p, tuple(details))
