"""What an attack is, and how one is judged: by what it yields, once without the protection and once against us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attacker got: the figure, what the gates told it, and what a clock showed in this run."""

    figure: float
    told: str = ""
    clock: str = ""


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to learn of persons or of one site what the study does not tell.

    ``measures``      what the figure is
    ``succeeds_from`` the figure from which the attack has succeeded
    ``without``       what the unprotected arm attacks; ``protection`` is what it lacks
    ``peers``         designs that give it away, with where that is said
    ``limitation``    the line of LIMITATIONS.md that an open attack belongs to
    """

    name: str
    title: str
    attacker: str
    sees: str
    measures: str
    succeeds_from: float
    without: str
    protection: str
    source: str
    unprotected: Callable[[], Outcome]
    protected: Callable[[], Outcome]
    peers: str = ""
    limitation: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Both arms of an attack that was carried out."""

    attack: Attack
    unprotected: Outcome
    protected: Outcome

    @property
    def works(self) -> bool:
        """Whether the attack succeeds where nothing stands in its way; else it proves nothing."""
        return self.unprotected.figure >= self.attack.succeeds_from

    @property
    def status(self) -> str:
        """Say whether the attack still succeeds against this system: open, or closed."""
        return "open" if self.protected.figure >= self.attack.succeeds_from else "closed"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        attack = self.attack
        return {
            "attack": attack.name,
            "attacker": attack.attacker,
            "measures": attack.measures,
            "succeeds_from": attack.succeeds_from,
            "without_protection": round(self.unprotected.figure, 3),
            "against_us": round(self.protected.figure, 3),
            "status": self.status,
            "told": self.protected.told,
            "clock": self.protected.clock,
            "limitation": attack.limitation if self.status == "open" else "",
        }


def carried_out(attack: Attack) -> Verdict:
    """Carry out both arms of an attack on invented persons."""
    return Verdict(attack, attack.unprotected(), attack.protected())
