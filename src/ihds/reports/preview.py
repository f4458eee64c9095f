"""The page a holder reads before a study runs: what would leave, in which class, to whom, under which thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def write_preview(path: Path, found: dict[str, Any]) -> None:
    """Write the page of a preview; it needs nothing from elsewhere."""
    environment = Environment(
        loader=PackageLoader("ihds.reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("preview.html").render(seen={"user": "", "holders": [], **found})
    path.write_text(page, encoding="utf-8")
