"""The page of all attacks, for people: what each yields without the protection, and what against this system."""

from __future__ import annotations

from collections.abc import Iterable

from ihds.attacks.attack import Outcome, Verdict

_HEADS = (
    *("attack", "who", "sees", "figure", "without the protection", "against us", "protection"),
    *("status", "source", "designs that give it away"),
)

_INTRODUCTION = """# Attacks, carried out

Each line is an attack that ships with IHDS and is carried out twice on invented persons: where one protection is
missing, to show that it works, and against the gates, masks and thresholds of production. It is **closed** if it yields
nothing of use there, else **open**; the tests fail if a closed one opens. `ihds attack` lists them,
`ihds attack risk_sets` carries one out, `ihds attack --all` all. Figures depend on the persons invented: they compare
two designs, and bound nothing. A better attacker may find more.

"A reader" has the results. "The user, with software of their own" may send what it likes, to holders and to the
environment that the permit names (EHDS Art. 73), has all that comes back, and reads it to the last number. A permit
may name no environment: then the user's own node opens the totals, and what that gives away stands under "without the
protection". Where a row is about one holder's sum, or about several holders, the permit of the attack names none, for
the attack is stronger so. How long replies take is printed by `ihds attack lengths`. What other designs give away is
from their papers, documentation and code as read in November 2026."""


def page(verdicts: Iterable[Verdict]) -> str:
    """Return the page in Markdown; the same for the same code."""
    found = list(verdicts)
    lines = [_INTRODUCTION, "", "| " + " | ".join(_HEADS) + " |", "|" + "---|" * len(_HEADS)]
    for verdict in found:
        attack = verdict.attack
        cells = (
            f"{attack.title} (`{attack.name}`)",
            attack.attacker,
            attack.sees,
            attack.measures,
            f"{_shown(verdict.unprotected)}: {attack.without}",
            _shown(verdict.protected),
            attack.protection,
            f"**{verdict.status}**",
            attack.source,
            attack.peers,
        )
        lines.append("| " + " | ".join(cells) + " |")
    opened = [v for v in found if v.status == "open"]
    lines += ["", "## Open", "", "Each belongs to a line of [LIMITATIONS.md](../../LIMITATIONS.md):", ""]
    lines += [f"- {v.attack.title} (`{v.attack.name}`): **{v.attack.limitation}**" for v in opened]
    return "\n".join(lines) + "\n"


def _shown(outcome: Outcome) -> str:
    return f"{outcome.figure:.2g}" if outcome.figure < 0.1 else f"{outcome.figure:.2f}"
