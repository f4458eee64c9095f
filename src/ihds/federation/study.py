"""What travels in a study: the study itself, its rounds, the masked replies, and its provenance."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.plan import Plan
from ihds.canonical import digest
from ihds.catalogue.record import DatasetRecord
from ihds.data import codebook as codebooks
from ihds.data.codebook import Codebook
from ihds.errors import BadMessage
from ihds.governance import jurisdiction
from ihds.governance.aggregation import Aggregation
from ihds.governance.permit import Permit
from ihds.ids import Did, PermitId, StudyId
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.secagg.messages import Reveal, Shares


@dataclass(frozen=True, slots=True)
class Study:
    """One question under one permit to a fixed set of holders.

    ``codebook`` is what the holders' dictionaries agree on; ``thresholds`` the strictest that
    apply; both are public and part of what every holder signs up to. Where the permit names an
    ``environment``, ``word`` is what the user signed to have it ask: see ``asked``. ``person`` is who runs it:
    the user vouches for that.
    """

    id: StudyId
    permit: PermitId
    user: Did
    purpose: str
    method: str
    params: dict[str, Any]
    codebook: dict[str, Any]
    thresholds: Thresholds
    holders: tuple[Did, ...]
    aggregation: Aggregation = field(default_factory=Aggregation)
    person: str = ""
    environment: Did | None = None
    word: str = ""

    @property
    def asker(self) -> Did:
        """Who signs the study and its rounds, and opens their sums: its environment, or where it has none its user."""
        return self.environment or self.user

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that the ``asker`` signs."""
        return {**asdict(self), "holders": list(self.holders), "aggregation": self.aggregation.to_dict()}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Study:
        """Read the JSON form.

        Raises:
            BadMessage: a field is missing or wrong.

        """
        try:
            return cls(
                id=StudyId.parse(body["id"]),
                permit=PermitId.parse(body["permit"]),
                user=Did.parse(body["user"]),
                purpose=str(body["purpose"]),
                method=str(body["method"]),
                params=dict(body["params"]),
                codebook=dict(body["codebook"]),
                thresholds=Thresholds(**body["thresholds"]),
                holders=tuple(Did.parse(h) for h in body["holders"]),
                aggregation=Aggregation.from_dict(body.get("aggregation", {})),
                person=str(body.get("person", "")),
                environment=Did.parse(body["environment"]) if body.get("environment") else None,
                word=str(body.get("word", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"this is not a study: {error!r}") from error

    def asked(self) -> dict[str, Any]:
        """Return what its user signs where an environment signs the study."""
        return asked(self.id, self.permit, self.purpose, self.method, self.params, self.person)

    def digest(self) -> str:
        """Return the digest that names the study in keys and masks."""
        return digest(self.to_dict())

    def plan(self) -> Plan:
        """Return the study's mathematics."""
        return Plan(self.method, self.params, Codebook.from_dict(self.codebook), self.thresholds, len(self.holders))


def asked(
    study: str, permit: str, purpose: str, method: str, params: dict[str, Any], person: str = ""
) -> dict[str, Any]:
    """Return what a user signs of a question that an environment puts to holders: the digest, for it may be long."""
    question = {"permit": permit, "purpose": purpose, "method": method, "params": params, "person": person}
    return {"study": study, "question": digest(question)}


def used(method: str, params: dict[str, Any], codebook: Codebook, thresholds: Thresholds, sites: int) -> Codebook:
    """Return the part of a codebook that a study reads: no more of it is signed and sent.

    Raises:
        BadInput: the method, a parameter or the formula is wrong.

    """
    plan = Plan(method, params, codebook, thresholds, sites)
    return codebook.restricted(plan.variables | {codebook.person})


def study_of(identifier: StudyId, permit: Permit, question: dict[str, Any], records: list[DatasetRecord]) -> Study:
    """Return the study that puts a question (purpose, method, params) to the holders of a permit."""
    book, limits = codebooks.agree({r.holder_name: r.codebook for r in records}), permit.thresholds
    for entry in records:
        limits = limits.strictest(jurisdiction.thresholds(entry.country, permit.legal_regime, limits))
        limits = limits.strictest(entry.thresholds or limits)
    method, params = str(question["method"]), dict(question["params"])
    return Study(
        id=identifier,
        permit=permit.id,
        user=permit.user,
        purpose=str(question["purpose"]),
        method=method,
        params=params,
        codebook=used(method, params, book, limits, len(records)).to_dict(),
        thresholds=limits,
        holders=tuple(Did.parse(r.holder) for r in records),
        aggregation=permit.aggregation,
        environment=permit.environment,
        person=str(question.get("person", "")),
    )


@dataclass(frozen=True, slots=True)
class Round:
    """One question of a study: the packed public state, signed by its ``asker`` with number, attempt and holders."""

    signature: str
    state: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reply:
    """One holder's masked answer: meaningless unless summed over all holders of the round.

    ``said`` is the holder's signed word for these words; ``told`` its signed keys for the next round.
    """

    kind: str
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    words: NDArray[np.uint64]
    said: str
    told: str


@dataclass(frozen=True, slots=True)
class Shared:
    """One holder's sealed shares of its secrets for a round, with its signature."""

    shares: Shares
    signature: str


@dataclass(frozen=True, slots=True)
class Confirm:
    """Which holders' sum is to be opened, signed by the user; with their announced keys for the next round."""

    signature: str
    announced: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """One holder's signed word that it opens this sum and no other; its shares for the next round, if it could."""

    said: str
    shared: Shared | None


@dataclass(frozen=True, slots=True)
class Uncover:
    """What a holder needs to help open a sum: the others' words that they open the same, and shares sealed to it."""

    confirmed: tuple[tuple[str, str], ...]
    boxes: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Uncovered:
    """One holder's shares for one sum, with its signature."""

    reveal: Reveal
    signature: str


@dataclass(frozen=True, slots=True)
class Left:
    """What left one site in one round, for the provenance; ``digest`` names the question, as in the holders' logs."""

    round: int
    contribution: str
    output_class: str
    fields: tuple[str, ...]
    numbers: int
    bytes: int
    digest: str = ""
