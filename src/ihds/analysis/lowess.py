"""Cleveland's robust local regression, as R's lowess has it: the trend of a spread over many genes."""

from __future__ import annotations

import numpy as np

from ihds.analysis.method import Vector


def lowess(x: Vector, y: Vector, span: float, steps: int = 3) -> tuple[Vector, Vector]:
    """Return x in rising order and the smoothed y (n,) each (Cleveland 1979; 1981).

    ``span`` is the part of the points that has a say at each; points nearer than a hundredth of the
    range of x are interpolated.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    n = len(x)
    if n < 2:
        return x, y.copy()
    near = max(min(int(span * n + 1e-7), n), 2)
    delta = 0.01 * float(x[-1] - x[0])
    robust, fitted = np.ones(n), np.zeros(n)
    for step in range(steps + 1):
        fitted = _pass(x, y, robust, near, delta)
        off = np.abs(y - fitted)
        scale = 6 * float(np.median(off))
        if step == steps or scale <= 1e-7 * float(off.mean()):
            break
        share = off / scale
        robust = np.where(share <= 0.001, 1.0, np.where(share <= 0.999, (1 - share**2) ** 2, 0.0))
    return x, fitted


def _pass(x: Vector, y: Vector, robust: Vector, near: int, delta: float) -> Vector:
    """Smooth once: fit at points ``delta`` apart, interpolate between them."""
    n = len(x)
    fitted = np.zeros(n)
    left, last, at = 0, -1, 0
    while True:
        while left + near < n and x[at] - x[left] > x[left + near] - x[at]:
            left += 1
        found = _at(x, y, robust, float(x[at]), left, left + near - 1)
        fitted[at] = y[at] if found is None else found
        if last < at - 1:
            between = slice(last + 1, at)
            share = (x[between] - x[last]) / (x[at] - x[last])
            fitted[between] = share * fitted[at] + (1 - share) * fitted[last]
        last = at
        cut = x[last] + delta
        beyond = last + 1
        while beyond < n and x[beyond] <= cut:
            if x[beyond] == x[last]:
                fitted[beyond] = fitted[last]
                last = beyond
            beyond += 1
        at = max(last + 1, beyond - 1)
        if last >= n - 1:
            return fitted


def _at(x: Vector, y: Vector, robust: Vector, here: float, left: int, right: int) -> float | None:
    """Return the local line at a point, None if nobody near has weight."""
    reach = max(here - x[left], x[right] - here)
    end = int(np.searchsorted(x, here + 0.999 * reach, side="right"))
    off = np.abs(x[left:end] - here)
    share = off / reach if reach > 0 else np.zeros(len(off))
    weight = np.where(off <= 0.999 * reach, np.where(off <= 0.001 * reach, 1.0, (1 - share**3) ** 3), 0.0)
    weight = weight * robust[left:end]
    whole = float(weight.sum())
    if whole <= 0:
        return None
    weight = weight / whole
    if reach > 0:
        centre = float(weight @ x[left:end])
        spread = float(weight @ (x[left:end] - centre) ** 2)
        if np.sqrt(spread) > 0.001 * (x[-1] - x[0]):
            weight = weight * ((here - centre) / spread * (x[left:end] - centre) + 1)
    return float(weight @ y[left:end])
