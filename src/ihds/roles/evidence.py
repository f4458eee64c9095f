"""The evidence of a study: what one institution exports for an auditor who has nothing but files.

A bundle holds the events of its log that concern a study, each with the proof that it stands in the log; the
signed checkpoint; what witnesses signed of it; the permit, study and result themselves; and the DID
documents needed to check all that, as this institution sees them. It is signed as a whole. Events of
other studies under the same permit are in it, for the permit's budget is shared; nothing else is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.audit.witnessing import Checkpoint, witnesses
from ihds.canonical import canonical_json
from ihds.connector.dcp.credentials import PERMISSIONS
from ihds.errors import IhdsError, NotFound
from ihds.store.store import Record
from ihds.wire.jose import read_unverified

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

FORMAT = "ihds-evidence/1"
#: Events that concern every study: who the node is, with which keys, who is a member, what bodies decided.
_ALWAYS = frozenset(
    [
        "node.created",
        "key.rotated",
        "key.retired",
        "member.requested",
        "member.advanced",
        "charter.founded",
        "motion.decided",
    ]
)


class Evidence:
    """Exports the bundles of one node."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node

    def routes(self) -> list[Route]:
        """Return nothing: bundles are files."""
        return []

    def commands(self) -> dict[str, Command]:
        """Return the command that exports."""
        return {"audit.export": lambda a: self.export([str(i) for i in a["ids"]])}

    def export(self, ids: list[str]) -> dict[str, Any]:
        """Return the signed bundle about studies, permits or applications.

        Raises:
            NotFound: this node's log says nothing of them.

        """
        log = self.node.log
        about = self._linked(set(ids))
        found = [e for e in log.entries() if _concerns(e, about)]
        if self.node.config.role != "authority" and not any(e["kind"] not in _ALWAYS for e in found):
            raise NotFound(
                f"this node's log says nothing of {', '.join(ids)}", remedy="give the id of a study or permit"
            )
        log.commit(Event("evidence.exported", self.node.did, {"about": sorted(ids), "entries": len(found)}))
        statements = self.node.witness.statements()
        told, tree = log.tree()
        size = int(told["size"])
        checkpoint = Checkpoint(self.node.did, size, told["root"], told["signature"])
        facts = self._facts(about)
        parties = {self.node.did, self.node.config.authority, *self.node.config.access_bodies, *_dids(facts)}
        members = self.node.trust.members()
        parties |= {w for party in parties for w in witnesses(party, members)}
        body = {
            "format": FORMAT,
            "node": self.node.did,
            "name": self.node.config.name,
            "role": self.node.config.role,
            "country": self.node.config.country,
            "made_at": now().isoformat(timespec="seconds"),
            "about": sorted(about),
            "documents": self._documents(parties),
            "keys": self.node.keys.history(),
            "trust": self.node.trust.signed(),
            "log": {
                "checkpoint": checkpoint.to_dict(),
                "events": [
                    {"entry": e, "proof": [h.hex() for h in tree.inclusion(e["position"], size)]} for e in found
                ],
            },
            "witnesses": [
                {"statement": s, "consistency": [h.hex() for h in tree.consistency(_size(s), size)]} for s in statements
            ],
            "facts": facts,
        }
        return {**body, "signature": self.node.keys.sign(canonical_json(body))}

    def _linked(self, ids: set[str]) -> set[str]:
        """Return the ids with the permits and applications they lead to."""
        for kind in ("study", "gate.study"):
            for record in self.node.store.list(kind):
                if record.id in ids:
                    ids = ids | {str(record.body["study"]["permit"])}
        for record in self.node.store.list("study.request"):  # all that an environment keeps
            if record.id in ids and record.body["permit"]:
                ids = ids | {str(record.body["permit"])}
        for record in self.node.store.list("permit"):
            if ids & {record.id, str(record.body["application"])}:
                ids = ids | {record.id, str(record.body["application"])}
        return ids

    def _facts(self, about: set[str]) -> dict[str, Any]:
        """Return the records behind the events: study, result, permit, application."""

        def named(kind: str) -> list[Record]:
            return [r for r in self.node.store.list(kind) if r.id in about]

        studies = [{k: r.body[k] for k in ("study", "status", "result")} for r in named("study")]
        gates = [{k: r.body[k] for k in ("study", "approved", "closed")} for r in named("gate.study")]
        tokens = [r.body["token"] for r in named("credential") if r.body["type"] in PERMISSIONS]
        held = [r.body for r in named("permit")]
        issued = [r.body for r in named("application")]
        facts = {
            "studies": studies or gates,
            "permits": [b["permit"] for b in held],
            "applications": issued,
            "credentials": tokens + [b["credential"] for b in held],
        }
        return {name: value for name, value in facts.items() if value}

    def _documents(self, dids: set[str]) -> dict[str, Any]:
        documents = {}
        for did in sorted(dids - {""}):
            with contextlib.suppress(IhdsError):
                documents[did] = self.node.resolver.resolve(did)
        return documents


def _size(statement: str) -> int:
    return int(read_unverified(statement)[1]["size"])


def _concerns(entry: dict[str, Any], about: set[str]) -> bool:
    return entry["kind"] in _ALWAYS or any(text in about for text in _texts(entry["details"]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [t for v in value.values() for t in _texts(v)]
    if isinstance(value, list):
        return [t for v in value for t in _texts(v)]
    return [value] if isinstance(value, str) else []


def _dids(facts: dict[str, Any]) -> set[str]:
    """Return the institutions that the facts name."""
    studies = [s["study"] for s in facts.get("studies", [])]
    named = {str(s["user"]) for s in studies} | {str(h) for s in studies for h in s["holders"]}
    for permit in facts.get("permits", []):
        named |= {str(permit["user"]), str(permit["access_body"]), *(str(h) for h, _ in permit["datasets"])}
        named.add(str(permit["environment"] or permit["user"]))
    return named
