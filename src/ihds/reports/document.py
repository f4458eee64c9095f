"""A document of headings, paragraphs, lists and tables, written as Markdown or as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ihds.reports.html import page_of


@dataclass
class Document:
    """What stands in it, in order: kind of block and its content."""

    title: str
    blocks: list[tuple[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Begin a section."""
        self.blocks.append(("heading", text))

    def say(self, *texts: str) -> None:
        """Add paragraphs."""
        self.blocks += [("text", text) for text in texts if text]

    def listed(self, items: Iterable[str], none: str = "none") -> None:
        """Add a list."""
        self.blocks.append(("list", list(items) or [none]))

    def table(self, rows: Sequence[dict[str, Any]], columns: Sequence[str], none: str = "none") -> None:
        """Add a table, or a word for none."""
        if rows:
            heads = [c.replace("_", " ") for c in columns]
            self.blocks.append(("table", (heads, [[_cell(row.get(c)) for c in columns] for row in rows])))
        else:
            self.blocks.append(("text", none))

    def markdown(self) -> str:
        """Return the document in Markdown."""
        lines = [f"# {self.title}", ""]
        for kind, content in self.blocks:
            match kind:
                case "heading":
                    lines.append(f"## {content}")
                case "list":
                    lines += [f"- {_plain(item)}" for item in content]
                case "table":
                    heads, rows = content
                    lines += [_row(heads), "|" + "---|" * len(heads), *map(_row, rows)]
                case _:
                    lines.append(_plain(content))
            lines.append("")
        return "\n".join(lines)

    def html(self) -> str:
        """Return the document as an HTML page."""
        return page_of("document.html", title=self.title, blocks=self.blocks)

    def write(self, path: Path) -> None:
        """Write it: HTML if the name says so, else Markdown."""
        path.write_text(self.html() if path.suffix == ".html" else self.markdown(), encoding="utf-8")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _plain(text: str) -> str:
    """Return text of others without Markdown's power to make links, pictures or markup."""
    clean = " ".join(text.split())
    return "".join(f"\\{c}" if c in "[]<>|`" else c for c in clean)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(map(_plain, cells)) + " |"
