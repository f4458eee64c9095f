"""Rows of named columns, read a range of rows at a time, so that a site need not hold its table twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pandas as pd

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


def blocks(height: int) -> Iterator[slice]:
    """Return ranges of so many rows; one empty range if there are none."""
    return (slice(at, min(at + HEIGHT, height)) for at in range(0, max(height, 1), HEIGHT))
