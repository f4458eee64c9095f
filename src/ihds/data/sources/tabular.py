"""Tables in a DuckDB file: one relation per dataset, checked against its codebook when loaded."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pandas as pd

from ihds.data.codebook import Codebook
from ihds.data.source import Scope, View, scoped
from ihds.data.table import conform
from ihds.errors import BadInput, NotFound


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def load(path: Path, dataset: str, frame: pd.DataFrame, codebook: Codebook, site: str) -> int:
    """Check a table against its codebook and store it; return the number of rows.

    Loading is one transaction: bad input leaves the file as it was.

    Raises:
        BadTable: see ``conform``.

    """
    checked = conform(frame, codebook, site)
    with duckdb.connect(str(path)) as connection:
        connection.begin()
        connection.execute("CREATE TABLE IF NOT EXISTS ihds_datasets (dataset VARCHAR PRIMARY KEY, codebook VARCHAR)")
        connection.register("checked", checked)
        connection.execute(f"CREATE OR REPLACE TABLE {_quoted(dataset)} AS SELECT * FROM checked")  # noqa: S608
        connection.execute(
            "INSERT OR REPLACE INTO ihds_datasets VALUES (?, ?)",
            [dataset, json.dumps(codebook.to_dict())],
        )
        connection.commit()
    return len(checked)


@dataclass
class TabularSource:
    """The datasets of one DuckDB file, opened read-only."""

    path: Path
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _books: dict[str, Codebook] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            raise BadInput(f"no data file {self.path}", remedy="load a dataset: ihds node init --data")
        self._connection = duckdb.connect(str(self.path), read_only=True)
        self._connection.execute("SET threads TO 1")

    def datasets(self) -> list[str]:
        """Return the names of the datasets held."""
        with self._lock:
            rows = self._connection.execute("SELECT dataset FROM ihds_datasets ORDER BY 1").fetchall()
        return [str(row[0]) for row in rows]

    def codebook(self, dataset: str) -> Codebook:
        """Return the codebook stored with a dataset; read once, for the file is opened read-only."""
        if dataset in self._books:
            return self._books[dataset]
        with self._lock:
            found = self._connection.execute(
                "SELECT codebook FROM ihds_datasets WHERE dataset = ?", [dataset]
            ).fetchall()
        if not found:
            raise NotFound(f"this holder has no dataset {dataset!r}", remedy="see its catalogue")
        book = self._books[dataset] = Codebook.from_dict(json.loads(found[0][0]))
        return book

    def open(self, scope: Scope) -> View:
        """Open exactly the permitted columns of one dataset."""
        whole = self.codebook(scope.dataset)
        book = scoped(whole, scope)
        counted = f"COUNT(DISTINCT {_quoted(whole.person)})" if whole.person else "COUNT(*)"
        with self._lock:
            persons = self._connection.execute(
                f"SELECT {counted} FROM {_quoted(scope.dataset)}"  # noqa: S608
            ).fetchall()[0][0]
        columns = ", ".join(_quoted(name) for name in book.variables)

        def rows() -> pd.DataFrame:
            with self._lock:
                table = self._connection.sql(f"SELECT {columns} FROM {_quoted(scope.dataset)}").to_arrow_table()  # noqa: S608
            frame: pd.DataFrame = table.to_pandas(split_blocks=True)  # column by column: nothing is copied together
            return frame

        return View(scope, book, int(persons), rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
