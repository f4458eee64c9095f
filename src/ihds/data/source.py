"""Where a holder's rows live, and the permit-scoped window through which the gate sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ihds.data.codebook import Codebook
from ihds.data.wide import Table
from ihds.errors import NotFound, Refused

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a permit opens: one dataset and the variables of it that may be used."""

    dataset: str
    variables: frozenset[str]


class Source(Protocol):
    """Rows of one site; a new kind of source is one file in ``sources/``."""

    def codebook(self, dataset: str) -> Codebook:
        """Return the public dictionary of a dataset. Raises NotFound."""
        ...

    def open(self, scope: Scope) -> View:
        """Open exactly the scope. Raises NotFound, or Refused for a variable not held."""
        ...

    def column(self, dataset: str, name: str) -> pd.Series:
        """Return one column whole, in the order of the rows, for the holder's own use. Raises NotFound."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


@dataclass(frozen=True, slots=True)
class View:
    """A typed window on the permitted variables of one dataset.

    The rows are reachable only by ``apply``, which hands them to a computation inside the gate;
    the view itself refuses to be printed or sent. ``kept`` are the positions of its rows in the
    whole table, where some are left out.
    """

    scope: Scope
    codebook: Codebook
    persons: int
    _rows: Callable[[tuple[str, ...]], Table]
    kept: NDArray[np.intp] | None = None

    def apply(self, compute: Callable[[Table], T], features: tuple[str, ...] = ()) -> T:
        """Run ``compute`` on the rows and return what it returns; ``features`` are read in blocks.

        Raises:
            Refused: a feature is outside the scope.

        """
        _opened(self.codebook, frozenset(features), self.scope)
        return compute(self._rows(features))

    def without(self, rows: NDArray[np.bool_], persons: int) -> View:
        """Return the view without the rows flagged (n,): ``persons`` remain."""
        kept = np.flatnonzero(~rows)
        whole = self._rows
        return replace(self, persons=persons, _rows=lambda features: whole(features).kept(kept), kept=kept)

    def __repr__(self) -> str:
        return f"View({self.scope.dataset!r}, {len(self.scope.variables)} variables)"

    def __reduce__(self) -> str:
        raise TypeError("a view does not leave its site")


def count_persons(frame: pd.DataFrame, codebook: Codebook) -> int:
    """Return how many people a table holds: distinct persons, or rows where nobody is named."""
    if codebook.person and codebook.person in frame.columns:
        return int(frame[codebook.person].nunique())
    return len(frame)


@dataclass(frozen=True, slots=True)
class FrameSource:
    """A source that holds one table in memory, for a federation inside one process."""

    dataset: str
    frame: pd.DataFrame
    book: Codebook

    def codebook(self, dataset: str) -> Codebook:
        """Return the dictionary of the one dataset."""
        if dataset != self.dataset:
            raise NotFound(f"no dataset {dataset!r} here")
        return self.book

    def open(self, scope: Scope) -> View:
        """Open the permitted columns."""
        book = scoped(self.codebook(scope.dataset), scope)
        persons = count_persons(self.frame, self.book)
        frame = self.frame[list(book.variables)]
        return View(scope, book, persons, lambda features: Table.of(frame, features))

    def column(self, dataset: str, name: str) -> pd.Series:
        """Return one column of the one dataset."""
        self.codebook(dataset)
        return self.frame[name]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class NoRows:
    """The source of a holder that keeps no rows: it offers files only."""

    def codebook(self, dataset: str) -> Codebook:
        """Hold nothing."""
        raise NotFound(f"this holder has no dataset {dataset!r}", remedy="see its catalogue")

    def open(self, scope: Scope) -> View:
        """Hold nothing."""
        raise NotFound(f"this holder has no dataset {scope.dataset!r}", remedy="see its catalogue")

    def column(self, dataset: str, name: str) -> pd.Series:
        """Hold nothing."""
        raise NotFound(f"this holder has no dataset {dataset!r}", remedy="see its catalogue")

    def close(self) -> None:
        """Nothing is open."""


def scoped(codebook: Codebook, scope: Scope) -> Codebook:
    """Return the part of a codebook that a scope opens.

    Raises:
        Refused: the scope names a variable the dataset does not have.

    """
    _opened(codebook, scope.variables, scope)
    return codebook.restricted(scope.variables)


def _opened(codebook: Codebook, names: frozenset[str], scope: Scope) -> None:
    unknown = sorted(names - set(codebook.variables))
    if unknown:
        raise Refused(
            f"the permit names variables that {scope.dataset!r} does not hold: {unknown}",
            remedy="ask for an amended permit that lists existing variables",
        )
