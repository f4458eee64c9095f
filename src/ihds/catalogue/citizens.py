"""What people read about their choice on their health data: the receipt and the registry's page, in their language.

The words lie in ``texts/``, one file per language with the same entries. English is the original; a translation
that no native speaker has reviewed says so on every page.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from datetime import datetime
from importlib import resources
from typing import Any

from ihds.wire.pages import page_of

LANGUAGES = ("en", "de", "fr", "ko")


@functools.cache
def texts(language: str) -> dict[str, Any]:
    """Return the words of a language, English ones for a language there is not."""
    known = language if language in LANGUAGES else "en"
    file = resources.files("ihds.catalogue") / "texts" / f"{known}.toml"
    return {**tomllib.loads(file.read_text(encoding="utf-8")), "language": known}


def chosen(asked: str, accepted: str) -> str:
    """Return the language of a page: the one asked for, else the first of the browser's that there is."""
    if asked in LANGUAGES:
        return asked
    listed = (part.split(";")[0].strip().lower()[:2] for part in accepted.split(","))
    return next((language for language in listed if language in LANGUAGES), "en")


def receipt(language: str, choice: str, scope: str, holds_from: datetime, code: str, url: str) -> str:
    """Return the receipt a person takes home, as text."""
    words = texts(language)
    own = words["receipt"]
    time = holds_from.isoformat(sep=" ", timespec="seconds")
    lines = [
        own["heading"],
        "",
        own[choice].format(scope=words["scopes"][scope]),
        own["holds"].format(time=time),
        "",
        own["code"].format(code=code),
        own["keep"].format(url=f"{url}?lang={words['language']}"),
    ]
    return "\n".join([*lines, *(["", words["review"]] if words["review"] else [])])


def registry_page(language: str, body: str, base_url: str, answer: Mapping[str, Any] | None = None) -> str:
    """Return the page where people read of their choice, and look at it or reverse it with their code.

    ``answer`` is what became of a code: its ``choice``, or None where there is no such code.
    """
    return _page(
        "registry.html", language, f"{base_url}/opt-outs?lang={{}}", body=body, base_url=base_url, answer=answer
    )


def _page(template: str, language: str, here: str, **values: Any) -> str:
    names = [(code, texts(code)["name"], here.format(code)) for code in LANGUAGES]
    return page_of("ihds.catalogue", template, t=texts(language), languages=names, **values)
