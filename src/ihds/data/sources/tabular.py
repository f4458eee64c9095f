"""Tables in a DuckDB file: one relation per dataset, checked against its codebook when loaded; genotypes beside it."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ihds.data.codebook import Codebook
from ihds.data.frames import Frames, InMemory
from ihds.data.genotypes import InPlace, in_place
from ihds.data.source import Scope, View, scoped
from ihds.data.table import Opened, conformed
from ihds.data.wide import WIDTH, Floats, Ints, Table, Wide
from ihds.errors import BadInput, BadTable, NotFound, SetupFailed

#: Features of a study that take no more bytes than this are kept in memory between its rounds.
KEEP = 1 << 29

#: What DuckDB may take while it loads, and at least for each column; it puts the rest on disk.
_LOADING, _PER_COLUMN = 1 << 27, 1 << 17
_STAGE = "ihds_loading"
#: In tables of more rows those of a person stand together.
_TOGETHER = 1 << 17


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Beside:
    """Genotypes of a dataset's persons, read in place from a PLINK file of one build."""

    file: Path
    build: str

    def join(self, table: pd.DataFrame | Opened, codebook: Codebook) -> Codebook:
        """Return the codebook of both.

        Raises:
            BadTable: the table names no persons, or others; a variant has a column's name.

        """
        found = in_place(self.file, self.build)
        if not codebook.person:
            raise BadTable(
                "the table does not name its persons, so genotypes cannot be joined", remedy="name the column: --person"
            )
        both = set(found.variables) & set(codebook.variables)
        if both:
            raise BadTable(f"{min(both)!r} is a variant and a column of the table", remedy="rename the column")
        who = codebook.restricted(frozenset({codebook.person}))
        known = set(found.persons)
        if not any(part[codebook.person].isin(known).any() for part in conformed(table, who, "")):
            raise BadTable(
                "no person of the table has genotypes", remedy="look at both files' identifiers, and at --person"
            )
        return Codebook(codebook.name, {**codebook.variables, **found.variables}, codebook.person, codebook.citation)


def load(
    path: Path,
    dataset: str,
    table: pd.DataFrame | Opened,
    codebook: Codebook,
    site: str,
    beside: Beside | None = None,
) -> int:
    """Check a table against its codebook and store it, the rows of a person together; return the number of rows.

    Bad input, or a crash, leaves the datasets as they were. Genotypes stay in their file.

    Raises:
        BadTable: see ``conform`` and ``Beside.join``.

    """
    whole = beside.join(table, codebook) if beside else codebook
    limit = f"{max(_LOADING, _PER_COLUMN * len(codebook.variables))}B"
    with duckdb.connect(str(path), config={"memory_limit": limit, "threads": 1}) as connection:
        try:
            rows = _staged(connection, conformed(table, codebook, site), codebook)
            connection.begin()
            create = "CREATE TABLE IF NOT EXISTS"
            connection.execute(f"{create} ihds_datasets (dataset VARCHAR PRIMARY KEY, codebook VARCHAR)")
            connection.execute(f"{create} ihds_genotypes (dataset VARCHAR PRIMARY KEY, beside VARCHAR)")
            together = codebook.person and rows > _TOGETHER  # then it can be worked on a piece at a time
            order = f"ORDER BY {_quoted(codebook.person)}, rowid" if together else ""
            query = f"SELECT * FROM {_STAGE} {order}"  # noqa: S608
            connection.execute(f"CREATE OR REPLACE TABLE {_quoted(dataset)} AS {query}")
            connection.execute(
                "INSERT OR REPLACE INTO ihds_datasets VALUES (?, ?)", [dataset, json.dumps(whole.to_dict())]
            )
            connection.execute("DELETE FROM ihds_genotypes WHERE dataset = ?", [dataset])
            if beside:
                file = beside.file.resolve()
                told = {"file": str(file), "build": beside.build, "state": _state(file)}
                connection.execute("INSERT INTO ihds_genotypes VALUES (?, ?)", [dataset, json.dumps(told)])
            connection.commit()
        finally:
            with contextlib.suppress(duckdb.Error):
                connection.rollback()  # if it came to that
            connection.execute(f"DROP TABLE IF EXISTS {_STAGE}")
    return rows


def _staged(connection: duckdb.DuckDBPyConnection, parts: Iterator[pd.DataFrame], codebook: Codebook) -> int:
    """Put the rows into a table of their own, each batch for itself, for a transaction holds them in memory."""
    kinds = {v.name: "DOUBLE" if v.kind == "number" else "VARCHAR" for v in codebook.variables.values()}
    listed = ", ".join(f"{_quoted(name)} {kind}" for name, kind in kinds.items())
    connection.execute(f"CREATE OR REPLACE TABLE {_STAGE} ({listed})")
    rows = 0
    for checked in parts:
        connection.register("checked", checked)
        connection.execute(f"INSERT INTO {_STAGE} SELECT * FROM checked")  # noqa: S608
        connection.unregister("checked")
        rows += len(checked)
    return rows


def _state(file: Path) -> list[int]:
    """Return size and time of a file: whether it is still the one that was loaded."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


class File:
    """A DuckDB file opened read-only; after every question DuckDB gives back what it kept of it in memory."""

    def __init__(self, path: Path) -> None:
        """Open a file; a copy on another process opens its own."""
        self.path = path
        self._lock = threading.Lock()
        self._connection = duckdb.connect(str(path), read_only=True)
        self._connection.execute("SET threads TO 1")
        self._limit = self._connection.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]

    def __reduce__(self) -> tuple[Any, ...]:
        return File, (self.path,)

    def asked(self, query: str, values: Sequence[str] = ()) -> list[Any]:
        """Return the rows of a small answer."""
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def frame(self, query: str) -> pd.DataFrame:
        """Return an answer as a table."""
        with self._lock:
            found: pd.DataFrame = self._connection.sql(query).df()
            self._shed()
        return found

    def arrays(self, query: str) -> dict[str, Any]:
        """Return an answer column by column, masked where a value is missing."""
        with self._lock:
            found: dict[str, Any] = self._connection.sql(query).fetchnumpy()
            self._shed()
        return found

    def _shed(self) -> None:
        """Give memory back: lowering the limit evicts what is cached; the system caches the file anyway."""
        with contextlib.suppress(duckdb.OutOfMemoryException):
            self._connection.execute("SET memory_limit = '1MB'")
        self._connection.execute(f"SET memory_limit = '{self._limit}'")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


@dataclass(frozen=True)
class Stored:
    """Columns of a DuckDB table, read a block of columns at a time; ``height`` rows, in the order they were stored."""

    file: File
    dataset: str
    names: tuple[str, ...]
    height: int

    def read(self, columns: Ints) -> Floats:
        """Return columns (height, k), NaN where a value is missing."""
        found = np.empty((self.height, len(columns)), order="F")
        for at in range(0, len(columns), WIDTH):
            chosen = [self.names[i] for i in columns[at : at + WIDTH]]
            listed = ", ".join(map(_quoted, chosen))
            block = self.file.arrays(f"SELECT {listed} FROM {_quoted(self.dataset)}")  # noqa: S608
            for i, name in enumerate(chosen):
                found[:, at + i] = np.ma.filled(block[name].astype(np.float64), np.nan)
        return found


@dataclass(frozen=True)
class StoredRows:
    """Columns of a DuckDB table, read a block of rows at a time; ``height`` rows, in the order they were stored."""

    file: File
    dataset: str
    names: tuple[str, ...]
    height: int

    def read(self, names: tuple[str, ...], rows: slice) -> pd.DataFrame:
        """Return columns of neighbouring rows."""
        first, stop, _ = rows.indices(self.height)
        listed = ", ".join(map(_quoted, names)) or "1 AS nothing"
        where = f"rowid >= {first} AND rowid < {stop}"
        return self.file.frame(f"SELECT {listed} FROM {_quoted(self.dataset)} WHERE {where}")  # noqa: S608


@dataclass
class TabularSource:
    """The datasets of one DuckDB file, opened read-only."""

    path: Path
    _books: dict[str, Codebook] = field(default_factory=dict, repr=False)
    _beside: dict[str, InPlace | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise BadInput(f"no data file {self.path}", remedy="load a dataset: ihds node init --data")
        self._file = File(self.path)

    def datasets(self) -> list[str]:
        """Return the names of the datasets held."""
        return [str(row[0]) for row in self._file.asked("SELECT dataset FROM ihds_datasets ORDER BY 1")]

    def codebook(self, dataset: str) -> Codebook:
        """Return the codebook stored with a dataset; read once, for the file is opened read-only."""
        if dataset in self._books:
            return self._books[dataset]
        found = self._file.asked("SELECT codebook FROM ihds_datasets WHERE dataset = ?", [dataset])
        if not found:
            raise NotFound(f"this holder has no dataset {dataset!r}", remedy="see its catalogue")
        book = self._books[dataset] = Codebook.from_dict(json.loads(found[0][0]))
        return book

    def open(self, scope: Scope) -> View:
        """Open exactly the permitted columns of one dataset."""
        whole = self.codebook(scope.dataset)
        book = scoped(whole, scope)
        counted = f"COUNT(DISTINCT {_quoted(whole.person)})" if whole.person else "COUNT(*)"
        persons = self._file.asked(f"SELECT {counted} FROM {_quoted(scope.dataset)}")[0][0]  # noqa: S608
        wanted = tuple(book.variables)
        return View(scope, book, int(persons), lambda features: self._table(scope.dataset, wanted, features))

    def column(self, dataset: str, name: str) -> pd.Series:
        """Return one column of a dataset's table, in the order of its rows."""
        if name not in self.codebook(dataset).variables:
            raise NotFound(f"{dataset!r} has no column {name!r}", remedy="see its codebook")
        found: pd.Series = self._file.frame(f"SELECT {_quoted(name)} FROM {_quoted(dataset)}")[name]  # noqa: S608
        return found

    def _table(self, dataset: str, wanted: tuple[str, ...], features: tuple[str, ...]) -> Table:
        """Return the wanted columns in memory but for the features, which are read in blocks."""
        genotypes = self._genotypes(dataset)
        variants = genotypes.variables if genotypes else {}
        plain = [name for name in wanted if name not in variants and name not in set(features)]
        height = int(self._file.asked(f"SELECT COUNT(*) FROM {_quoted(dataset)}")[0][0])  # noqa: S608
        rows: Frames = StoredRows(self._file, dataset, tuple(plain), height)
        single = tuple(name for name in wanted if name in variants and name not in set(features))
        if single:
            copies = self._of_persons(dataset, genotypes).named(single)
            held = rows.read(rows.names, slice(None))
            rows = InMemory(held.assign(**{name: copies[:, i] for i, name in enumerate(single)}))
        return Table(rows, self._wide(dataset, features, height))

    def _wide(self, dataset: str, features: tuple[str, ...], height: int) -> Wide:
        genotypes = self._genotypes(dataset)
        variants = [name for name in features if genotypes and name in genotypes.variables]
        if features and len(variants) == len(features):
            return self._of_persons(dataset, genotypes).named(features)
        stored = Wide.over(Stored(self._file, dataset, features, height))
        if variants:
            others = tuple(name for name in features if name not in set(variants))
            copies = self._of_persons(dataset, genotypes).named(tuple(variants))
            parts = np.column_stack([copies[:, :], stored.named(others)[:, :]])
            return Wide.held((*variants, *others), parts).named(features)
        return Wide.held(features, stored[:, :]) if 8 * height * len(features) <= KEEP else stored

    def _genotypes(self, dataset: str) -> InPlace | None:
        """Return the genotypes beside a dataset.

        Raises:
            SetupFailed: their file is another than the one that was loaded.

        """
        if dataset not in self._beside:
            known = self._file.asked("SELECT 1 FROM information_schema.tables WHERE table_name = 'ihds_genotypes'")
            rows = self._file.asked("SELECT beside FROM ihds_genotypes WHERE dataset = ?", [dataset]) if known else []
            self._beside[dataset] = None
            if rows:
                told = json.loads(rows[0][0])
                file = Path(told["file"])
                if not file.is_file() or _state(file) != told["state"]:
                    raise SetupFailed(f"{file} is not the file that was loaded", remedy="load the dataset again")
                self._beside[dataset] = in_place(file, told["build"])
        return self._beside[dataset]

    def _of_persons(self, dataset: str, genotypes: InPlace | None) -> Wide:
        """Return genotypes in the order of the table's rows."""
        assert genotypes is not None
        person = self.codebook(dataset).person
        at = {name: i for i, name in enumerate(genotypes.persons)}
        listed = self._file.asked(f"SELECT {_quoted(person)} FROM {_quoted(dataset)}")  # noqa: S608
        rows = np.array([at.get(str(row[0]), -1) for row in listed], dtype=np.intp)
        return Wide.over(genotypes.columns).of(rows)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
