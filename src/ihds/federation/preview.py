"""What a study would take from this site, in words: shown to the holder before anything is answered, and never sent."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ihds.analysis.method import leaves
from ihds.analysis.plan import Plan
from ihds.canonical import pack
from ihds.data.wide import Table
from ihds.errors import AnalysisFailed, BadInput, Refused
from ihds.federation.study import Reply
from ihds.privacy.disclosure import Thresholds, site_reasons
from ihds.privacy.rules import in_words


@dataclass(frozen=True, slots=True)
class Leaving:
    """One kind of contribution: how often it left in the dry run, what it is, and how large it was each time.

    ``rules`` are those of its class of output: name, text, and the thresholds as they stand.
    """

    contribution: str
    output_class: str
    meaning: str
    fields: tuple[tuple[str, str, str], ...]
    rounds: int
    numbers: int
    bytes: int
    rules: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """A study as its holder sees it; ``alone`` is why these rows by themselves would not do, if they would not.

    ``privacy`` is what its noise costs, and from how many persons of all sites on it says something.
    """

    method: str
    question: str
    variables: tuple[str, ...]
    persons: int
    leaving: tuple[Leaving, ...]
    ended: str
    refused: tuple[str, ...]
    alone: str
    thresholds: dict[str, Any]
    privacy: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def preview(plan: Plan, table: Table, persons: int, thresholds: Thresholds) -> Preview:
    """Run a study dry on a site's own rows, as if it were alone, and say what would leave it.

    Numbers of rounds and sizes may be others with all sites' rows. ``refused`` are this site's own rules.
    """
    _, _, alone = _dry(plan, table, replace(thresholds, min_holders=1, min_level_sites=1))
    left, seen, ended = _dry(plan, table, Thresholds.none())
    kinds: dict[str, Leaving] = {}
    for one in left:
        before = kinds.get(one.contribution)
        ruled = replace(one, rules=in_words(one.output_class, thresholds))
        kinds[one.contribution] = replace(ruled, rounds=before.rounds + 1) if before else ruled
    return Preview(
        method=plan.name,
        question=_first_line(plan.chosen),
        variables=tuple(sorted(plan.variables)),
        persons=seen or persons,
        leaving=tuple(kinds.values()),
        ended=ended,
        refused=site_reasons(thresholds, seen or persons),
        alone=alone,
        thresholds=asdict(thresholds),
        privacy=None if plan.wanted is None else {**plan.wanted.to_dict(), "needs_persons": math.ceil(plan.least())},
    )


def _dry(plan: Plan, table: Table, thresholds: Thresholds) -> tuple[list[Leaving], int, str]:
    """Return what would have left in each round, how many persons it was of, and why it ended early, if it did."""
    single = plan if plan.wanted is not None else Plan(plan.name, plan.values, plan.codebook, thresholds, 1)
    left: list[Leaving] = []
    work = single.work(table)
    try:
        state = single.begin()
        while single.finish(state) is None:
            value = work.local(state)
            layout, words = single.flatten(state, value)
            declared = leaves(type(value))
            left.append(
                Leaving(
                    contribution=type(value).__name__,
                    output_class=value.kind,
                    meaning=_first_line(type(value)),
                    fields=tuple((name, d.shape, d.unit) for name, d in declared.items()),
                    rounds=1,
                    numbers=len(words) - 1,
                    bytes=len(pack(Reply(type(value).__name__, layout, words, "", ""))),
                )
            )
            state = single.aggregate(state, single.total(state, type(value).__name__, layout, words))
    except (Refused, BadInput, AnalysisFailed) as error:
        return left, work.persons(), "; ".join((error.message, *error.reasons))
    return left, work.persons(), ""


def _first_line(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0].rstrip(".")
