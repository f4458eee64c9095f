"""The thresholds under which a sum may be computed and a number may be shown.

Defaults follow methods practice: 10 persons for a site to take part and 5 persons per released
cell (DataSHIELD's nfilter rules and SACRO/ACRO's ``safe_threshold`` span 3 to 10), parameters at
most a third of the rows (``nfilter.glm``), 10 residual degrees of freedom, the two largest contributors
below 90 % and none within 10 % (SACRO). Which rule holds for which output: ``rules``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.errors import BadInput

#: Thresholds of which the smaller of two protects more.
_LESS_IS_STRICTER = frozenset({"parameters_per_row", "dominance_share"})

#: The largest ``min_difference``: what a fingerprint of a population can tell.
MOST_DIFFERENCE = 32


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits set by permit and jurisdiction, never by a method's author.

    ``min_site_persons``   persons a site must hold to take part
    ``min_cell``           persons in a released cell of the total
    ``min_holders``        holders in one study (fewer would let one subtract itself)
    ``min_level_sites``    sites that must hold a category, so that its sum is nobody's alone
    ``parameters_per_row`` largest ratio of parameters to rows
    ``min_residual_dof``   smallest rows minus parameters
    ``min_time_bin``       narrowest pooled time grid, in the unit of the time; 0 allows exact times
    ``min_difference``     persons at a site by which what two studies of a user cover must differ, if
                           at all; 0 compares nothing, at most 32
    ``dominance_k``        largest contributors to a magnitude that are looked at together; 0 looks at none
    ``dominance_share``    largest part of a magnitude that these may make up
    ``p_percent``          percent of the largest contribution within which nobody may be able to estimate it
    ``hide_empty``         whether an empty cell of a table by groups is hidden like a small one
    ``hide_full``          whether a cell that holds a whole group is: it tells something of each of its persons
    """

    min_site_persons: int = 10
    min_cell: int = 5
    min_holders: int = 3
    min_level_sites: int = 2
    parameters_per_row: float = 1 / 3
    min_residual_dof: int = 10
    min_time_bin: float = 1.0
    min_difference: int = 10
    dominance_k: int = 2
    dominance_share: float = 0.9
    p_percent: float = 10.0
    hide_empty: bool = False
    hide_full: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_difference <= MOST_DIFFERENCE:
            raise BadInput(
                f"min_difference is {self.min_difference}", remedy=f"give a whole number up to {MOST_DIFFERENCE}"
            )
        if self.dominance_k < 0 or not 0 < self.dominance_share <= 1 or self.p_percent < 0:
            raise BadInput(
                f"dominance is {self.dominance_k} contributors above {self.dominance_share:g}, p % {self.p_percent:g}",
                remedy="give a whole number, a part of 1, and a percentage",
            )

    @classmethod
    def none(cls) -> Thresholds:
        """Return no protection at all: for tests of the mathematics on invented persons."""
        return cls(
            min_site_persons=0,
            min_cell=0,
            min_holders=1,
            min_level_sites=1,
            parameters_per_row=float("inf"),
            min_residual_dof=-(10**9),
            min_time_bin=0.0,
            min_difference=0,
            dominance_k=0,
            dominance_share=1.0,
            p_percent=0.0,
        )

    @classmethod
    def floor(cls) -> Thresholds:
        """Return what no permit may go below: the smallest values in use at access bodies."""
        return cls(
            min_site_persons=3,
            min_cell=3,
            min_holders=2,
            min_level_sites=1,
            parameters_per_row=0.5,
            min_residual_dof=0,
            min_time_bin=0.0,
            min_difference=3,
            dominance_k=1,
            p_percent=5.0,
        )

    @classmethod
    def of(cls, values: Mapping[str, Any], base: Thresholds | None = None) -> Thresholds:
        """Return thresholds of which some are named, as people write them; the others are of ``base``, or the floor.

        Raises:
            BadInput: one is unknown, or not of its type.

        """
        base = base or cls.floor()
        kinds = {f.name: type(getattr(base, f.name)) for f in fields(cls)}
        ready: dict[str, Any] = {}
        for name, value in values.items():
            if name not in kinds:
                raise BadInput(f"there is no threshold {name!r}", remedy=f"they are: {', '.join(kinds)}")
            kind, number = kinds[name], isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (isinstance(value, bool) if kind is bool else number and (kind is float or value == int(value))):
                raise BadInput(f"the threshold {name} is {value!r}", remedy=f"give a {kind.__name__}")
            ready[name] = kind(value)
        return replace(base, **ready)

    def strictest(self, other: Thresholds) -> Thresholds:
        """Return, field by field, the more protective of two."""
        chosen = {}
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            pick = min if field.name in _LESS_IS_STRICTER else max
            chosen[field.name] = pick(mine, theirs)
        return Thresholds(**chosen)


def site_reasons(thresholds: Thresholds, persons: int) -> tuple[str, ...]:
    """Return why a site may not take part; empty if it may."""
    if persons < thresholds.min_site_persons:
        return (f"min_site_persons: a site needs {thresholds.min_site_persons} persons to take part",)
    return ()


def grid_reasons(thresholds: Thresholds, time_bin: float) -> tuple[str, ...]:
    """Return why times may not be pooled in bins of this width.

    Grids of several studies must nest: sums of bins of 30 and of 31 days differ by few persons each.
    """
    least = thresholds.min_time_bin
    if time_bin < least:
        return (f"min_time_bin: the time bin must be at least {least:g}",)
    if least > 0 and abs(time_bin / least - round(time_bin / least)) > 1e-9:
        return (f"min_time_bin: the time bin must be a whole multiple of {least:g}, so that grids nest",)
    return ()


def model_reasons(thresholds: Thresholds, rows: int, parameters: int) -> tuple[str, ...]:
    """Return why a model with so many parameters may not be fitted on so many rows."""
    reasons = []
    if parameters > thresholds.parameters_per_row * rows:
        reasons.append(f"parameters_per_row: {parameters} parameters on {rows} rows would describe persons")
    if rows - parameters < thresholds.min_residual_dof:
        reasons.append(
            f"min_residual_dof: {rows} rows less {parameters} parameters leave fewer than "
            f"{thresholds.min_residual_dof} degrees of freedom"
        )
    return tuple(reasons)


def suppress(counts: NDArray[np.float64], min_cell: int) -> list[int | None]:
    """Hide small cells of a one-way table of persons whose total is known.

    While one cell is hidden alone, or all hidden ones together hold fewer than ``min_cell``, the next
    smallest is hidden too, so that subtraction from the total brings nothing small back. Empty cells
    are shown, for the categories are public; but not in a table that is small as a whole.
    """
    if 0 < sum(counts) < min_cell:
        return [None] * len(counts)
    small = [i for i, c in enumerate(counts) if 0 < c < min_cell]
    while small and (len(small) == 1 or sum(counts[i] for i in small) < min_cell):
        rest = [i for i, c in enumerate(counts) if i not in small and c > 0]
        if not rest:
            break
        small.append(min(rest, key=lambda i: counts[i]))
    return [None if i in small else int(c) for i, c in enumerate(counts)]


def merge_bins(
    exits: NDArray[np.float64], events: NDArray[np.float64], at_risk: NDArray[np.float64], min_cell: int
) -> NDArray[np.intp]:
    """Return the last bins of runs in which ``min_cell`` persons or more leave, and none or so many have an event.

    ``events`` is (bins,) or (causes, bins). A curve shown only there ends while ``min_cell`` persons are
    still followed, for the longest follow-up is somebody's; or with a bin in which so many leave at once.
    Where runs may end is decided by exits alone: else the end of a curve would be the time of an event.
    """
    if min_cell <= 1:
        return np.flatnonzero(exits > 0)
    left = np.append(at_risk[1:], 0.0)
    may_end = (exits > 0) & ((left >= min_cell) | ((left == 0) & (exits >= min_cell)))
    gone, had = np.append(np.cumsum(exits), 0.0), np.cumsum(np.atleast_2d(events), axis=1)
    had = np.column_stack([had, np.zeros(len(had))])  # the last entry stands for the time before the first bin
    runs: list[int] = []
    for index in map(int, np.flatnonzero(may_end)):
        if gone[index] - gone[runs[-1] if runs else -1] >= min_cell:
            runs.append(index)

    def enough(start: int, end: int) -> bool:
        events_in = had[:, end] - had[:, start]
        return not bool(np.any((events_in > 0) & (events_in < min_cell)))

    ends: list[int] = []
    for index in runs:
        if enough(ends[-1] if ends else -1, index):
            ends.append(index)
    kept = list(ends)
    while kept and kept[-1] < runs[-1]:  # a tail with few events is joined to the runs before it
        kept.pop()
        if enough(kept[-1] if kept else -1, runs[-1]):
            ends = [*kept, runs[-1]]
            break
    return np.asarray(ends, dtype=np.intp)
