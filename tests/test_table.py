"""Tables read a batch of rows at a time are what they are when read at once."""

from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ihds.data import table as tables
from ihds.data.codebook import Codebook, Variable
from ihds.data.sources import tabular
from ihds.data.table import Opened, draft_codebook, read_table
from ihds.errors import BadTable

N = 60
#: Columns of which one row, late in the table, decides what they are.
ODD = {
    "plain": [str(i % 7) for i in range(N)],
    "code": [*map(str, range(N - 1)), "007"],
    "long": [*map(str, range(N - 1)), str(2**60)],
    "word": [*map(str, range(N - 1)), "a"],
    "flag": ["true"] * (N - 1) + ["False"],
    "no_flag": ["true"] * (N - 1) + ["maybe"],
    "late": [""] * (N - 1) + ["3.5"],
    "nothing": [""] * N,
    "gaps": ["NA" if i % 3 else str(i / 2) for i in range(N)],
    "many": [f"v{i}" for i in range(N)],
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tables, "_BATCH", 7)
    monkeypatch.setattr(tables, "_BLOCK", 300)
    monkeypatch.setattr(tables, "MAX_LEVELS", 10)


def as_parquet(path, columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_batches_are_the_whole(tmp_path, small, kind):
    frame = pd.DataFrame(ODD)
    path = tmp_path / f"odd.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else as_parquet(path, ODD)
    opened = Opened(path)
    parts = list(opened.batches())
    assert len(parts) > 3
    assert max(map(len, parts)) < N == opened.height
    whole = read_table(frame)
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert draft_codebook("odd", opened) == draft_codebook("odd", whole)
    assert {n: c.dtype.kind for n, c in whole.items()} == dict.fromkeys(ODD, "O") | dict.fromkeys(
        ("plain", "flag", "late", "nothing", "gaps"), "f"
    )


def test_numbers_of_parquet_stay_what_they_are(tmp_path, small):
    big = [2**53 + 1, *range(N - 1)]
    columns = {"big": big, "whole": list(range(N)), "yes": [i % 2 == 0 for i in range(N)], "x": np.linspace(0, 1, N)}
    found = read_table(as_parquet(tmp_path / "n.parquet", columns))
    assert found["big"].iloc[0] == str(2**53 + 1)
    assert found["big"].iloc[-1] == str(N - 2)
    assert [found[n].dtype.kind for n in ("whole", "yes", "x")] == ["f", "f", "f"]


def test_a_row_is_named_by_its_place_in_the_file(tmp_path, small):
    path = as_parquet(tmp_path / "bad.parquet", {"x": [1.0] * (N - 1) + [np.inf]})
    with pytest.raises(BadTable, match=f"row {N}"):
        read_table(path)
    path = as_parquet(tmp_path / "worse.parquet", {"x": ["1"] * 50 + ["a"] + ["1"] * 9})
    book = Codebook("d", {"x": Variable("x", "number")})
    with pytest.raises(BadTable, match="row 51"):
        tabular.load(tmp_path / "d.duckdb", "d", Opened(path), book, "site")
    assert not duckdb.connect(str(tmp_path / "d.duckdb")).sql("SHOW TABLES").fetchall()


def test_a_table_without_rows_has_its_columns(tmp_path, small):
    path = tmp_path / "none.csv"
    path.write_text("a,b\n")
    assert list(read_table(path).columns) == ["a", "b"]
    assert len(read_table(path)) == 0
    empty = pa.table({"a": pa.array([], pa.float64())})
    pq.write_table(empty, tmp_path / "none.parquet")
    assert list(read_table(tmp_path / "none.parquet").columns) == ["a"]


def test_rows_of_a_person_stand_together_in_a_large_table(tmp_path, small, monkeypatch):
    monkeypatch.setattr(tabular, "_TOGETHER", 10)
    person = [f"p{i * 7 % 11}" for i in range(N)]
    path = as_parquet(tmp_path / "p.parquet", {"person": person, "x": list(map(float, range(N)))})
    opened = Opened(path)
    data = tmp_path / "d.duckdb"
    assert tabular.load(data, "d", opened, draft_codebook("d", opened, "person"), "site") == N
    with duckdb.connect(str(data), read_only=True) as connection:
        stored = connection.sql("SELECT person, x FROM d").fetchall()
    assert stored == sorted(zip(person, map(float, range(N)), strict=True))
