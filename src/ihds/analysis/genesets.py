"""Gene sets: whether the genes of a set differ more, or in one direction, than the others (limma's cameraPR).

Made of the released statistics alone: nothing further is asked of any site.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from scipy.special import stdtr

from ihds.analysis.features import false_discovery
from ihds.analysis.method import Vector
from ihds.errors import BadInput

#: The correlation between genes of one set that Wu & Smyth (2012) advise to allow for.
_CORRELATION = 0.01


def parse(text: str, what: str = "gene set") -> dict[str, tuple[str, ...]]:
    """Return sets of names by name from ``name: gene gene*; other: gene``.

    Raises:
        BadInput: it is not of that form, or a name stands twice.

    """
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(str.strip, text.split(";")):
        name, colon, genes = (piece.strip() for piece in part.partition(":"))
        if not name or not colon or not genes or name in found:
            raise BadInput(
                f"the {what} {part.strip()[:60]!r} cannot be read", remedy="write name: gene gene; other: gene"
            )
        found[name] = tuple(genes.replace(",", " ").split())
    return found


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Return whether one of the patterns is the name, or fits it."""
    return any(name == p or fnmatchcase(name, p) for p in patterns)


def tested(text: str, genes: list[str], statistic: Vector) -> list[dict[str, Any]]:
    """Return the test of every set, in the order of the p values; ``statistic`` (g,) is the genes' moderated t.

    Raises:
        BadInput: there are too few genes, or a set holds none, or all, of those shown.

    """
    sets = parse(text)
    if not sets:
        return []
    count = len(genes)
    if count < 3:
        raise BadInput(f"{count} genes are too few for sets", remedy="name more features")
    mean, variance = float(statistic.mean()), float(statistic.var(ddof=1))
    rows = []
    for name, patterns in sets.items():
        inside = np.array([matches(g, patterns) for g in genes])
        size = int(inside.sum())
        if not 0 < size < count:
            raise BadInput(
                f"the gene set {name!r} holds {size} of {count} genes shown", remedy="look at its genes' names"
            )
        delta = count / (count - size) * (float(statistic[inside].mean()) - mean)
        pooled = ((count - 1) * variance - delta**2 * size * (count - size) / count) / (count - 2)
        inflation = 1 + (size - 1) * _CORRELATION
        t = delta / float(np.sqrt(pooled * (inflation / size + 1 / (count - size))))
        p = float(2 * stdtr(count - 2, -abs(t)))
        rows.append({"set": name, "genes": size, "direction": "up" if t >= 0 else "down", "t": t, "p": p})
    adjusted = false_discovery(np.array([row["p"] for row in rows]))
    rows = [{**row, "adjusted_p": float(q)} for row, q in zip(rows, adjusted, strict=True)]
    return sorted(rows, key=lambda row: row["p"])
