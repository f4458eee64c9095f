"""How a permit lets sums be opened: what a missing holder means, how many may collude, and who else is trusted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ihds.errors import BadMessage

WAIT, CONTINUE = "wait", "continue"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """The terms of secure aggregation; the defaults are the safe ones.

    ``dropouts``    ``wait``: every sum is over all holders, and a study waits for one that is missing;
                    ``continue``: it goes on without those that are lost first, so that the user may
                    subtract and learn the sums of these holders
    ``colluding``   how many holders may collude with the user and learn nothing; None: a third of them
    ``aggregators`` pairs of DID and country: nodes that do not collude, instead of shares among the holders
    """

    dropouts: str = WAIT
    colluding: int | None = None
    aggregators: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if self.dropouts not in (WAIT, CONTINUE) or (self.colluding is not None and self.colluding < 0):
            raise BadMessage(f"these are no terms of secure aggregation: {self}", remedy="dropouts: wait or continue")

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {**asdict(self), "aggregators": [list(pair) for pair in self.aggregators]}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Aggregation:
        """Read the JSON form.

        Raises:
            BadMessage: a field is missing or wrong.

        """
        try:
            colluding = body.get("colluding")
            return cls(
                dropouts=str(body.get("dropouts", WAIT)),
                colluding=None if colluding is None else int(colluding),
                aggregators=tuple((str(did), str(country)) for did, country in body.get("aggregators", [])),
            )
        except (TypeError, ValueError, AttributeError) as error:
            raise BadMessage(f"these are no terms of secure aggregation: {error!r}") from error

    def colluders(self, holders: int) -> int:
        """Return how many of so many holders may collude with the user."""
        return holders // 3 if self.colluding is None else self.colluding


def reasons(
    permitted: Aggregation, asked: Aggregation, holders: Collection[str], users: Collection[str]
) -> tuple[str, ...]:
    """Judge a study's terms against its permit's: they may be stricter, never looser; and aggregators stand apart."""
    found = []
    if asked.dropouts != WAIT and permitted.dropouts == WAIT:
        found.append("dropouts: the permit does not let a study go on without a holder")
    if asked.colluders(len(holders)) < permitted.colluders(len(holders)):
        found.append(
            f"colluding: the permit asks for secrecy from {permitted.colluders(len(holders))} colluding holders"
        )
    if not 0 <= asked.colluders(len(holders)) <= max(0, len(holders) - 2):
        found.append("colluding: two holders must be left whose sum is secret")
    if asked.aggregators != permitted.aggregators:
        found.append("aggregators: the study names others than the permit")
    dids, countries = [d for d, _ in asked.aggregators], [c for _, c in asked.aggregators]
    if asked.aggregators and (len(set(dids)) < 2 or len(set(dids)) < len(dids)):
        found.append("aggregators: two or more, each once")
    if len(set(countries)) < len(countries):
        found.append("aggregators: no two of one country, so that no one authority reaches both")
    if {*holders, *users} & set(dids):
        found.append("aggregators: neither a holder nor the user nor the environment may be one")
    return tuple(found)
