"""The health data holder: describes its data, agrees contracts, answers rounds through its gate."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.analysis.method import methods
from ihds.audit.log import now
from ihds.catalogue import healthdcat
from ihds.catalogue.record import DatasetRecord
from ihds.connector.dataplane.http import PULL, PUSH
from ihds.connector.dataplane.plane import Flow
from ihds.connector.dcp.credentials import PERMIT, Credential
from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.connector import Counter, Verdict
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import STUDY_FORMAT, Transfer
from ihds.data.codebook import Codebook
from ihds.data.source import NoRows, Scope, Source
from ihds.data.sources.tabular import TabularSource
from ihds.errors import CannotVerify, IllegalTransition, NotAuthenticated, NotFound, Refused
from ihds.federation.channel import ENVIRONMENT
from ihds.federation.engine import engine_of
from ihds.federation.gate import Grant, Threshold
from ihds.governance.jurisdiction import applying
from ihds.governance.permit import Permit, PermitState, Use, decide
from ihds.governance.policy import Granted, evaluate
from ihds.governance.policy import Refused as No
from ihds.roles import choices
from ihds.roles.approvals import Approvals
from ihds.roles.config import data_file
from ihds.roles.duties import Duties
from ihds.roles.endpoint import Endpoint
from ihds.roles.files import Files
from ihds.roles.gates import gate_of
from ihds.roles.offers import offer
from ihds.roles.parties import Parties
from ihds.roles.proofs import Proofs
from ihds.roles.relay import Relay
from ihds.wire.did import Method
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from ihds.roles.config import DatasetConfig
    from ihds.roles.node import Command, Node


class Holder:
    """Holds rows that never leave; the gate decides what a sum may contain."""

    def __init__(self, node: Node) -> None:
        """Work on a node whose folder holds the data file."""
        self.node = node
        self.proof = Proofs(node.verifier, node.log)
        self.relay = Relay(node) if node.config.worker else None
        rows = self.relay is None and any(not d.file for d in node.config.datasets)
        self.source: Source = TabularSource(data_file(node.folder)) if rows else NoRows()
        config = node.config
        self._configs = {d.id: d for d in config.datasets}
        self.files = Files(node, {d.id: d for d in config.datasets if d.file}, self.proof)
        self.engine = engine_of(config.engine)
        gate = gate_of(node, self.source, self, self.engine)
        self.approvals = Approvals(node, gate)
        self.gate: Threshold = self.relay or gate
        self._entries: list[dict[str, Any]] = []
        self.refresh()
        methods()  # a method that cannot be loaded fails here, not in somebody's first study

    def refresh(self) -> None:
        """Describe anew what is offered; rows of a worker are offered once it has told of them."""
        told = self.relay.described() if self.relay else None
        self._entries = [self._entry(d) for d in self.node.config.datasets if d.file or told is None or d.id in told]

    def methods(self) -> list[Method]:
        """Return the keys of the worker in the inner zone, if there is one."""
        return self.relay.keys() if self.relay else []

    def origin(self, dataset: str) -> Path | str:
        """Return where the bytes of a file lie."""
        return self.files.origin(dataset)

    def admit(self, flow: Flow) -> None:
        """Check that the receiver of a file may have more of it."""
        self.files.admit(flow)

    # -- what it offers --------------------------------------------------------------------------

    def record(self, config: DatasetConfig) -> DatasetRecord:
        """Return the description of one dataset; the number of persons is rounded down to tens."""
        book, persons = (Codebook(config.id, {}), 0) if config.file else self._described(config.id)
        return DatasetRecord(
            id=config.id,
            holder=self.node.did,
            holder_name=self.node.config.name,
            country=self.node.config.country,
            title=config.title,
            description=config.description,
            keywords=config.keywords,
            health_category=config.health_category,
            hdab=", ".join(self.node.config.access_bodies),
            persons=persons // 10 * 10,
            codebook=book,
            offer=offer(config, self.node.folder),
            thresholds=config.limits,
        )

    def _described(self, dataset: str) -> tuple[Codebook, int]:
        """Return codebook and number of persons of a dataset, wherever its rows lie."""
        if self.relay:
            return self.relay.described()[dataset]
        book = self.source.codebook(dataset)
        return book, self.source.open(Scope(dataset, frozenset(book.variables))).persons

    def _entry(self, config: DatasetConfig) -> dict[str, Any]:
        record = self.record(config)
        properties = healthdcat.entry_properties(record)
        properties |= {"ihds:artefact": config.artefact} if config.file else choices.said(self.node.config, config)
        formats = [PULL, PUSH] if config.file else [STUDY_FORMAT]
        return catalog.dataset(record.id, [record.offer], f"{self.node.did}#dsp", formats, properties)

    def datasets(self) -> list[dict[str, Any]]:
        """Return the catalog's dataset entries."""
        return self._entries

    # -- contracts -------------------------------------------------------------------------------

    def judge(self, process: Negotiation) -> Verdict:
        """Judge a contract request; other terms than the catalogue's are answered with the catalogue's."""
        config = self._configs[str(process.offer["target"])]
        own = offer(config, self.node.folder)
        asked = process.state is negotiation.State.REQUESTED
        if asked and negotiation.rules(process.offer) != negotiation.rules(own):
            return Counter(own)
        verdict = self.files.judge(process) if config.file else self._judge_study(process)
        by_hand = config.approval == "hand" and isinstance(verdict, Granted)
        return None if by_hand else verdict

    def approve(self, pid: str) -> None:
        """Agree to a request that waited for a person; what the asker showed then is looked at again.

        Raises:
            Refused: by now the rules say no.

        """
        process, _ = self.node.connector.by_pid("negotiation", pid)
        assert isinstance(process, Negotiation)
        dataset = str(process.offer["target"])
        if dataset in self.files.configs:
            verdict = self.files.still(process.counterparty, dataset)
        else:
            verdict = self._still(process, dataset)
        if isinstance(verdict, No):
            raise Refused("the rules do not allow this", reasons=verdict.reasons, remedy="terminate it")
        self.node.connector.move_negotiation(pid, negotiation.Event.AGREE)

    def _still(self, process: Negotiation, dataset: str) -> Granted | No:
        record = self.node.log.get("held.permit", process.permit)
        if record is None or record.body["user"] != process.counterparty:
            return No((f"EHDS 61(1), 68(10): the data permit {process.permit} was not shown",))
        body = record.body
        permit, state = self.proof.check(str(body["token"]), str(body["membership"]), process.counterparty)
        member = self.proof.standing(str(body["membership"]), process.counterparty)
        return self._judge_permit(process, permit, state, dataset, member)

    def consider(self, process: Negotiation) -> Granted | No | None:
        """Take no unasked offers."""
        return No(("this holder takes no offers",))

    def _judge_study(self, process: Negotiation) -> Granted | No:
        """Judge a request to study: membership, permit and the offer's policy."""
        if not process.permit:
            return No(("EHDS 61(1), 68(10): no data permit was presented",))
        try:
            member, shown = self.proof.ask(process.counterparty, process.access)
        except CannotVerify:
            raise  # that is no verdict: the outbox asks again
        except (Refused, NotAuthenticated) as error:
            return No((error.message, *error.reasons))
        dataset = str(process.offer["target"])
        reasons: list[str] = []
        for credential in shown:
            permit, state = self.proof.read(credential)
            if permit.id != process.permit:
                continue
            verdict = self._judge_permit(process, permit, state, dataset, member)
            if isinstance(verdict, Granted):
                self.proof.keep(permit.id, credential, member)
                return verdict
            reasons += verdict.reasons
        return No(tuple(reasons) or (f"EHDS 61(1), 68(10): the data permit {process.permit} was not presented",))

    def _judge_permit(
        self, process: Negotiation, permit: Permit, state: PermitState, dataset: str, member: Credential
    ) -> Granted | No:
        use = Use(
            user=process.counterparty,
            holder=self.node.did,
            dataset=dataset,
            purpose=permit.purpose,
            method="",
            variables=frozenset(),
            holders=frozenset(),
        )
        verdict = decide(permit, state, use, now())
        if isinstance(verdict, No):
            return verdict
        return evaluate(negotiation.rules(process.offer), self._facts(permit, state, member))

    def _facts(self, permit: Permit, state: PermitState, member: Credential) -> dict[str, str | tuple[str, ...]]:
        """Return what is known when an offer's policy is judged."""
        return {
            **permit.facts(state),
            "membership": "member",
            "role": str(member.subject.get("role", "")),
            "jurisdiction": tuple(sorted(applying(self.node.config.country))),
        }

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted | No:
        """Judge a transfer request: membership and permit must still be in force."""
        if process.format != STUDY_FORMAT:
            try:
                self.files.admit(self.node.connector.flow(process))
            except CannotVerify:
                raise  # that is no verdict: the outbox asks again
            except (Refused, NotAuthenticated) as error:
                return No((error.message, *error.reasons))
            return Granted((f"agreement {process.agreement_id}",))
        try:
            grant = self._grant(agreement)
        except Refused as error:
            return No((error.message, *error.reasons))
        if grant.state is not PermitState.GRANTED or now() >= grant.permit.expires_at:
            return No((f"{grant.permit.by('68(10)')}: the {grant.permit.noun} is {grant.state}",))
        return Granted((f"permit {grant.permit.id}",))

    def ended(self, process: Transfer) -> None:
        """Close the studies that rode on a transfer."""
        if process.format == STUDY_FORMAT:
            self.gate.close_transfer(process.pid)

    # -- what is in force ------------------------------------------------------------------------

    def in_force(self, pid: str) -> Grant:
        """Return the grant of a started transfer; a revoked permit terminates the transfer.

        Raises:
            Refused: transfer, agreement or permit is not in force.

        """
        record = self.node.log.get("transfer", pid)
        if record is None:
            raise NotFound(f"no transfer {pid!r}")
        process = Transfer.from_dict(record.body)
        if process.state is not transfer.State.STARTED:
            raise Refused(f"the transfer is {process.state}", reasons=process.reason)
        agreement = self.node.connector.agreement(process.agreement_id)
        grant = self._grant(agreement)
        if grant.state is PermitState.REVOKED:
            reasons = (f"{grant.permit.by('63(3), 68(10)')}: the {grant.permit.noun} {grant.permit.id} is REVOKED",)
            with contextlib.suppress(IllegalTransition):  # it ended by itself meanwhile
                self.node.connector.move_transfer(pid, transfer.Event.TERMINATE, reasons)
            raise Refused("the permit was revoked, so the transfer is terminated", reasons=reasons)
        return grant

    def _grant(self, agreement: dict[str, Any]) -> Grant:
        kept = self.proof.kept(agreement["permit"])
        permit, state = self.proof.check(kept["token"], kept["membership"], kept["user"])
        self.approvals.versions(str(agreement["dataset"]), self.relay)
        return Grant(permit, state, str(agreement["dataset"]), str(agreement["policy"]["@id"]))

    def proofs(self, transfer_pid: str) -> dict[str, Any]:
        """Return what is in force for a transfer, with its signed proofs, for the worker to verify."""
        process, _ = self.node.connector.by_pid("transfer", transfer_pid)
        assert isinstance(process, Transfer)
        agreement = self.node.connector.agreement(process.agreement_id)
        record = self.node.log.get("held.permit", agreement["permit"])
        kept = record.body if record else {"token": "", "membership": "", "user": ""}
        return {
            "state": str(process.state),
            "reasons": list(process.reason),
            "dataset": str(agreement["dataset"]),
            "agreement": str(agreement["policy"]["@id"]),
            **{name: str(kept[name]) for name in ("token", "membership", "user")},
        }

    # -- endpoints -------------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the study endpoint and the public catalogue."""
        return [
            *Endpoint(self.gate, self._transfer, self._asked).routes(),
            Route("/catalogue", endpoint(self._public), methods=["GET"]),
            Route("/permits/changed", endpoint(self._permits_changed), methods=["POST"]),
            *(self.relay.routes() if self.relay else []),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the data engineer's commands."""
        relayed: dict[str, Command] = {"worker.ticket": lambda _a: relay.ticket()} if (relay := self.relay) else {}
        return {
            **relayed,
            "permit.act": Parties(self.node).step,
            **self.approvals.commands(),
            **Duties(self.node).commands(),
            "negotiation.approve": lambda a: self.approve(str(a["pid"])),
            "datasets": lambda _a: [self.record(d).summary() for d in self.node.config.datasets if not d.file],
        }

    def _transfer(self, call: Call) -> Transfer:
        pid = self.node.studies.check(call.bearer).id
        process, _ = self.node.connector.by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        if process.state is not transfer.State.STARTED:
            raise Refused(
                f"the transfer is {process.state}",
                reasons=process.reason or ("DSP: only a started transfer carries a study",),
                remedy="request a new transfer under a permit in force",
            )
        return process

    def _asked(self, call: Call) -> str:
        """Return the transfer of a call; where the permit names an environment, nobody else may call, not its user."""
        process = self._transfer(call)
        environment = self.proof.environment(self.node.connector.agreement(process.agreement_id)["permit"])
        shown = call.headers.get(ENVIRONMENT.lower(), "")
        if environment and self.node.members.check(shown)["iss"] != environment:
            raise NotAuthenticated(f"studies under this permit are asked by {environment}, by nobody else")
        return process.pid

    def _public(self, _call: Call) -> Answer:
        base, offered = self.node.config.base_url, {entry["@id"] for entry in self._entries}
        described = [d for d in self.node.config.datasets if not d.file and d.id in offered]
        return Answer([healthdcat.dataset(self.record(d), f"{base}/catalogue#{d.id}") for d in described])

    def _permits_changed(self, call: Call) -> Answer:
        if self.node.tokens.check(call.bearer)["iss"] not in self.node.trust.issuers(PERMIT):
            raise NotFound("there is nothing here for you")
        self.node.verifier.lists.forget()
        for record in self.node.store.list("transfer"):
            if record.body["state"] == transfer.State.STARTED:
                try:
                    self.in_force(record.id)
                except (Refused, CannotVerify, NotFound):
                    continue
        return Answer({"at": time.time()})

    def started(self) -> None:
        """Nothing to resume: a holder only answers."""

    def stopped(self) -> None:
        """Close the data file, and the cluster if there is one."""
        self.source.close()
        self.engine.close()
