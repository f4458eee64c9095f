"""The page a holder reads before a study runs: what would leave, in which class, to whom, under which thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ihds.reports.html import page_of


def write_preview(path: Path, found: dict[str, Any]) -> None:
    """Write the page of a preview."""
    page = page_of("preview.html", seen={"user": "", "holders": [], **found})
    path.write_text(page, encoding="utf-8")
