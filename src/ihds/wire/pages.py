"""HTML pages from templates; a page needs nothing from elsewhere, and whatever is put into it is text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def page_of(package: str, template: str, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any) -> str:
    """Return a page made from a template of a package's folder ``templates``."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # a node that shows no page need not load it

    environment = Environment(
        loader=PackageLoader(package), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(values)
