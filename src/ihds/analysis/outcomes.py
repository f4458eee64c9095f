"""Formulas that several methods read alike: one outcome, an outcome that is a category, random terms."""

from __future__ import annotations

import re

import numpy as np

from ihds.analysis import formula as formulas
from ihds.analysis.design import Frame
from ihds.analysis.formula import Formula
from ihds.data.codebook import Codebook
from ihds.errors import BadFormula
from ihds.privacy.disclosure import suppress

#: Said where the default steps or edges are too wide for most values.
COARSE = "the default steps are too wide for some variables (a far value, or few different ones): give them"

_BARS = re.compile(r"\+?\s*\(([^()|]*(?:\([^()]*\)[^()|]*)*)(\|\|?)([^()|]+)\)")


def categories(codebook: Codebook) -> list[str]:
    """Return the variables that are categories."""
    return [n for n, v in codebook.variables.items() if v.kind == "category"]


def plain_formula(text: str, codebook: Codebook, method: str) -> Formula:
    """Parse a formula with one outcome and an intercept, without strata, cluster and offset.

    Raises:
        BadFormula: it has something else.

    """
    formula = formulas.parse(text, codebook.variables, categories(codebook))
    if formula.survival or len(formula.response) != 1:
        raise BadFormula(f"{text!r} needs one outcome", remedy="write outcome ~ covariates")
    if not formula.intercept:
        raise BadFormula(f"{method} needs the intercept", remedy="leave out '- 1' and '+ 0'")
    if formula.strata or formula.cluster or formula.offset:
        raise BadFormula(f"{method} takes no strata(), cluster() or offset()", remedy="leave it out")
    return formula


def own_clusters(formula: Formula, codebook: Codebook) -> Formula:
    """Return a formula whose clusters lie within one site each.

    Raises:
        BadFormula: they are a category, whose levels several sites share.

    """
    named = codebook.variables.get(formula.label(formula.cluster))
    if named is not None and named.kind == "category":
        raise BadFormula(
            f"{formula.label(formula.cluster)!r} is a category that several sites share",
            remedy="name an identifier: groups of rows are taken to lie within one site",
        )
    return formula


def category_formula(text: str, codebook: Codebook) -> Formula:
    """Parse a formula whose outcome is a category with published levels.

    Raises:
        BadFormula: it is not.

    """
    formula = plain_formula(text, codebook, "a model of a category")
    name = formula.label(formula.response[0])
    if name not in categories(codebook):
        raise BadFormula(f"the outcome {name!r} is not a category", remedy="name a category of the codebook")
    return formula


def table_formula(text: str, by: str, codebook: Codebook) -> Formula:
    """Parse ``~ a + b`` for methods that look at each variable by itself, per level of ``by``.

    Raises:
        BadFormula: it has an outcome, something else than variables, or ``by`` is no category.

    """
    if by and by not in categories(codebook):
        raise BadFormula(f"by {by!r} is not a category", remedy="name a category of the codebook")
    quoted = by if by.isidentifier() else f"`{by}`"
    formula = formulas.parse(f"{text} + {quoted}" if by else text, codebook.variables, categories(codebook))
    plain = all(formula.label(term) in codebook.variables for term in formula.terms)
    if formula.response or not plain or formula.strata or formula.cluster or formula.offset:
        raise BadFormula(f"{text!r} is no list of variables", remedy="write ~ age + stage")
    if by in {formula.label(t) for t in formulas.parse(text, codebook.variables, categories(codebook)).terms}:
        raise BadFormula(f"{by!r} is both a variable and the group", remedy="leave it out of the formula")
    return formula


def shown_groups(by: str, frame: Frame) -> list[bool]:
    """Return, per level of ``by``, whether enough persons hold it, and not at one site alone.

    With a level that is hidden another is, as in every table: the rest of all would tell its size.
    """
    if not by:
        return [True]
    told = suppress(np.array(frame.counts[by]), max(frame.min_cell, 1))
    return [count is not None and count >= frame.min_cell for count in told]


def shown_rows(by: str, frame: Frame) -> int:
    """Return how many there are, leaving out groups that are not shown: the rest would tell their size."""
    if not by or all(shown_groups(by, frame)):
        return frame.rows
    return int(sum(persons for persons, s in zip(frame.counts[by], shown_groups(by, frame), strict=True) if s))


def published(formula: Formula, codebook: Codebook) -> tuple[str, ...]:
    """Return the published levels of the outcome, in their order."""
    return codebook.variable(formula.label(formula.response[-1])).levels


def outcome_of(text: str, frame: Frame) -> str:
    """Return which of the agreed categories is the outcome of a checked formula."""
    left = text.split("~")[0].strip().strip("()").strip().strip("`")
    return next(name for name in frame.levels if name == left)


def names_in(text: str) -> list[str]:
    """Return the names of columns in a checked formula, where no codebook is at hand."""
    found = re.findall(r"`([^`]+)`|([^\W\d][\w.]*)", text)
    return sorted({quoted or plain for quoted, plain in found} - formulas.WORDS)


def split_bars(text: str) -> tuple[str, str, str, str]:
    """Return the fixed formula, the random terms, the bar and the grouping of an lme4 formula.

    Raises:
        BadFormula: there is not exactly one group of random terms.

    """
    found = _BARS.findall(text)
    if len(found) != 1:
        raise BadFormula(
            f"{text!r} has {len(found)} random terms, one is needed",
            remedy="write for example y ~ time + (time | patient)",
        )
    inner, bar, group = (part.strip() for part in found[0])
    if inner in ("", "0"):
        raise BadFormula(f"{text!r} has no random term before the bar", remedy="write for example (1 | patient)")
    fixed = _BARS.sub("", text).strip()
    return (fixed + " 1" if fixed.endswith("~") else fixed), inner, bar, group
