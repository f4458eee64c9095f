"""Outcomes of which only the first of several can happen: the formula and the counts the methods share."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis.design import Ask, Design, Frame, Ints
from ihds.analysis.outcomes import categories
from ihds.analysis.survival import grid_end, grid_width
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula


def competing_ask(
    text: str, censored: str, codebook: Codebook, *, time_bin: float | None, horizon: float | None, groups: bool
) -> Ask:
    """Return what a method of competing risks needs: ``Surv(time, cause)``, the cause a category.

    Raises:
        BadFormula: the formula is another, or ``censored`` is no level of the cause.

    """
    formula = formulas.parse(text, codebook.variables, categories(codebook))
    if not formula.survival:
        raise BadFormula(f"{text!r} has no Surv() response", remedy="write Surv(time, cause) ~ ...")
    cause = formula.label(formula.response[-1])
    if cause not in categories(codebook):
        raise BadFormula(f"the cause {cause!r} is not a category", remedy="name a category of the codebook")
    if censored and censored not in codebook.variable(cause).levels:
        raise BadFormula(
            f"{censored!r} is no level of {cause!r}",
            remedy=f"set censored to one of: {', '.join(codebook.variable(cause).levels)}; empty if nobody is",
        )
    if formula.cluster or formula.offset or "site" in formula.strata or len(formula.response) != 2:
        raise BadFormula(
            "competing risks take Surv(time, cause), no cluster(), offset() or strata(site)", remedy="leave it out"
        )
    if groups:
        formula = replace(formula, terms=tuple(re.sub(r"^C\((\w+)\)$", r"\1", t) for t in formula.terms))
        for term in formula.terms:
            if formula.label(term) not in categories(codebook):
                raise BadFormula(f"{term!r} is not a category", remedy="name one or more categories, or 1")
    else:
        formula = replace(formula, intercept=True)
    return Ask(
        formula=formula,
        outcome="competing",
        covariates="groups" if groups else "matrix",
        clock="grid",
        time_bin=grid_width(time_bin, formula, codebook),
        horizon=grid_end(horizon, formula, codebook),
        censored=censored,
    )


def cause_of(text: str) -> str:
    """Return which category is the cause in a checked formula."""
    found = re.search(r"Surv\((.*),([^,]*)\)\s*~", text)
    return found[2].strip().strip("`") if found else ""


def causes_of(text: str, censored: str, frame: Frame) -> tuple[str, ...]:
    """Return the agreed causes, the censored level left out."""
    return tuple(level for level in frame.levels[cause_of(text)] if level != censored)


def cause_codes(text: str, censored: str, design: Design) -> Ints:
    """Return the number of each row's cause (n,), -1 for the censored."""
    levels = design.frame.levels[cause_of(text)]
    causes = [level for level in levels if level != censored]
    place = [causes.index(level) if level in causes else -1 for level in levels]
    return np.asarray(np.array(place, dtype=np.int64)[design.codes[cause_of(text)]])
