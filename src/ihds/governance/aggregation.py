"""How a permit lets sums be opened: what a missing holder means, and how many holders may collude."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ihds.errors import BadMessage

WAIT, CONTINUE = "wait", "continue"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """The terms of secure aggregation; the defaults are the safe ones.

    ``dropouts``  ``wait``: every sum is over all holders, and a study waits for one that is missing;
                  ``continue``: it goes on without those that are lost first, so that the user may
                  subtract and learn the sums of these holders
    ``colluding`` how many holders may collude with the user and learn nothing; None: a third of them
    """

    dropouts: str = WAIT
    colluding: int | None = None

    def __post_init__(self) -> None:
        if self.dropouts not in (WAIT, CONTINUE) or (self.colluding is not None and self.colluding < 0):
            raise BadMessage(f"these are no terms of secure aggregation: {self}", remedy="dropouts: wait or continue")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Aggregation:
        """Read the JSON form.

        Raises:
            BadMessage: a field is missing or wrong.

        """
        try:
            colluding = body.get("colluding")
            return cls(str(body.get("dropouts", WAIT)), None if colluding is None else int(colluding))
        except (TypeError, ValueError, AttributeError) as error:
            raise BadMessage(f"these are no terms of secure aggregation: {error!r}") from error

    def colluders(self, holders: int) -> int:
        """Return how many of so many holders may collude with the user."""
        return holders // 3 if self.colluding is None else self.colluding


def reasons(permitted: Aggregation, asked: Aggregation, holders: int) -> tuple[str, ...]:
    """Judge a study's terms against its permit's: they may be stricter, never looser."""
    found = []
    if asked.dropouts != WAIT and permitted.dropouts == WAIT:
        found.append("dropouts: the permit does not let a study go on without a holder")
    if asked.colluders(holders) < permitted.colluders(holders):
        found.append(f"colluding: the permit asks for secrecy from {permitted.colluders(holders)} colluding holders")
    if not 0 <= asked.colluders(holders) <= max(0, holders - 2):
        found.append("colluding: two holders must be left whose sum is secret")
    return tuple(found)
