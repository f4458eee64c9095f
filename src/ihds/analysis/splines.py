"""Restricted cubic splines in formulas: ``rcs(age, 45, 60, 75)``, with knots that are public."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from typing import Any

import numpy as np

from ihds.errors import BadFormula

#: The function of one column that a spline is written out as; a person writes ``rcs``.
TERM = "rcs_term"
_WRITTEN = re.compile(r"\brcs\(\s*(`[^`]+`|[A-Za-z_][\w.]*)\s*,([^()]*)\)")
_EXAMPLE = "write rcs(age, 45, 60, 75)"


def expand(text: str) -> str:
    """Write every ``rcs(x, t1, ..., tk)`` of a formula as its k - 1 columns.

    Raises:
        BadFormula: there are fewer than three knots, or they do not rise.

    """
    return _WRITTEN.sub(_columns, text)


def _columns(found: re.Match[str]) -> str:
    try:
        knots = [float(k) for k in found[2].split(",")]
    except ValueError as error:
        raise BadFormula(f"{found[0]!r} has knots that are no numbers", remedy=_EXAMPLE) from error
    if len(knots) < 3 or any(b <= a for a, b in pairwise(knots)) or not np.all(np.isfinite(knots)):
        raise BadFormula(f"{found[0]!r} needs three or more knots that rise", remedy=_EXAMPLE)
    written = ", ".join(f"{k!r}" for k in knots)
    return f"({' + '.join([found[1], *(f'{TERM}({found[1]}, {j}, {written})' for j in range(2, len(knots)))])})"


def label(column: str) -> str:
    """Return a column's name as people write it: ``age'``, ``age''`` for the cubic columns."""
    return re.sub(rf"{TERM}\((.+?), (\d+), [^)]*\)", lambda m: m[1] + "'" * (int(m[2]) - 1), column)


def is_term(node: ast.Call) -> bool:
    """Return whether a call is a spline's column of one variable with numbers as knots."""
    named = isinstance(node.func, ast.Name) and node.func.id == TERM and not node.keywords
    return named and len(node.args) > 4 and isinstance(node.args[0], ast.Name) and all(map(_is_number, node.args[1:]))


def _is_number(node: ast.expr) -> bool:
    inner = node.operand if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) else node
    return isinstance(inner, ast.Constant) and type(inner.value) in (int, float)


def term(x: Any, number: float, *knots: float) -> Any:
    """Return one cubic column of a restricted cubic spline, linear beyond the outer knots (Harrell 2015, §2.4.5)."""
    at, before, last = knots[int(number) - 2], knots[-2], knots[-1]

    def cube(knot: float) -> Any:
        return np.maximum(np.asarray(x, dtype=float) - knot, 0.0) ** 3

    bent = cube(at) - cube(before) * (last - at) / (last - before) + cube(last) * (before - at) / (last - before)
    return bent / (last - knots[0]) ** 2
