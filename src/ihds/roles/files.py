"""Files a holder lets out: aggregates, models, descriptions; never records of persons (X0)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ihds.audit.log import Event, now
from ihds.connector.dataplane.plane import Flow
from ihds.connector.dcp.credentials import MEMBERSHIP, Credential
from ihds.connector.dsp import negotiation
from ihds.connector.dsp.negotiation import Negotiation
from ihds.errors import CannotVerify, NotAuthenticated, NotFound, Refused
from ihds.governance.jurisdiction import Export, applying, may_leave, shown_of
from ihds.governance.permit import Permit, PermitState
from ihds.governance.policy import Granted, evaluate
from ihds.governance.policy import Refused as No
from ihds.roles.offers import offer
from ihds.roles.proofs import Proofs
from ihds.store.store import Put

if TYPE_CHECKING:
    from ihds.roles.config import DatasetConfig
    from ihds.roles.node import Node


@dataclass
class Files:
    """The datasets of a holder that are files, and who may have them."""

    node: Node
    configs: dict[str, DatasetConfig]
    proofs: Proofs

    def origin(self, dataset: str) -> Path | str:
        """Return where the bytes of a dataset lie: a path, relative ones below the node's folder, or a URL."""
        config = self.configs.get(dataset)
        if config is None:
            raise NotFound(f"no file {dataset!r} is offered here")
        if config.file.startswith(("http://", "https://")):
            return config.file
        return self.node.folder / config.file

    def judge(self, process: Negotiation) -> Granted | No:
        """Judge a request for a file: membership, the offer's policy, and what the law lets out."""
        config = self.configs[str(process.offer["target"])]
        try:
            member, shown = self.proofs.ask(process.counterparty, process.access)
            permit, state = self._permit(process, shown)
        except CannotVerify:
            raise  # that is no verdict: the outbox asks again
        except (Refused, NotAuthenticated) as error:
            return No((error.message, *error.reasons))
        allowed = self._judge(config, member, permit, state)
        if isinstance(allowed, Granted):
            kept = next((c.token for c in shown if permit and c.subject["permit"]["id"] == permit.id), "")
            self._remember(config.id, member, kept)
        return allowed

    def _judge(
        self, config: DatasetConfig, member: Credential, permit: Permit | None, state: PermitState
    ) -> Granted | No:
        """Judge who a member is and what its permit is now, under the offer's policy and the law."""
        destination = str(member.subject.get("country", ""))
        facts: dict[str, str | tuple[str, ...]] = {
            **(permit.facts(state) if permit else {}),
            "membership": "member",
            "role": str(member.subject.get("role", "")),
            "recipientCountry": destination,
            "jurisdiction": tuple(sorted(applying(self.node.config.country))),
        }
        verdict = evaluate(negotiation.rules(offer(config, self.node.folder)), facts)
        if isinstance(verdict, No):
            return verdict
        evidence = {*shown_of(member.holder, config.evidence), "audit_log"}
        if permit and state is PermitState.GRANTED and permit.dataset_of(self.node.did) == config.id:
            evidence |= permit.evidence(now().date())
        regime = permit.legal_regime if permit else self.node.config.legal_regime
        export = Export(config.artefact, self.node.config.country, destination, regime, frozenset(evidence))
        return may_leave(export, now().date())

    def _permit(self, process: Negotiation, shown: list[Credential]) -> tuple[Permit | None, PermitState]:
        for credential in shown:
            permit = Permit.from_dict(credential.subject.get("permit", {}))
            if (
                permit.id == process.permit
                and permit.access_body == credential.issuer
                and permit.user == credential.holder
            ):
                revoked = self.node.verifier.revoked(credential)
                expired = now() >= permit.expires_at
                state = PermitState.REVOKED if revoked else PermitState.EXPIRED if expired else PermitState.GRANTED
                return permit, state
        return None, PermitState.REVOKED

    def _remember(self, dataset: str, member: Credential, permit: str) -> None:
        """Keep what a member showed for a file, so that it can be looked at for as long as bytes flow."""
        identifier = f"{member.holder}|{dataset}"
        found = self.node.log.get("held.member", identifier)
        body = {"membership": member.token, "permit": permit}
        if found is None or found.body != body:
            event = Event("credential.received", member.holder, {"credential": member.id, "type": MEMBERSHIP})
            self.node.log.commit(event, Put("held.member", identifier, found.version if found else 0, body))

    def admit(self, flow: Flow) -> None:
        """Check that the receiver of a flow may have more: membership, permit and the law, as they are now.

        Raises:
            CannotVerify: a status cannot be learnt now.
            Refused: it may not.

        """
        verdict = self.still(flow.counterparty, flow.dataset)
        if isinstance(verdict, No):
            raise Refused("the receiver may have nothing more of this", reasons=verdict.reasons)

    def still(self, counterparty: str, dataset: str) -> Granted | No:
        """Judge again what a member showed when it asked for a file.

        Raises:
            CannotVerify: a status cannot be learnt now.
            Refused: it never showed anything, is suspended.

        """
        record = self.node.log.get("held.member", f"{counterparty}|{dataset}")
        config = self.configs.get(dataset)
        if record is None or config is None:
            raise Refused(f"{counterparty} never showed its membership here", remedy="negotiate anew")
        member = self.proofs.standing(str(record.body["membership"]), counterparty)
        if not record.body["permit"]:
            return self._judge(config, member, None, PermitState.REVOKED)
        permit, state = self.proofs.check(str(record.body["permit"]), str(record.body["membership"]), counterparty)
        expired = now() >= permit.expires_at
        return self._judge(config, member, permit, PermitState.EXPIRED if expired else state)
