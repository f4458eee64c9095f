"""Reading patients: CSV, Parquet or a frame into checked columns, and a draft codebook for them."""

from __future__ import annotations

import csv
from pathlib import Path

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


def read_table(origin: str | Path | pd.DataFrame, site: str = "table") -> pd.DataFrame:
    """Read a CSV or Parquet file, or take a frame; columns become numbers or text.

    Raises:
        BadTable: the file is absent, malformed, empty of columns, or holds an infinite number.

    """
    if isinstance(origin, pd.DataFrame):
        frame = origin.copy()
        frame.columns = [str(c) for c in frame.columns]
    else:
        frame = _read_file(Path(origin), site)
    if frame.shape[1] == 0:
        raise BadTable(f"{site}: the table has no column", remedy="give a header and rows")
    duplicate = frame.columns[frame.columns.duplicated()]
    if len(duplicate):
        raise BadTable(f"{site}: column {duplicate[0]!r} stands twice", remedy="rename one of them")
    return _normalised(frame, site)


def _read_file(path: Path, site: str) -> pd.DataFrame:
    if not path.is_file():
        raise BadTable(f"{site}: there is no file {path}", remedy="check the path")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return pd.DataFrame(pq.read_table(path).to_pandas())
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, strict=True), [])
        names = [name.strip() or f"unnamed_{j + 1}" for j, name in enumerate(header)]  # R's row names
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise BadTable(f"{site}: column {twice!r} stands twice", remedy="rename one of them")
        return _csv(path, names)
    except (pa.ArrowException, UnicodeDecodeError, csv.Error, OSError) as error:
        raise BadTable(
            f"{site}: {path} cannot be read: {str(error).splitlines()[0]}",
            remedy="give a comma-separated file with one header line and equally many "
            "fields in every row, in UTF-8, or a Parquet file",
        ) from error


def _csv(path: Path, names: list[str]) -> pd.DataFrame:
    """Read a CSV file as text; a row of another length is an error."""
    read = pa_csv.ReadOptions(column_names=names, skip_rows=1)
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    convert = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), quoted_strings_can_be_null=False)
    table = pa_csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    frame = pd.DataFrame(table.to_pandas())
    if names and any('"' in v for v in frame[names[-1]].dropna().tail(1)):
        raise csv.Error("a quoted field does not end")
    return frame


def _normalised(frame: pd.DataFrame, site: str) -> pd.DataFrame:
    columns: dict[str, pd.Series] = {}
    for name in frame.columns:
        column = frame[name]
        if isinstance(column.dtype, pd.CategoricalDtype):
            column = column.astype(object)
        if pd.api.types.is_bool_dtype(column.dtype):
            columns[name] = column.astype(float)
        elif pd.api.types.is_integer_dtype(column.dtype) and bool((column.abs() > _EXACT).any()):
            columns[name] = column.astype(object).where(column.notna(), None).map(_whole)
        elif pd.api.types.is_numeric_dtype(column.dtype):
            columns[name] = pd.to_numeric(column).astype(float)
        else:
            columns[name] = _text_or_number(column)
        if columns[name].dtype.kind == "f":
            infinite = np.flatnonzero(np.isinf(columns[name].to_numpy()))
            if len(infinite):
                raise BadTable(
                    f"{site}: column {name!r} is infinite in row {infinite[0] + 1}",
                    remedy="replace it by a number, or leave the field empty if unknown",
                )
    return pd.DataFrame(columns)


def _text_or_number(column: pd.Series) -> pd.Series:
    text = column.astype(object).where(column.notna(), None)
    text = text.map(_stripped)
    lowered = {str(v).lower() for v in text.dropna().unique()}
    if lowered and lowered <= {"true", "false"}:
        return text.map(lambda v: np.nan if v is None else float(v.lower() == "true")).astype(float)
    numbers = pd.to_numeric(text, errors="coerce")
    whole = bool((numbers.notna() == text.notna()).all())
    if whole and (bool(np.isinf(numbers).any()) or not bool(text.map(_would_change).any())):
        return numbers.astype(float)
    return text


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


def describe_column(name: str, column: pd.Series) -> Variable:
    """Return the draft codebook entry of one column, from its kind and its categories only."""
    values = column.dropna().unique()
    if not len(values):
        return Variable(name, "empty")
    if column.dtype.kind == "f":
        whole = len(values) <= MAX_LEVELS and bool(np.all(values == np.round(values)))
        levels = tuple(_level_text(v) for v in sorted(values)) if whole else ()
        return Variable(name, "number", levels=levels)
    if len(values) <= MAX_LEVELS:
        return Variable(name, "category", levels=tuple(sorted(str(v) for v in values)))
    return Variable(name, "text")


def draft_codebook(name: str, frame: pd.DataFrame, person: str = "") -> Codebook:
    """Return a codebook inferred from a table, for its data engineer to read and correct."""
    variables = {str(c): describe_column(str(c), frame[c]) for c in frame.columns}
    if person in variables:
        variables[person] = Variable(person, "identifier")
    return Codebook(name, variables, person=person if person in variables else "")


def conform(frame: pd.DataFrame, codebook: Codebook, site: str) -> pd.DataFrame:
    """Return the columns of ``codebook`` from ``frame``, each of its declared kind.

    Numbers become float64 with NaN for missing; categories and text become strings or None.

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
            columns[variable.name] = _numbers(column, variable, site)
        else:
            columns[variable.name] = _categories(column, variable, site)
    return pd.DataFrame(columns)


def _numbers(column: pd.Series, variable: Variable, site: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    wrong = np.flatnonzero((column.notna() & numbers.isna()).to_numpy())
    if len(wrong):
        raise BadTable(
            f"{site}: column {variable.name!r} holds {column.iloc[wrong[0]]!r} in row "
            f"{wrong[0] + 1}, which is not a number",
            remedy="correct the value, leave it empty, or declare it as a missing code",
        )
    if variable.levels:
        _check_levels(numbers.map(_level_text).where(numbers.notna(), None), variable, site)
    for limit, side in ((variable.minimum, "below"), (variable.maximum, "above")):
        if limit is not None:
            bad = numbers < limit if side == "below" else numbers > limit
            if bool(bad.any()):
                row = int(np.flatnonzero(bad.to_numpy())[0])
                raise BadTable(
                    f"{site}: column {variable.name!r} is {side} its limit {limit:g} in row {row + 1}",
                    remedy="correct the value or the codebook",
                )
    return numbers


def _categories(column: pd.Series, variable: Variable, site: str) -> pd.Series:
    text = column.astype(object).map(_level_text).astype(object).where(column.notna(), None)
    if variable.levels:
        _check_levels(text, variable, site)
    return text


def _check_levels(text: pd.Series, variable: Variable, site: str) -> None:
    wrong = np.flatnonzero((text.notna() & ~text.isin(variable.levels)).to_numpy())
    if len(wrong):
        raise BadTable(
            f"{site}: column {variable.name!r} holds {text.iloc[wrong[0]]!r} in row "
            f"{wrong[0] + 1}, which is not one of its levels ({', '.join(variable.levels)})",
            remedy="recode the value, or add the level to the codebook of every site",
        )


def _level_text(value: object) -> str:
    """Return the text of a category; whole numbers lose their ``.0``."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
