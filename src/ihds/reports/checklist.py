"""Reports in the order journals ask for: REMARK for tumour markers, STROBE for observational studies.

An item is answered by what the system knows (codebook, permit, formulas, results), by the study's
steps, or not at all: then it is the authors' to write, and the report says so. Nothing is made up.

Sources: REMARK, McShane et al., J Natl Cancer Inst 2005;97:1180, explained by Altman et al., BMC Med
2012;10:51. STROBE, von Elm et al., Lancet 2007;370:1453.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ihds.analysis import features
from ihds.analysis.method import method
from ihds.analysis.outcomes import names_in
from ihds.analysis.plan import Plan
from ihds.analysis.result import Result
from ihds.cohorts.cohort import Cohort, Step, Study
from ihds.data.codebook import Codebook, Variable
from ihds.errors import BadInput
from ihds.privacy.disclosure import Thresholds


@dataclass(frozen=True, slots=True)
class Item:
    """One item: its number, the section it stands in, what it asks for, and which facts answer it."""

    number: str
    section: str
    asks: str
    facts: str = ""


@dataclass(frozen=True, slots=True)
class Checklist:
    """A guideline; ``main`` is the item of a step that names none, ``first`` that of who the persons are."""

    name: str
    citation: str
    main: str
    first: str
    items: tuple[Item, ...]

    def item_of(self, step: Step) -> str:
        """Return the item a step stands under.

        Raises:
            BadInput: it names one that the guideline does not have.

        """
        chosen = step.item or (self.first if step.method in ("table_one", "describe") else self.main)
        if chosen not in {item.number for item in self.items}:
            raise BadInput(f"{self.name} has no item {chosen!r}", remedy="name one of its items, or none")
        return chosen


_INTRODUCTION, _PATIENTS, _ASSAY = "Introduction", "Patients", "Specimens and assay"
_DESIGN, _STATISTICS, _DATA = "Study design", "Statistical analysis", "Data"
_ANALYSIS, _DISCUSSION, _METHODS, _RESULTS = "Analysis and presentation", "Discussion", "Methods", "Results"

REMARK = Checklist(
    "REMARK",
    "McShane et al., J Natl Cancer Inst 2005;97:1180–1184; Altman et al., BMC Med 2012;10:51",
    main="16",
    first="13",
    items=(
        Item("1", _INTRODUCTION, "the marker, the objectives and any hypothesis made beforehand", "question"),
        Item("2", _PATIENTS, "the patients, where they come from and who was included", "source"),
        Item("3", _PATIENTS, "the treatments and how they were chosen"),
        Item("4", _ASSAY, "the material, how it was kept and stored"),
        Item("5", _ASSAY, "the assay, its quality control, and whether it was done blind to the outcome", "markers"),
        Item("6", _DESIGN, "how cases were selected, the period and the length of follow-up", "setting"),
        Item("7", _DESIGN, "the endpoints, defined", "endpoints"),
        Item("8", _DESIGN, "all variables that were candidates for a model", "candidates"),
        Item("9", _DESIGN, "why the sample has this size"),
        Item("10", _STATISTICS, "the methods, how models were built, missing values", "methods"),
        Item("11", _STATISTICS, "how marker values were used, and cut-offs", "handling"),
        Item("12", _DATA, "the flow of patients through the analyses, and events", "flow"),
        Item("13", _DATA, "how demographic and standard prognostic variables, and the marker, are distributed"),
        Item("14", _ANALYSIS, "the marker and the standard prognostic variables"),
        Item("15", _ANALYSIS, "the marker and the outcome, each alone"),
        Item("16", _ANALYSIS, "the multivariable analyses, with intervals"),
        Item("17", _ANALYSIS, "the marker with all standard variables, significant or not"),
        Item("18", _ANALYSIS, "further investigations: assumptions, sensitivity, validation"),
        Item("19", _DISCUSSION, "the results against the hypotheses and other studies; limitations", "limits"),
        Item("20", _DISCUSSION, "what this means for research and for patients"),
    ),
)

STROBE = Checklist(
    "STROBE",
    "von Elm et al., Lancet 2007;370:1453–1457",
    main="16",
    first="14",
    items=(
        Item("2", _INTRODUCTION, "background and rationale"),
        Item("3", _INTRODUCTION, "objectives and hypotheses", "question"),
        Item("4, 5", _METHODS, "design, setting, places and dates", "setting"),
        Item("6", _METHODS, "participants, and who was eligible", "source"),
        Item("7, 8", _METHODS, "outcomes, exposures and other variables, and how they were measured", "variables"),
        Item("9", _METHODS, "efforts against bias"),
        Item("10", _METHODS, "how the study's size was arrived at"),
        Item("11", _METHODS, "how quantities were used", "handling"),
        Item("12", _METHODS, "the statistical methods, missing values", "methods"),
        Item("13, 15", _RESULTS, "participants at each stage, and outcomes", "flow"),
        Item("14", _RESULTS, "who the participants are"),
        Item("16", _RESULTS, "main results"),
        Item("17", _RESULTS, "other analyses"),
        Item("18", _DISCUSSION, "key results"),
        Item("19", _DISCUSSION, "limitations", "limits"),
        Item("20, 21", _DISCUSSION, "interpretation and generalisability"),
        Item("22", _DISCUSSION, "funding"),
    ),
)

CHECKLISTS = {found.name: found for found in (REMARK, STROBE)}


@dataclass(frozen=True)
class Known:
    """What the system knows of a study that was run."""

    cohort: Cohort
    study: Study
    results: list[Result]

    @property
    def book(self) -> Codebook:
        """The codebook of the study's table."""
        return self.cohort.codebooks[self.study.table]

    @property
    def thresholds(self) -> dict[str, Any]:
        """The thresholds the holders asked for."""
        found: dict[str, Any] = self.results[0].provenance["thresholds"]
        return found

    def used(self, step: Step) -> list[str]:
        """Return the variables of a step."""
        text = " ".join(str(step.params.get(name, "")) for name in ("formula", "by", "outcome", "visit"))
        found = set(names_in(text)) & set(self.book.variables)
        if "features" in step.params:
            found |= set(features.select(str(step.params["features"]), self.book, frozenset(found)))
        return [name for name in self.book.variables if name in found]

    def markers(self) -> set[str]:
        """Return the variables that a step looks at one by one."""
        wanted = [str(step.params["features"]) for step in self.study.steps if "features" in step.params]
        return {name for pattern in wanted for name in features.select(pattern, self.book, frozenset())}

    def outcomes(self) -> list[str]:
        """Return the variables on the left of a formula, in the order of their first use."""
        lefts = (str(step.params.get("formula", "")).partition("~")[0] for step in self.study.steps)
        return list(dict.fromkeys(n for left in lefts for n in self.book.variables if n in names_in(left)))


def described(variable: Variable) -> str:
    """Return a variable as a list of definitions has it."""
    levels = ", ".join(level.replace("_", " ") for level in variable.levels)
    parts = [f"in {variable.unit}" if variable.unit else "", f"one of {levels}" if levels else ""]
    if variable.horizon is not None:
        parts.append(f"followed for up to {variable.horizon:g} {variable.unit}")
    parts.append(variable.concept)
    told = "; ".join(part for part in parts if part)
    return f"{variable.label or variable.name} ({variable.name}{': ' + told if told else ''})"


def _question(known: Known) -> list[str]:
    return [known.study.question]


def _source(known: Known) -> list[str]:
    holders = known.results[0].provenance["holders"]
    at = ", ".join(f"{h.get('name', h['did'])} ({h.get('country', '?')})" for h in holders)
    return [
        f"{known.cohort.description}.",
        f"Persons of {len(holders)} holders: {at}.",
    ]


def _setting(known: Known) -> list[str]:
    return [
        f"Rows stayed at the holders, under the permit {known.results[0].provenance['permit']}, for "
        f"{str(known.results[0].provenance['purpose']).replace('_', ' ')}; only sums over all holders were opened."
    ]


def _endpoints(known: Known) -> list[str]:
    return [described(known.book.variables[name]) for name in known.outcomes()]


def _candidates(known: Known) -> list[str]:
    every = {name for step in known.study.steps for name in known.used(step)} - set(known.outcomes())
    own = [described(v) for name, v in known.book.variables.items() if name in every - known.markers()]
    return own + ([f"{len(known.markers())} markers: {_listed(known)}"] if known.markers() else [])


def _listed(known: Known) -> str:
    return ", ".join(known.book.variables[name].label or name for name in sorted(known.markers()))


def _variables(known: Known) -> list[str]:
    return [*_endpoints(known), *_candidates(known)]


def _markers(known: Known) -> list[str]:
    units = sorted({known.book.variables[n].unit for n in known.markers()} - {""})
    return [f"{len(known.markers())} markers in units of {', '.join(units)}: {_listed(known)}."] if units else []


def _methods(known: Known) -> list[str]:
    said = []
    for step in known.study.steps:
        doc = inspect.getdoc(method(step.method)) or ""
        source = re.search(r"^Source\s+(.*?)(?=^\w|\Z)", doc, re.MULTILINE | re.DOTALL)
        first = doc.split("\n")[0].rstrip(".")
        told = re.split(r"\.\s+(?=[A-Z])", " ".join(source[1].split()))[0].rstrip(".; ") if source else ""
        said.append(f"{step.heading}: {first} ({step.method}). {told}. {_missing(known, step)}")
    return said


def _missing(known: Known, step: Step) -> str:
    asked = Plan(step.method, step.params, known.book, Thresholds(), 1).agreement.ask
    if not asked.complete:
        return "Each variable is described by the rows that have it."
    if asked.gaps:
        return "Rows may lack covariates; the method's page says how they are imputed."
    if asked.features:
        return "Rows that lack a covariate are left out; the method's page says what a missing feature counts as."
    return "Rows that lack a value are left out."


def _handling(known: Known) -> list[str]:
    formulas = dict.fromkeys(str(s.params["formula"]) for s in known.study.steps if "formula" in s.params)
    patterns = dict.fromkeys(str(s.params["features"]) for s in known.study.steps if "features" in s.params)
    said = [f"Terms as they entered: {formula}." for formula in formulas]
    return said + [f"Each of {pattern} entered by itself, as it was measured." for pattern in patterns]


def _flow(known: Known) -> list[str]:
    said = []
    for step, result in zip(known.study.steps, known.results, strict=True):
        left_out = result.details.get("left_out_missing")
        gone = "" if left_out is None else f"; {left_out} rows left out for missing values"
        events = f", {result.events} events" if result.events is not None else ""
        said.append(f"{step.heading}: {result.n} rows analysed{events}{gone}.")
    return said


def _limits(known: Known) -> list[str]:
    told = known.thresholds
    return [
        f"Counts of fewer than {told['min_cell']} persons are hidden, and what would give them away; each holder "
        f"took part with at least {told['min_site_persons']} persons.",
        "No figure is of one site alone, so whether sites differ does not show.",
    ]


FACTS: dict[str, Callable[[Known], list[str]]] = {
    "question": _question,
    "source": _source,
    "setting": _setting,
    "endpoints": _endpoints,
    "candidates": _candidates,
    "variables": _variables,
    "markers": _markers,
    "methods": _methods,
    "handling": _handling,
    "flow": _flow,
    "limits": _limits,
}

#: Facts that answer an item in part: what happened before the data came is not known here.
PARTLY = ("question", "source", "setting", "endpoints", "variables", "markers", "limits")
