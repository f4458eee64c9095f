"""Rows of named columns, read a range of rows at a time, so that a site need not hold its table twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

#: Rows read at once.
HEIGHT = 1 << 14


class Frames(Protocol):
    """Where the rows lie; ``height`` of them, in a fixed order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        ...

    @property
    def height(self) -> int:
        """The number of rows."""
        ...

    def read(self, names: tuple[str, ...], rows: slice) -> pd.DataFrame:
        """Return columns of neighbouring rows, numbered from 0."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """A table in memory."""

    frame: pd.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(map(str, self.frame.columns))

    @property
    def height(self) -> int:
        """The number of rows."""
        return len(self.frame)

    def read(self, names: tuple[str, ...], rows: slice) -> pd.DataFrame:
        """Return columns of neighbouring rows."""
        return self.frame.iloc[rows][list(names)].reset_index(drop=True)  # a view of the rows before columns are copied


@dataclass(frozen=True, slots=True)
class Range:
    """Neighbouring rows of others."""

    whole: Frames
    rows: slice

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self.whole.names

    @property
    def height(self) -> int:
        """The number of rows."""
        return int(self.rows.stop - self.rows.start)

    def read(self, names: tuple[str, ...], rows: slice) -> pd.DataFrame:
        """Return columns of neighbouring rows."""
        first, stop, _ = rows.indices(self.height)
        return self.whole.read(names, slice(self.rows.start + first, self.rows.start + stop))


@dataclass(frozen=True, slots=True)
class Kept:
    """Some rows of others, by position and in their order."""

    whole: Frames
    kept: NDArray[np.intp]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self.whole.names

    @property
    def height(self) -> int:
        """The number of rows."""
        return len(self.kept)

    def read(self, names: tuple[str, ...], rows: slice) -> pd.DataFrame:
        """Return columns of neighbouring rows; those between them are read and left out."""
        at = self.kept[rows]
        first, stop = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
        return self.whole.read(names, slice(first, stop)).iloc[at - first].reset_index(drop=True)


def blocks(height: int) -> Iterator[slice]:
    """Return ranges of so many rows; one empty range if there are none."""
    return (slice(at, min(at + HEIGHT, height)) for at in range(0, max(height, 1), HEIGHT))
