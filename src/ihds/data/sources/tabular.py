"""Tables in a DuckDB file: one relation per dataset, checked against its codebook when loaded; genotypes beside it."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ihds.data.codebook import Codebook
from ihds.data.genotypes import InPlace, in_place
from ihds.data.source import Scope, View, scoped
from ihds.data.table import conform
from ihds.data.wide import WIDTH, Floats, Ints, Table, Wide
from ihds.errors import BadInput, BadTable, NotFound, SetupFailed

#: Features of a study that take no more bytes than this are kept in memory between its rounds.
KEEP = 1 << 29


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Beside:
    """Genotypes of a dataset's persons, read in place from a PLINK file of one build."""

    file: Path
    build: str

    def join(self, frame: pd.DataFrame, codebook: Codebook) -> Codebook:
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
        if not frame[codebook.person].isin(set(found.persons)).any():
            raise BadTable(
                "no person of the table has genotypes", remedy="look at both files' identifiers, and at --person"
            )
        return Codebook(codebook.name, {**codebook.variables, **found.variables}, codebook.person, codebook.citation)


def load(
    path: Path, dataset: str, frame: pd.DataFrame, codebook: Codebook, site: str, beside: Beside | None = None
) -> int:
    """Check a table against its codebook and store it; return the number of rows.

    Loading is one transaction: bad input leaves the file as it was. Genotypes stay in their file.

    Raises:
        BadTable: see ``conform`` and ``Beside.join``.

    """
    checked = conform(frame, codebook, site)
    whole = beside.join(checked, codebook) if beside else codebook
    with duckdb.connect(str(path)) as connection:
        connection.begin()
        connection.execute("CREATE TABLE IF NOT EXISTS ihds_datasets (dataset VARCHAR PRIMARY KEY, codebook VARCHAR)")
        connection.execute("CREATE TABLE IF NOT EXISTS ihds_genotypes (dataset VARCHAR PRIMARY KEY, beside VARCHAR)")
        connection.register("checked", checked)
        connection.execute(f"CREATE OR REPLACE TABLE {_quoted(dataset)} AS SELECT * FROM checked")  # noqa: S608
        connection.execute(
            "INSERT OR REPLACE INTO ihds_datasets VALUES (?, ?)",
            [dataset, json.dumps(whole.to_dict())],
        )
        connection.execute("DELETE FROM ihds_genotypes WHERE dataset = ?", [dataset])
        if beside:
            file = beside.file.resolve()
            told = {"file": str(file), "build": beside.build, "state": _state(file)}
            connection.execute("INSERT INTO ihds_genotypes VALUES (?, ?)", [dataset, json.dumps(told)])
        connection.commit()
    return len(checked)


def _state(file: Path) -> list[int]:
    """Return size and time of a file: whether it is still the one that was loaded."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns]


@dataclass(frozen=True)
class Stored:
    """Columns of a DuckDB table, read a block at a time; ``height`` rows, in the order they were stored."""

    path: Path
    dataset: str
    names: tuple[str, ...]
    height: int
    _connection: Any = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:  # what travels to a cluster is where the file lies
        return Stored, (self.path, self.dataset, self.names, self.height)

    def read(self, columns: Ints) -> Floats:
        """Return columns (height, k), NaN where a value is missing."""
        found = np.empty((self.height, len(columns)), order="F")
        connection = (self._connection or duckdb.connect(str(self.path), read_only=True)).cursor()
        with connection:
            for at in range(0, len(columns), WIDTH):
                chosen = [self.names[i] for i in columns[at : at + WIDTH]]
                listed = ", ".join(map(_quoted, chosen))
                block = connection.sql(f"SELECT {listed} FROM {_quoted(self.dataset)}").fetchnumpy()  # noqa: S608
                for i, name in enumerate(chosen):
                    found[:, at + i] = np.ma.filled(block[name].astype(np.float64), np.nan)
        return found


@dataclass
class TabularSource:
    """The datasets of one DuckDB file, opened read-only."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _books: dict[str, Codebook] = field(default_factory=dict, repr=False)
    _beside: dict[str, InPlace | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise BadInput(f"no data file {self.path}", remedy="load a dataset: ihds node init --data")
        self._connection = duckdb.connect(str(self.path), read_only=True)
        self._connection.execute("SET threads TO 1")

    def _asked(self, query: str, values: list[str] | None = None) -> list[Any]:
        with self._lock:
            return self._connection.execute(query, values or []).fetchall()

    def datasets(self) -> list[str]:
        """Return the names of the datasets held."""
        return [str(row[0]) for row in self._asked("SELECT dataset FROM ihds_datasets ORDER BY 1")]

    def codebook(self, dataset: str) -> Codebook:
        """Return the codebook stored with a dataset; read once, for the file is opened read-only."""
        if dataset in self._books:
            return self._books[dataset]
        found = self._asked("SELECT codebook FROM ihds_datasets WHERE dataset = ?", [dataset])
        if not found:
            raise NotFound(f"this holder has no dataset {dataset!r}", remedy="see its catalogue")
        book = self._books[dataset] = Codebook.from_dict(json.loads(found[0][0]))
        return book

    def open(self, scope: Scope) -> View:
        """Open exactly the permitted columns of one dataset."""
        whole = self.codebook(scope.dataset)
        book = scoped(whole, scope)
        counted = f"COUNT(DISTINCT {_quoted(whole.person)})" if whole.person else "COUNT(*)"
        persons = self._asked(f"SELECT {counted} FROM {_quoted(scope.dataset)}")[0][0]  # noqa: S608
        wanted = tuple(book.variables)
        return View(scope, book, int(persons), lambda features: self._table(scope.dataset, wanted, features))

    def column(self, dataset: str, name: str) -> pd.Series:
        """Return one column of a dataset's table, in the order of its rows."""
        if name not in self.codebook(dataset).variables:
            raise NotFound(f"{dataset!r} has no column {name!r}", remedy="see its codebook")
        return self._frame(dataset, [name])[name]

    def _table(self, dataset: str, wanted: tuple[str, ...], features: tuple[str, ...]) -> Table:
        """Return the wanted columns in memory but for the features, which are read in blocks."""
        genotypes = self._genotypes(dataset)
        variants = genotypes.variables if genotypes else {}
        plain = [name for name in wanted if name not in variants and name not in set(features)]
        frame = self._frame(dataset, plain)
        single = tuple(name for name in wanted if name in variants and name not in set(features))
        if single:
            copies = self._of_persons(dataset, genotypes).named(single)
            frame = frame.assign(**{name: copies[:, i] for i, name in enumerate(single)})
        return Table(frame, self._wide(dataset, features, len(frame)))

    def _frame(self, dataset: str, names: list[str]) -> pd.DataFrame:
        listed = ", ".join(_quoted(name) for name in names) or "1 AS nothing"
        with self._lock:
            table = self._connection.sql(f"SELECT {listed} FROM {_quoted(dataset)}").to_arrow_table()  # noqa: S608
        frame: pd.DataFrame = table.to_pandas(split_blocks=True)  # column by column: nothing is copied together
        return frame

    def _wide(self, dataset: str, features: tuple[str, ...], height: int) -> Wide:
        genotypes = self._genotypes(dataset)
        variants = [name for name in features if genotypes and name in genotypes.variables]
        if features and len(variants) == len(features):
            return self._of_persons(dataset, genotypes).named(features)
        stored = Wide.over(Stored(self.path, dataset, features, height, self._connection))
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
            known = self._asked("SELECT 1 FROM information_schema.tables WHERE table_name = 'ihds_genotypes'")
            rows = self._asked("SELECT beside FROM ihds_genotypes WHERE dataset = ?", [dataset]) if known else []
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
        listed = self._asked(f"SELECT {_quoted(person)} FROM {_quoted(dataset)}")  # noqa: S608
        rows = np.array([at.get(str(row[0]), -1) for row in listed], dtype=np.intp)
        return Wide.over(genotypes.columns).of(rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
