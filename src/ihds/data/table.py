"""Reading patients: CSV, Parquet or a frame into checked columns, and a draft codebook for them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as pa_csv

from ihds.data.codebook import MAX_LEVELS, Codebook, Variable
from ihds.errors import BadTable

#: Texts read as "no value", besides the codes a codebook declares.
MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", ".")

#: Whole numbers beyond this are not told apart as numbers; as texts, those of persons are.
_EXACT = 2**53

#: Rows of a Parquet file, and bytes of a CSV file, read at once.
_BATCH, _BLOCK = 1 << 15, 1 << 21


def read_table(origin: str | Path | pd.DataFrame, site: str = "table") -> pd.DataFrame:
    """Read a CSV or Parquet file, or take a frame; columns become numbers or text.

    Raises:
        BadTable: the file is absent, malformed, empty of columns, or holds an infinite number.

    """
    return pd.concat(Opened(origin, site).batches(), ignore_index=True)


class Opened:
    """A table of patients, read in batches of rows; all rows of a column decide whether it is numbers or text."""

    def __init__(self, origin: str | Path | pd.DataFrame, site: str = "table") -> None:
        """Read it once, to see what its columns are.

        Raises:
            BadTable: see ``read_table``.

        """
        self._origin, self._site = origin, site
        self._kinds: dict[str, _Kind] = {}
        self.height = 0
        for raw in self._raw():
            for name in raw.columns:
                self._kinds[name] = self._kinds.get(name, _Kind()).after(raw[name])
            self.height += len(raw)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self._kinds)

    def batches(self) -> Iterator[pd.DataFrame]:
        """Read it again, each column as numbers or text; one batch without rows if there are none."""
        first = 0
        for raw in self._raw():
            yield pd.DataFrame({n: _infinite(k.read(raw[n]), n, first, self._site) for n, k in self._kinds.items()})
            first += len(raw)

    def _raw(self) -> Iterator[pd.DataFrame]:
        if isinstance(self._origin, pd.DataFrame):
            frame = self._origin.set_axis([str(c) for c in self._origin.columns], axis="columns")
            yield self._checked(frame)
            return
        path = Path(self._origin)
        if not path.is_file():
            raise BadTable(f"{self._site}: there is no file {path}", remedy="check the path")
        try:
            for part in _parquet(path) if path.suffix.lower() in (".parquet", ".pq") else _csv(path, self._site):
                yield self._checked(part)
        except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
            raise BadTable(
                f"{self._site}: {path} cannot be read: {str(error).splitlines()[0]}",
                remedy="give a comma-separated file with one header line and equally many "
                "fields in every row, in UTF-8, or a Parquet file",
            ) from error

    def _checked(self, frame: pd.DataFrame) -> pd.DataFrame:
        if frame.shape[1] == 0:
            raise BadTable(f"{self._site}: no column could be read", remedy="give a header and rows")
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise BadTable(f"{self._site}: column {twice[0]!r} stands twice", remedy="rename one of them")
        return frame


def _parquet(path: Path) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(path) as file:  # its own batches would keep the whole file in memory
        groups = (file.read_row_group(i, use_threads=False) for i in range(file.num_row_groups))
        yield from _frames(file.schema_arrow, (batch for group in groups for batch in group.to_batches(_BATCH)))


def _csv(path: Path, site: str) -> Iterator[pd.DataFrame]:
    """Read a CSV file as text; a row of another length is an error."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, strict=True), [])
    names = [name.strip() or f"unnamed_{j + 1}" for j, name in enumerate(header)]  # R's row names
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise BadTable(f"{site}: column {twice!r} stands twice", remedy="rename one of them")
    kinds = dict.fromkeys(names, pa.string())
    if not names:
        yield pd.DataFrame()
        return
    read = pa_csv.ReadOptions(column_names=names, skip_rows=1, block_size=_BLOCK, use_threads=False)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    convert = pa_csv.ConvertOptions(column_types=kinds, quoted_strings_can_be_null=False)
    last: str | None = None
    with pa_csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as rows:
        for frame in _frames(rows.schema, rows):
            ends = frame[names[-1]].dropna().tail(1)
            last = ends.iloc[0] if len(ends) else last
            yield frame
    if last is not None and '"' in last:
        raise csv.Error("a quoted field does not end")


def _frames(schema: Any, batches: Iterable[Any]) -> Iterator[pd.DataFrame]:
    """Return batches as tables; one without rows if there are none."""
    none = True
    for batch in batches:
        none = False
        yield pd.DataFrame(batch.to_pandas())
    if none:
        yield pd.DataFrame(schema.empty_table().to_pandas())


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is known of a column after some of its rows: whether it can still be numbers, or true and false."""

    numeric: bool = True
    flags: bool = True
    valued: bool = False
    infinite: bool = False
    changing: bool = False
    beyond: bool = False
    textual: bool = False

    def after(self, column: pd.Series) -> _Kind:
        """Return what is known after further rows."""
        column = _plain(column)
        if pd.api.types.is_integer_dtype(column.dtype):
            return replace(self, beyond=self.beyond or bool((column.abs() > _EXACT).any()))
        if pd.api.types.is_numeric_dtype(column.dtype):
            return self
        text = _texts(column)
        lowered = {str(v).lower() for v in text.dropna().unique()}
        numbers = pd.to_numeric(text, errors="coerce")
        return _Kind(
            numeric=self.numeric and bool((numbers.notna() == text.notna()).all()),
            flags=self.flags and lowered <= {"true", "false"},
            valued=self.valued or bool(lowered),
            infinite=self.infinite or bool(np.isinf(numbers).any()),
            changing=self.changing or bool(text.map(_would_change).any()),
            beyond=self.beyond,
            textual=True,
        )

    def read(self, column: pd.Series) -> pd.Series:
        """Return rows as numbers, NaN where missing, or as texts or None."""
        column = _plain(column)
        if not self.textual:
            if self.beyond:
                return column.astype(object).where(column.notna(), None).map(_whole)
            return pd.to_numeric(column).astype(float)
        text = _texts(column)
        if self.flags and self.valued:
            return text.map(lambda v: np.nan if v is None else float(v.lower() == "true")).astype(float)
        if self.numeric and (self.infinite or not self.changing):
            return pd.to_numeric(text, errors="coerce").astype(float)
        return text


def _plain(column: pd.Series) -> pd.Series:
    return column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), None).map(_stripped)


def _infinite(column: pd.Series, name: str, first: int, site: str) -> pd.Series:
    """Return a column without infinite numbers.

    Raises:
        BadTable: it has one.
    """
    if column.dtype.kind == "f":
        found = np.flatnonzero(np.isinf(column.to_numpy()))
        if len(found):
            raise BadTable(
                f"{site}: column {name!r} is infinite in row {first + found[0] + 1}",
                remedy="replace it by a number, or leave the field empty if unknown",
            )
    return column


def _would_change(text: str | None) -> bool:
    """Whether a text of digits would be another as a number: 007, or more digits than a number holds."""
    digits = "" if text is None else text.lstrip("+-")
    return digits[:2].isdigit() and (
        (digits[0] == "0" and len(digits) > 1) or (digits.isdigit() and int(digits) > _EXACT)
    )


def _whole(value: object) -> str | None:
    return None if value is None else str(value)


def _stripped(value: object) -> str | None:
    text = "" if value is None else str(value).strip()
    return None if text in MISSING else text


@dataclass
class _Seen:
    """The values of a column, as long as they are few enough for categories."""

    numbers: bool = False
    values: set[Any] = field(default_factory=set)

    def add(self, column: pd.Series) -> None:
        """Look at further rows."""
        self.numbers |= column.dtype.kind == "f"
        if len(self.values) <= MAX_LEVELS:
            self.values.update(column.dropna().unique())

    def variable(self, name: str) -> Variable:
        """Return the draft codebook entry, from the kind and the categories only."""
        few = len(self.values) <= MAX_LEVELS
        if not self.values:
            return Variable(name, "empty")
        if self.numbers:
            whole = few and all(float(v).is_integer() for v in self.values)
            return Variable(name, "number", levels=tuple(map(_level_text, sorted(self.values))) if whole else ())
        if few:
            return Variable(name, "category", levels=tuple(sorted(map(str, self.values))))
        return Variable(name, "text")


def draft_codebook(name: str, table: pd.DataFrame | Opened, person: str = "") -> Codebook:
    """Return a codebook inferred from a table, for its data engineer to read and correct."""
    seen: dict[str, _Seen] = {}
    for batch in batches(table):
        for column in batch.columns:
            seen.setdefault(str(column), _Seen()).add(batch[column])
    variables = {column: found.variable(column) for column, found in seen.items()}
    if person in variables:
        variables[person] = Variable(person, "identifier")
    return Codebook(name, variables, person=person if person in variables else "")


def batches(table: pd.DataFrame | Opened) -> Iterator[pd.DataFrame]:
    """Return a table batch by batch; one in memory is one batch."""
    return iter((table,)) if isinstance(table, pd.DataFrame) else table.batches()


def conformed(table: pd.DataFrame | Opened, codebook: Codebook, site: str) -> Iterator[pd.DataFrame]:
    """Return the columns of ``codebook`` batch by batch; see ``conform``."""
    first = 0
    for batch in batches(table):
        yield conform(batch, codebook, site, first)
        first += len(batch)


def conform(frame: pd.DataFrame, codebook: Codebook, site: str, first: int = 0) -> pd.DataFrame:
    """Return the columns of ``codebook`` from ``frame``, each of its declared kind.

    Numbers become float64 with NaN for missing; categories and text become strings or None.
    ``first`` rows came before.

    Raises:
        BadTable: a column is absent, a value has the wrong type, range or level; the message
            names site, column, row and value.

    """
    columns: dict[str, pd.Series] = {}
    for variable in codebook.variables.values():
        if variable.name not in frame.columns:
            raise BadTable(
                f"{site}: column {variable.name!r} of the codebook is not in the table",
                remedy=f"the table has: {', '.join(map(str, frame.columns))}",
            )
        column = frame[variable.name]
        if variable.missing:
            text = column.map(_level_text)
            column = column.mask(text.isin(variable.missing))
        if variable.kind == "number":
            columns[variable.name] = _numbers(column, variable, site, first)
        else:
            columns[variable.name] = _categories(column, variable, site, first)
    return pd.DataFrame(columns)


def _numbers(column: pd.Series, variable: Variable, site: str, first: int) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = np.flatnonzero((column.notna() & numbers.isna()).to_numpy())
    if len(wrong):
        raise BadTable(
            f"{site}: column {variable.name!r} holds {column.iloc[wrong[0]]!r} in row "
            f"{first + wrong[0] + 1}, which is not a number",
            remedy="correct the value, leave it empty, or declare it as a missing code",
        )
    if variable.levels:
        _check_levels(numbers.map(_level_text).where(numbers.notna(), None), variable, site, first)
    for limit, side in ((variable.minimum, "below"), (variable.maximum, "above")):
        if limit is not None:
            bad = numbers < limit if side == "below" else numbers > limit
            if bool(bad.any()):
                row = int(np.flatnonzero(bad.to_numpy())[0])
                raise BadTable(
                    f"{site}: column {variable.name!r} is {side} its limit {limit:g} in row {first + row + 1}",
                    remedy="correct the value or the codebook",
                )
    return numbers


def _categories(column: pd.Series, variable: Variable, site: str, first: int) -> pd.Series:
    text = column.astype(object).map(_level_text).astype(object).where(column.notna(), None)
    if variable.levels:
        _check_levels(text, variable, site, first)
    return text


def _check_levels(text: pd.Series, variable: Variable, site: str, first: int) -> None:
    wrong = np.flatnonzero((text.notna() & ~text.isin(variable.levels)).to_numpy())
    if len(wrong):
        raise BadTable(
            f"{site}: column {variable.name!r} holds {text.iloc[wrong[0]]!r} in row "
            f"{first + wrong[0] + 1}, which is not one of its levels ({', '.join(variable.levels)})",
            remedy="recode the value, or add the level to the codebook of every site",
        )


def _level_text(value: object) -> str:
    """Return the text of a category; whole numbers lose their ``.0``."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
