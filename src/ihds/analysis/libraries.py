"""Libraries of sequencing counts: their sizes, scaled by the upper quartile of the genes that occur (edgeR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.design import Design
from ihds.analysis.features import Scale
from ihds.analysis.method import Contribution, Leaves, Vector
from ihds.errors import BadTable

Scaling = Literal["upper_quartile", "none"]


@dataclass(frozen=True, slots=True)
class Libraries(Contribution):
    """The logarithms of the libraries' upper quartiles, and samples that have none or hold no counts."""

    log_quartile: Annotated[float, Leaves("()", "log of a share", bound=2**10)]
    empty: Annotated[float, Leaves("()", "samples whose upper quartile is 0", bound=1)]
    wrong: Annotated[float, Leaves("()", "samples with a value that is no count", bound=1)]


def occurring(scale: Scale) -> NDArray[np.bool_]:
    """Return which genes (g,) have a count at any site."""
    return np.asarray(scale.persons[:, 1] > 0)


def measured(scale: Scale, design: Design) -> Libraries:
    """Return what must be known of a site's libraries."""
    wrong = np.zeros(len(design.features), dtype=bool)
    for part in design.features.parts():
        counts = design.features[:, part]
        wrong |= ~(np.isfinite(counts) & (counts >= 0) & (counts == np.rint(counts))).all(axis=1)
    _, share = _measure(scale, design)
    good = share > 0
    return Libraries(float(np.log(share[good]).sum()), float((~good).sum()), float(wrong.sum()))


def mean_quartile(total: Libraries, rows: int, scaling: Scaling) -> float:
    """Return the mean log share of the upper quartile, once it is sure that all values are counts.

    Raises:
        BadTable: some are not, or a sample lacks most genes.

    """
    if round(total.wrong):
        raise BadTable("some values are no counts: negative, missing or broken", remedy="give raw counts")
    if round(total.empty) and scaling == "upper_quartile":
        raise BadTable("the upper quartile of some sample is 0", remedy="leave rare genes out, or use scaling = none")
    return total.log_quartile / rows


def sizes(scale: Scale, design: Design, scaling: Scaling, quartile: float) -> Vector:
    """Return the size of each library (n,), scaled so that the geometric mean of the factors is 1."""
    library, share = _measure(scale, design)
    return library * share / np.exp(quartile) if scaling == "upper_quartile" else library


def _measure(scale: Scale, design: Design) -> tuple[Vector, Vector]:
    """Return each sample's sum of counts, and the share of it that its upper quartile is."""
    if "libraries" not in design.cache:
        counts = design.features[:, :]  # a sample's quartile needs all its genes
        library, occurs = counts.sum(axis=1), counts[:, occurring(scale)]
        quartile = np.quantile(occurs, 0.75, axis=1) if occurs.size else np.zeros(len(counts))
        design.cache["libraries"] = (library, quartile / np.maximum(library, 1.0))
    found: tuple[Vector, Vector] = design.cache["libraries"]
    return found
