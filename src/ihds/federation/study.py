"""What travels in a study: the study itself, its rounds, the masked replies, and its provenance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ihds.analysis.plan import Plan
from ihds.canonical import digest, sha256
from ihds.data.codebook import Codebook
from ihds.errors import BadMessage
from ihds.ids import Did, PermitId, StudyId
from ihds.privacy.disclosure import Thresholds


@dataclass(frozen=True, slots=True)
class Study:
    """One question under one permit to a fixed set of holders.

    ``codebook`` is what the holders' dictionaries agree on; ``thresholds`` the strictest that
    apply; both are public and part of what every holder signs up to.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that the user signs."""
        return {**asdict(self), "holders": list(self.holders)}

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
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"this is not a study: {error!r}") from error

    def digest(self) -> str:
        """Return the digest that names the study in keys and masks."""
        return digest(self.to_dict())

    def plan(self) -> Plan:
        """Return the study's mathematics."""
        return Plan(self.method, self.params, Codebook.from_dict(self.codebook), self.thresholds, len(self.holders))


def used(method: str, params: dict[str, Any], codebook: Codebook, thresholds: Thresholds, sites: int) -> Codebook:
    """Return the part of a codebook that a study reads: no more of it is signed and sent.

    Raises:
        BadInput: the method, a parameter or the formula is wrong.

    """
    plan = Plan(method, params, codebook, thresholds, sites)
    return codebook.restricted(plan.variables | {codebook.person})


@dataclass(frozen=True, slots=True)
class Round:
    """One question of a study: its number and the packed public state, signed by the user."""

    signature: str
    state: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reply:
    """One holder's masked answer: meaningless unless summed over all holders of the study."""

    kind: str
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    words: NDArray[np.uint64]


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


def round_digest(study: str, number: int, state: bytes) -> str:
    """Return what names one round of a study, given its digest: both sides write it in their logs."""
    return sha256(f"{study}|{number}|".encode() + state)
