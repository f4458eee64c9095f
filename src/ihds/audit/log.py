"""The only writer: ``commit`` stores records and their event together and signs the new root.

Trust: whoever holds the node's signing key can write a false history from the start; whoever
holds only the database cannot change, remove or reorder one entry unnoticed. A history written anew with
the key, and a roll-back of the whole database to an earlier signed state, are found by the witnesses that
saw later checkpoints (``audit.witnessing``).
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from ihds.audit import merkle
from ihds.canonical import canonical_json
from ihds.errors import AuditBroken
from ihds.store.store import Put, Record, Store

#: Every kind of event, in words. An event of another kind cannot be written.
EVENTS: dict[str, str] = {
    "node.created": "the node's keys and identity were made",
    "dataset.loaded": "a dataset was loaded or replaced",
    "key.rotated": "the node signs with a new key",
    "key.retired": "a former key no longer vouches for anything",
    "member.requested": "somebody asked the authority for membership",
    "member.advanced": "the authority admitted, rejected, suspended, reinstated or expelled a member",
    "charter.founded": "the bodies of the data space were founded",
    "motion.opened": "a body was asked to decide",
    "motion.voted": "a seat of a body voted",
    "motion.decided": "a motion was carried with its effect, rejected, withdrawn, lapsed or void",
    "credential.requested": "credentials were asked for",
    "credential.issued": "an issuer decided to issue credentials",
    "credential.rejected": "an issuer refused to issue credentials",
    "credential.delivered": "credentials reached their holder",
    "credential.received": "a credential was received",
    "application.submitted": "a data access application was received",
    "application.advanced": "an application moved to another state",
    "permit.granted": "a data permit was issued",
    "permit.refused": "an application was refused",
    "application.assessed": "an assessor gave a verdict on an application",
    "request.granted": "a request for an answer in statistics was granted",
    "officer.changed": "an account of an access body was made, changed or closed",
    "duty.assigned": "somebody was given a duty in a project",
    "session.opened": "a person signed in at this node",
    "session.renewed": "a person's session was renewed by the provider's word",
    "session.closed": "a person's session was ended",
    "provider.changed": "a person's account at this sign-in provider was made, changed or closed",
    "provider.granted": "this sign-in provider handed out something that is used once",
    "provider.exchanged": "what this sign-in provider handed out was used",
    "visas.received": "visas that came with an application were checked",
    "visas.issued": "visas of a permit in force were made for a person",
    "agreement.advanced": "an agreement of several institutions was proposed, signed or ended",
    "agreement.signed": "this node signed an agreement",
    "clock.warned": "a period of the law will end soon",
    "clock.ran_out": "a period of the law ended before what was due was done; nothing is granted by that",
    "permit.expired": "a permit ended by its own date",
    "publication.reported": "a user reported a publication of results",
    "publication.clock": "the time to publish was extended, or deletion was recorded",
    "finding.reported": "a user reported a significant finding for persons in the data",
    "applicant.excluded": "an applicant was excluded from access for a time",
    "appeal.advanced": "an appeal against a refusal moved to another state",
    "case.forwarded": "another access body took in its part of an application, or told what became of it",
    "permit.received": "a data permit arrived at its user",
    "permit.revoked": "a data permit was revoked",
    "negotiation.advanced": "a contract negotiation moved to another state",
    "transfer.advanced": "a transfer process moved to another state",
    "gaiax.certified": "the node's key got a certificate chain",
    "gaiax.notarised": "this node vouched for a registration number",
    "gaiax.assessed": "a Gaia-X presentation was checked",
    "gaiax.submitted": "a clearing house answered a presentation",
    "worker.registered": "a worker in the inner zone told its keys and datasets",
    "dataplane.registered": "a data plane registered with its connector, or left",
    "dataflow.advanced": "a data flow moved to another state in a data plane of its own",
    "data.sent": "bytes of a started transfer were sent",
    "data.received": "bytes of a started transfer were received",
    "message.delivered": "the counterparty acknowledged a message",
    "message.delayed": "a message could not be delivered yet and will be tried again",
    "message.abandoned": "the counterparty rejected a message for good",
    "study.requested": "a researcher asked for a study",
    "study.connected": "a study has its agreements and transfers",
    "study.settled": "a study finished, paused, waits for a site or failed",
    "study.received": "an environment's result reached its user",
    "study.witnessed": "the holders' checkpoints were added to a result",
    "study.asked": "a study waits for a person of the holder to approve it",
    "study.approved": "a person of the holder approved a study",
    "study.opened": "a holder agreed to take part in a study",
    "study.started": "a user started a study",
    "study.round": "a total was opened and the study moved on",
    "study.restarted": "a study began again without holders that were lost",
    "study.finished": "a study ended with a result",
    "study.failed": "a study ended without a result",
    "study.refused": "the gate refused a study or a round",
    "study.closed": "a holder erased what it kept of a study",
    "ledger.begun": "a holder made the secret of its ledger against differencing",
    "opt_out.begun": "a registry of opt-outs made its secret",
    "opt_out.paired": "a holder got its keys for the opt-outs of a dataset",
    "opt_out.recorded": "a person's choice on secondary use was recorded",
    "opt_out.receipt": "a person got a receipt with a new code",
    "opt_outs.keyed": "a holder keeps its keys for the opt-outs of a dataset",
    "opt_outs.received": "a holder brought a registry's list of opt-outs up to date",
    "opt_outs.refused": "what came as a list of opt-outs did not continue the list at hand",
    "opt_outs.applied": "which opt-outs apply to a permit's data was fixed",
    "round.answered": "the gate let a masked contribution leave",
    "round.confirmed": "the gate agreed to open one sum, and no other, of a round",
    "witness.signed": "this node found that another's log extends what it saw before, and signed so",
    "witness.alarm": "another's log was rolled back or rewritten",
    "witness.accepted": "a person accepted another's log as it stands after an alarm",
    "evidence.exported": "the evidence of a study was exported",
}


#: The person in whose name the present call writes: issuer and subject. Every event it writes says so.
acting: ContextVar[dict[str, str] | None] = ContextVar("acting", default=None)


class Signer(Protocol):
    """Signs checkpoints with the node's key."""

    def sign(self, data: bytes) -> str:
        """Return a signature as text."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: kind, who caused it, and the identifiers and figures of it."""

    kind: str
    actor: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in EVENTS:
            raise ValueError(f"{self.kind!r} is not a kind of event")


def now() -> datetime:
    """Return the present instant, aware, UTC."""
    return datetime.now(UTC)


@dataclass
class Log:
    """A node's log over its store."""

    store: Store
    origin: str
    signer: Signer
    clock: Callable[[], datetime] = now
    _tree: merkle.Tree = field(default_factory=merkle.Tree)
    _growing: threading.Lock = field(default_factory=threading.Lock)

    def commit(self, event: Event, *puts: Put) -> None:
        """Write records and their event: both or neither.

        Raises:
            Conflict: a record was changed meanwhile; nothing was written.

        """
        at = self.clock().isoformat(timespec="milliseconds")
        person = acting.get()
        details = {**event.details, "signed_in": person} if person else event.details

        def append(before: str) -> tuple[str, str]:
            head: dict[str, Any] = json.loads(before) if before else {"size": 0, "frontier": []}
            entry = {
                "position": head["size"],
                "at": at,
                "kind": event.kind,
                "actor": event.actor,
                "details": details,
                "salt": secrets.token_hex(16),  # without it a leaf hash would confirm a guess of an erased entry
            }
            data = canonical_json(entry)
            frontier = [bytes.fromhex(h) for h in head["frontier"]]
            frontier = merkle.extend(frontier, head["size"], merkle.leaf_hash(data))
            size = head["size"] + 1
            note = checkpoint_text(self.origin, size, merkle.frontier_root(frontier))
            after = {
                "size": size,
                "frontier": [h.hex() for h in frontier],
                "checkpoint": note,
                "signature": self.signer.sign(note.encode()),
                "worth": head.get("worth", 0) if event.kind == "witness.signed" else size,
            }
            return data.decode(), json.dumps(after)

        self.store.transact(list(puts), append)

    def get(self, kind: str, id: str) -> Record | None:  # noqa: A002
        """Return one record."""
        return self.store.get(kind, id)

    def entries(self, start: int = 0) -> list[dict[str, Any]]:
        """Return the log's entries as JSON values."""
        return [json.loads(text) for text in self.store.read(start)]

    def checkpoint(self) -> dict[str, Any]:
        """Return the latest signed checkpoint: text, signature, size, root, and the size worth witnessing.

        What a log says of other logs alone is not worth it: two that witness each other would never rest.
        """
        text = self.store.head()
        if not text:
            return {"size": 0, "root": merkle.root([]).hex(), "checkpoint": "", "signature": "", "worth": 0}
        head = json.loads(text)
        root = merkle.frontier_root([bytes.fromhex(h) for h in head["frontier"]])
        return {
            "size": head["size"],
            "root": root.hex(),
            "checkpoint": head["checkpoint"],
            "signature": head["signature"],
            "worth": head.get("worth", head["size"]),
        }

    def prove(self, since: int) -> dict[str, Any]:
        """Return the latest checkpoint with the proof that it extends the log of ``since`` entries (RFC 9162 §2.1.4).

        Raises:
            AuditBroken: the entries do not lead to the signed root.

        """
        told, tree = self.tree()
        return {**told, "since": since, "consistency": [h.hex() for h in tree.consistency(since, told["size"])]}

    def tree(self) -> tuple[dict[str, Any], merkle.Tree]:
        """Return the latest checkpoint and the tree of at least its entries.

        Raises:
            AuditBroken: the entries do not lead to the signed root.

        """
        told = self.checkpoint()
        with self._growing:
            for _ in (1, 2):  # the database may have been replaced under this process: then from the start
                for text in self.store.read(len(self._tree), max(told["size"], len(self._tree))):
                    self._tree.append(merkle.leaf_hash(text.encode()))
                if len(self._tree) >= told["size"] and self._tree.root(told["size"]).hex() == told["root"]:
                    return told, self._tree
                self._tree = merkle.Tree()
        raise AuditBroken(f"{self.origin}: its entries do not lead to the signed root", remedy=_KEEP)


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Return the text that is signed: origin, size and root on lines of their own (C2SP tlog)."""
    return f"{origin}\n{size}\n{root.hex()}\n"


def verify(store: Store, origin: str, check: Callable[[bytes, str], bool]) -> int:
    """Prove a log from its entries; return how many it holds.

    ``check`` verifies a signature of the node's key.

    Raises:
        AuditBroken: an entry was altered, removed, added or reordered, or the head is not signed;
            the first position that does not fit is named.

    """
    head_text = store.head()
    head: dict[str, Any] = json.loads(head_text) if head_text else {"size": 0, "checkpoint": "", "signature": ""}
    frontier: list[bytes] = []
    size = 0
    for text in store.read(0, head["size"]):
        if not _stands(text, size):
            raise AuditBroken(f"{origin}: the log does not hold entry {size} as written", remedy=_KEEP)
        frontier = merkle.extend(frontier, size, merkle.leaf_hash(text.encode()))
        size += 1
    note = checkpoint_text(origin, size, merkle.frontier_root(frontier)) if size else ""
    if head["checkpoint"] != note or (size and not check(note.encode(), head["signature"])):
        raise AuditBroken(
            f"{origin}: its {size} entries do not lead to the signed root over {head['size']}: one "
            "was altered, added or removed",
            remedy=_KEEP,
        )
    if store.head() == head_text and next(iter(store.read(size)), None) is not None:
        raise AuditBroken(f"{origin}: entries stand beyond the signed {size}", remedy=_KEEP)
    return size


_KEEP = "keep the database as it is; compare it with a back-up and with the checkpoints other nodes hold"


def _stands(text: str, position: int) -> bool:
    """Return whether an entry is canonical and stands where it says."""
    try:
        entry = json.loads(text)
        return canonical_json(entry) == text.encode() and entry.get("position") == position
    except (ValueError, AttributeError):
        return False
