"""What a node knows of its processing of personal data: the facts behind drafts under GDPR Art. 30 and 35."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import now
from ihds.connector.dcp.credentials import PERMISSIONS, read
from ihds.governance.permit import Permit
from ihds.governance.retention import standing

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node


class Processing:
    """Reads configuration, catalogue, permits and log of one node."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node

    def routes(self) -> list[Route]:
        """Return nothing: this is for the institution itself."""
        return []

    def commands(self) -> dict[str, Command]:
        """Return the command of the data protection officer."""
        return {"gdpr.facts": lambda _a: self.facts()}

    def facts(self) -> dict[str, Any]:
        """Return what the node knows."""
        config, entries = self.node.config, self.node.log.entries()
        return {
            "name": config.name,
            "did": self.node.did,
            "role": config.role,
            "country": config.country,
            "on": now().date().isoformat(),
            "authority": config.authority,
            "access_bodies": list(config.access_bodies),
            "datasets": self._datasets(),
            "permits": self._permits(),
            "events": dict(sorted(Counter(str(e["kind"]) for e in entries).items())),
            "retention": standing(entries, config.country, now().date()),
            "keys": {"signer": config.signer, "number": len(self.node.keys.history())},
            "inner_zone": config.worker,
            "witnesses": list(self.node.witness.mine()),
        }

    def _datasets(self) -> list[dict[str, Any]]:
        """Return the datasets of a holder as it offers them."""
        if self.node.config.role != "holder":
            return []
        from ihds.roles.holder import Holder

        holder, found = self.node.institution, []
        assert isinstance(holder, Holder)
        for d in self.node.config.datasets:
            told = holder.record(d)
            found.append(
                {
                    "id": d.id,
                    "title": d.title,
                    "description": d.description,
                    "health_category": d.health_category,
                    "purposes": list(d.purposes),
                    "methods": list(d.methods),
                    "recipient_countries": list(d.recipient_countries),
                    "minimum_cell": d.minimum_cell,
                    "evidence": list(d.evidence),
                    "moved_as": d.artefact if d.file else "never: rows are studied where they lie",
                    "persons": told.persons,
                    "variables": [v.label or v.name for v in told.codebook.variables.values()],
                    "approval": f"contracts by {d.approval}, studies by {d.studies}",
                }
            )
        return found

    def _permits(self) -> list[dict[str, Any]]:
        """Return the permits this node issued, holds or was shown."""
        bodies = [r.body["permit"] for r in self.node.store.list("permit")]
        kept = [r.body["token"] for r in self.node.store.list("held.permit")]
        kept += [r.body["token"] for r in self.node.store.list("credential") if r.body["type"] in PERMISSIONS]
        bodies += [read(token).subject["permit"] for token in kept]
        found = {p.id: p for p in map(Permit.from_dict, bodies)}
        return [
            {
                "permit": p.id,
                "user": p.user,
                "recipient_country": p.recipient_country,
                "purpose": p.purpose,
                "legal_regime": p.legal_regime,
                "methods": sorted(p.methods),
                "variables": sorted(p.variables),
                "datasets": [d for _, d in p.datasets],
                "until": p.expires_at.date().isoformat(),
            }
            for _, p in sorted(found.items())
        ]
