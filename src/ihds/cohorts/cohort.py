"""What a cohort is: tables with codebooks, simulated patients, and the protocol's analyses as ready studies."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ihds.data.codebook import Codebook
from ihds.errors import BadInput

_HERE = Path(__file__).parent
#: Persons of each simulated site: of unequal size, as hospitals are.
SITE_PERSONS = (420, 360, 300)


@dataclass(frozen=True)
class Step:
    """One analysis of a study: a method, its parameters, how to read it, and the guideline's item it answers."""

    method: str
    heading: str
    reading: str
    params: dict[str, Any]
    item: str = ""


@dataclass(frozen=True)
class Study:
    """A ready study of the protocol, on one table, to be reported by a guideline."""

    name: str
    question: str
    table: str
    steps: tuple[Step, ...]
    checklist: str = "STROBE"


@dataclass(frozen=True)
class Cohort:
    """A cohort by name: its tables' codebooks, its simulator and its studies."""

    name: str
    title: str
    description: str
    keywords: tuple[str, ...]
    codebooks: dict[str, Codebook]
    simulate: Callable[[int, int], dict[str, pd.DataFrame]]
    studies: dict[str, Study]

    def site(self, number: int) -> dict[str, pd.DataFrame]:
        """Return the tables of one simulated site; the same number gives the same patients."""
        return self.simulate(number, SITE_PERSONS[number % len(SITE_PERSONS)])

    def study(self, name: str) -> Study:
        """Return one study.

        Raises:
            BadInput: there is none of that name.

        """
        if name not in self.studies:
            raise BadInput(
                f"{self.name} has no study {name!r}", remedy=f"use one of: {', '.join(sorted(self.studies))}"
            )
        return self.studies[name]


def cohort(name: str) -> Cohort:
    """Read a cohort from its folder: ``cohort.toml``, a codebook per table, ``simulate.py``.

    Raises:
        BadInput: there is none of that name.

    """
    folder = _HERE / name
    if name not in names():
        raise BadInput(f"there is no cohort {name!r}", remedy=f"use one of: {', '.join(names())}")
    told = tomllib.loads((folder / "cohort.toml").read_text(encoding="utf-8"))
    studies = {
        key: Study(
            name=key,
            question=found["question"],
            table=found["table"],
            steps=tuple(_step(s) for s in found["steps"]),
            checklist=found.get("checklist", "STROBE"),
        )
        for key, found in told["studies"].items()
    }
    return Cohort(
        name=name,
        title=told["title"],
        description=told["description"],
        keywords=tuple(told["keywords"]),
        codebooks={table: Codebook.read(folder / f"{table}.toml") for table in told["tables"]},
        simulate=importlib.import_module(f"ihds.cohorts.{name}.simulate").site,
        studies=studies,
    )


def names() -> list[str]:
    """Return the names of all cohorts."""
    return sorted(path.parent.name for path in _HERE.glob("*/cohort.toml"))


def _step(found: dict[str, Any]) -> Step:
    params = {k: _plain(v) for k, v in found.get("params", {}).items()}
    return Step(found["method"], found["heading"], found["reading"], params, found.get("item", ""))


def _plain(value: Any) -> Any:
    return [float(v) if isinstance(v, int) else v for v in value] if isinstance(value, list) else value
