"""Many numbers of the same persons - genes, proteins, variants - read in blocks of columns when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.data.frames import Frames, InMemory, Kept, Range, blocks
from ihds.data.plink import Bed

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

#: Columns worked on at once, so that memory stays a few columns more than the data.
WIDTH = 512


class Columns(Protocol):
    """Where the numbers lie; ``height`` rows of ``names``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        ...

    @property
    def height(self) -> int:
        """The number of rows."""
        ...

    def read(self, columns: Ints) -> Floats:
        """Return columns (height, k), NaN where a value is missing."""
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Numbers in memory (height, columns)."""

    names: tuple[str, ...]
    matrix: Floats

    @property
    def height(self) -> int:
        """The number of rows."""
        return len(self.matrix)

    def read(self, columns: Ints) -> Floats:
        """Return columns (height, k), where they are neighbours without a copy."""
        first, count = (int(columns[0]), len(columns)) if len(columns) else (0, 0)
        if np.array_equal(columns, np.arange(first, first + count)):
            return self.matrix[:, first : first + count]
        return np.asarray(self.matrix[:, columns])


@dataclass(frozen=True)
class Wide:
    """A choice of columns, and of rows, of what lies somewhere; indexed like a matrix, it is read at that moment.

    ``rows`` are positions there, -1 for a row without any number.
    """

    source: Columns
    columns: Ints
    rows: Ints | None = None

    @classmethod
    def over(cls, source: Columns) -> Wide:
        """Return all of it."""
        return cls(source, np.arange(len(source.names)))

    @classmethod
    def held(cls, names: tuple[str, ...], matrix: Floats) -> Wide:
        """Return numbers in memory (rows, columns)."""
        return cls.over(Held(names, matrix))

    @classmethod
    def of_frame(cls, frame: pd.DataFrame, names: tuple[str, ...]) -> Wide:
        """Return columns of a table in memory."""
        return cls.held(names, frame[list(names)].to_numpy(dtype=np.float64) if names else np.zeros((len(frame), 0)))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.source.names[i] for i in self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.source.height if self.rows is None else len(self.rows), len(self.columns)

    def __len__(self) -> int:
        return self.shape[0]

    def named(self, names: tuple[str, ...]) -> Wide:
        """Return columns by name, in that order."""
        if names == self.source.names:
            return replace(self, columns=np.arange(len(names)))
        at = {name: i for i, name in enumerate(self.source.names)}
        return replace(self, columns=np.array([at[name] for name in names], dtype=np.intp))

    def __reduce__(self) -> tuple[Any, ...]:
        if isinstance(self.source, Held):  # no other rows or columns travel
            return Wide.held, (self.names, self[:, :])
        return Wide, (self.source, self.columns, self.rows)

    def of(self, rows: Ints) -> Wide:
        """Return rows by position, in that order."""
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def __getitem__(self, key: Any) -> Floats:
        """Return numbers as a matrix's ``[rows]`` or ``[rows, columns]`` would; columns are read whole."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        chosen = self.columns[columns]
        block = self.source.read(np.atleast_1d(chosen))
        if self.rows is not None:
            block = block[self.rows]  # a copy
            block[self.rows < 0] = np.nan
        block = block if np.ndim(chosen) else block[:, 0]
        return block if isinstance(rows, slice) and rows == slice(None) else np.asarray(block[rows])

    def parts(self) -> Iterator[slice]:
        """Return blocks of columns."""
        return (slice(at, at + WIDTH) for at in range(0, len(self.columns), WIDTH))

    # -- genotypes, two bits each --------------------------------------------------------------

    @cached_property
    def packed(self) -> bool:
        """Whether these are genotypes of two bits, one row a person: they can be counted instead of read."""
        if not isinstance(self.source, Bed) or self.rows is None:
            return isinstance(self.source, Bed)
        there = self.rows[self.rows >= 0]
        return len(np.unique(there)) == len(there)

    @cached_property
    def counted(self) -> Floats:
        """How many rows have no, one and two copies, and none known (columns, 4); of packed genotypes."""
        assert isinstance(self.source, Bed)
        found = self.source.counted(self.columns, self._placed(np.ones((len(self), 1)))[:, 0] > 0)
        found[:, 3] += self._without
        return found

    def products(self, values: Floats) -> tuple[Floats, Floats]:
        """Return copies times ``values`` (n, q) over rows, and ``values`` where none is known: (columns, q)."""
        assert isinstance(self.source, Bed)
        copies, absent = self.source.products(self.columns, self._placed(values), self.counted[:, 3] > self._without)
        return copies, absent if self.rows is None else absent + values[self.rows < 0].sum(axis=0)

    def squares(self, weight: Floats) -> Floats:
        """Return copies squared times ``weight`` (n,) over the rows (columns,)."""
        assert isinstance(self.source, Bed)
        return self.source.squares(self.columns, self._placed(weight[:, None]))[:, 0]

    def _placed(self, values: Floats) -> Floats:
        """Return values of the rows as values of the file's persons, 0 for those who are not among them."""
        if self.rows is None:
            return values
        placed = np.zeros((self.source.height, values.shape[1]))
        placed[self.rows[self.rows >= 0]] = values[self.rows >= 0]
        return placed

    @property
    def _without(self) -> int:
        """How many rows are of nobody there."""
        return 0 if self.rows is None else int((self.rows < 0).sum())


@dataclass(frozen=True)
class Table:
    """A site's rows: columns that are read row by row, and beside them numbers that are read column by column."""

    rows: Frames
    wide: Wide

    @classmethod
    def of(cls, table: pd.DataFrame | Table, names: tuple[str, ...]) -> Table:
        """Return a table whose columns ``names`` are read in blocks."""
        if isinstance(table, Table):
            return cls(table.rows, table.wide.named(names))
        return cls(InMemory(table), Wide.of_frame(table, names))

    def __len__(self) -> int:
        return self.rows.height

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read row by row."""
        return self.rows.names

    @property
    def frame(self) -> pd.DataFrame:
        """These columns, read now."""
        return self.rows.read(self.columns, slice(None))

    def column(self, name: str) -> pd.Series:
        """Return one of these columns, read now."""
        return self.rows.read((name,), slice(None))[name]

    def blocks(self, names: tuple[str, ...]) -> Iterator[tuple[slice, pd.DataFrame]]:
        """Return columns block by block of rows, and which rows; one empty block if there are none."""
        return ((rows, self.rows.read(names, rows)) for rows in blocks(len(self)))

    def empty(self) -> Table:
        """Return the same columns without a row."""
        without = Wide.held(self.wide.names, np.zeros((0, self.wide.shape[1])))
        return Table(InMemory(self.rows.read(self.columns, slice(0, 0))), without)

    def part(self, rows: Ints) -> Table:
        """Return rows by position."""
        return Table(InMemory(self.frame.iloc[rows].reset_index(drop=True)), self.wide.of(rows))

    def kept(self, rows: Ints) -> Table:
        """Return rows by position, in their order, read when they are needed."""
        return Table(Kept(self.rows, rows), self.wide.of(rows))

    def range(self, rows: slice) -> Table:
        """Return neighbouring rows, read when they are needed."""
        return Table(Range(self.rows, rows), self.wide.of(np.arange(rows.start, rows.stop)))
