"""Periods of the law in calendar months."""

from __future__ import annotations

from datetime import timedelta
from typing import Any


def wait_months(start: Any, months: int) -> Any:
    """Return the instant some months later, at the same time of day; short months end early."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = (start.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1) - timedelta(days=1)).day
    return start.replace(year=year, month=month + 1, day=min(start.day, last))
