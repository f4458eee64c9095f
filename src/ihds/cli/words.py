"""What all commands share: how a command is declared, where it finds its node, how it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import ihds
from ihds.errors import BadInput

ERR = Console(stderr=True, soft_wrap=True)
OUT = Console(soft_wrap=True)


def group(sub: Any, name: str, text: str) -> Any:
    """Declare a group of commands."""
    parser = sub.add_parser(name, help=text, description=text)
    return parser.add_subparsers(required=True, metavar="COMMAND")


def command(
    sub: Any, name: str, text: str, example: str, run: Callable[[Any], int | None], *, node: bool = True
) -> argparse.ArgumentParser:
    """Declare a command with its example; every command takes --json and, unless said, --node."""
    parser: argparse.ArgumentParser = sub.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--verbose", action="store_true", help="say more on standard error")
    if node:
        parser.add_argument("--node", type=Path, default=Path(), help="the node's folder (default: here)")
    return parser


def open_space(given: Any) -> Any:
    """Return the running node of --node; it is closed when the command ends."""
    given.space = ihds.connect(given.node)
    return given.space


def numbers(pairs: list[str]) -> dict[str, float]:
    """Read NAME=NUMBER options."""
    found: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value) if "." in value else int(value)
        except ValueError as error:
            raise BadInput(f"{pair!r} is not NAME=NUMBER", remedy="write for example min_cell=10") from error
    return found


def show(given: Any, body: Any, text: str) -> None:
    """Print JSON with --json, else the text."""
    if given.json:
        show_json(body)
    else:
        OUT.print(text, markup=False, highlight=False)


def show_json(body: Any) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(body, indent=2, ensure_ascii=False) + "\n")


def show_rows(given: Any, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print rows as JSON with --json, else as a table."""
    if given.json:
        show_json(rows)
    elif rows:
        rows_table(rows, columns)
    else:
        OUT.print("nothing found")


def rows_table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print a table."""
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        cells = [row.get(c) for c in columns]
        table.add_row(*(", ".join(c) if isinstance(c, list) else "" if c is None else str(c) for c in cells))
    OUT.print(table)
