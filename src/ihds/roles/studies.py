"""A researcher's studies on one node: agreed with each holder, run here or in an environment, resumed after a crash."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from ihds.analysis.result import Result
from ihds.audit.log import Event, acting
from ihds.canonical import digest
from ihds.catalogue.record import DatasetRecord
from ihds.connector.dsp import negotiation, transfer
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import STUDY_FORMAT, Transfer, read_address
from ihds.errors import BadInput, IhdsError, NotAuthenticated, NotFound, Refused
from ihds.federation.channel import HttpChannel
from ihds.federation.coordinator import Coordinator
from ihds.federation.promises import refuse_useless
from ihds.federation.runs import Run, RunEvent, Runs, RunState
from ihds.federation.study import study_of
from ihds.ids import Did, StudyId
from ihds.roles.away import Away
from ihds.roles.records import described
from ihds.store.store import Put, Record
from ihds.wire.http import Line

if TYPE_CHECKING:
    from ihds.roles.user import User

_AGREE_SECONDS = 60.0
_SETTLED = frozenset({"STARTED", "TERMINATED", "COMPLETED"})


class Studies:
    """Runs the studies of one user, each in a thread of its own."""

    def __init__(self, user: User) -> None:
        """Work for a user."""
        self.user, self.node = user, user.node
        self.coordinator = Coordinator(self.node.log, self.node.signatures)
        self.away = Away(self.node)
        self.runs = Runs(self.node.log, self.node.did, self.run_study)
        self._connecting = threading.Lock()

    def start_study(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Start or resume a study in the background; return its id. ``study.steps`` follows it."""
        resume = arguments.get("resume")
        if resume:
            identifier = StudyId.parse(resume)
            self.runs.move(identifier, RunEvent.RESUME)
        else:
            identifier = StudyId.new()
            self._prepare(identifier, arguments)
        self.runs.launch(identifier, arguments.get("max_rounds"))
        return {"study": identifier}

    def _prepare(self, identifier: StudyId, arguments: dict[str, Any]) -> None:
        permit = str(arguments.get("permit") or "")
        if permit:
            held = self.user.permit(permit)
            datasets = [[h, d] for h, d in held.datasets]
            purpose = str(arguments.get("purpose") or held.purpose)
            person = str(arguments.get("person") or (held.persons[0] if len(held.persons) == 1 else ""))
        else:
            datasets = [[r.holder, r.id] for r in self.user.search("") if r.id in arguments.get("datasets", [])]
            purpose, person = str(arguments.get("purpose") or "scientific_research"), ""
        if not datasets:
            raise BadInput("the study names no dataset", remedy="give --permit, or --dataset")
        body = {
            "permit": permit,
            "purpose": purpose,
            "person": person,
            **({"signed_in": who} if (who := acting.get()) else {}),
            "method": str(arguments.get("method", "")),
            "params": dict(arguments.get("params", {})),
            "datasets": datasets,
            "status": str(RunState.RUNNING),
            "error": None,
        }
        details = {"permit": permit, "study": identifier, "method": body["method"]}
        self.node.log.commit(
            Event("study.requested", self.node.did, details), Put("study.request", identifier, 0, body)
        )

    def run_study(self, identifier: str, run: Run, max_rounds: int | None = None) -> Result | None:
        """Take a study through agreements, transfers and rounds; every step may be repeated."""
        record = self.runs.record(identifier)
        body = record.body
        self.node.membership.join()
        known = self.node.log.get("study", identifier)
        lost = {holder for holder, _ in known.body.get("sums", {"missing": ()})["missing"]} if known else set()
        records = described(self.node.connector, [pair for pair in body["datasets"] if pair[0] not in lost])
        with self._connecting:  # two studies must not take up the same open transfer
            agreements, transfers = self._connect(record, records, run)
        transfers = {holder: pid for holder, pid in transfers.items() if holder not in lost}
        if not body["permit"]:
            raise Refused("a study needs a data permit", reasons=("EHDS 61(1), 68(10)",), remedy="ihds apply")
        permit = self.user.held(body["permit"])
        if permit.environment is None and self.node.log.get("study", identifier) is None:
            study = study_of(StudyId.parse(identifier), permit, body, records)
            refuse_useless(study.plan(), sum(r.persons for r in records))
            self.coordinator.start(study)

        def ask() -> Result | None:
            if permit.environment is None:
                return self._rounds(identifier, transfers, run, max_rounds)
            ways = {holder: self._address(pid)[1] for holder, pid in transfers.items()}
            return self.away.run(permit.environment, identifier, body, ways, run, max_rounds)

        try:
            result = ask()
        except NotAuthenticated:  # a token expired: ask for fresh ones and go on, once
            for pid in transfers.values():
                self.node.connector.renew(pid)
            result = ask()
        if result is None:
            return None
        full = self._add_provenance(identifier, result, records, agreements, transfers)
        self._complete(transfers)
        return full

    def _connect(self, record: Record, records: list[DatasetRecord], run: Run) -> tuple[dict[str, str], dict[str, str]]:
        """Return agreements and transfers by holder; a study keeps the transfers it began with."""
        body = record.body
        if "transfers" in body:
            for pid in body["transfers"].values():
                process = self._transfer(pid)
                if process.state is transfer.State.TERMINATED:
                    raise Refused(
                        f"{process.counterparty} ended the transfer",
                        reasons=process.reason,
                        remedy="apply for a permit that covers this use: ihds apply",
                    )
            return body["agreements"], body["transfers"]
        agreements = {e.holder: self._ensure_agreement(e, body["permit"], run) for e in records}
        transfers = {}
        for entry in records:
            transfers[entry.holder] = self._ensure_transfer(agreements[entry.holder])
            run.report("transfer", {"holder": entry.holder_name, "transfer": transfers[entry.holder]})
        details = {"permit": body["permit"], "study": record.id, "transfers": sorted(transfers.values())}
        connected = {**body, "agreements": agreements, "transfers": transfers}
        self.node.log.commit(
            Event("study.connected", self.node.did, details),
            Put("study.request", record.id, record.version, connected),
        )
        return agreements, transfers

    def _rounds(self, identifier: str, transfers: dict[str, str], run: Run, max_rounds: int | None) -> Result | None:
        channels = [self._channel(holder, pid) for holder, pid in transfers.items()]
        try:
            return self.coordinator.run(identifier, channels, run.report, max_rounds)
        finally:
            for channel in channels:
                channel.line.close()

    def _ensure_agreement(self, entry: DatasetRecord, permit: str, run: Run) -> str:
        """Return a finalised agreement, using one at hand before negotiating another."""
        connector = self.node.connector
        for record in self.node.store.list("agreement"):
            held = record.body
            if (held["counterparty"], held["dataset"], held["permit"]) == (entry.holder, entry.id, permit):
                run.report("agreement", {"holder": entry.holder_name, "agreement": record.id, "reused": True})
                return record.id
        pid = self._open_negotiation(entry, permit)
        if pid is None:
            pid = connector.request_contract(entry.holder, connector.find_address(entry.holder), entry.offer, permit)
        until = frozenset({"FINALIZED", "TERMINATED"})
        process = connector.wait("negotiation", pid, until, _AGREE_SECONDS)
        assert isinstance(process, Negotiation)
        if process.state is negotiation.State.TERMINATED or process.agreement is None:
            raise Refused(
                f"{entry.holder_name} ended the contract negotiation",
                reasons=process.reason,
                remedy="apply for a permit that covers this use: ihds apply",
            )
        identifier = str(process.agreement["@id"])
        run.report("agreement", {"holder": entry.holder_name, "agreement": identifier, "reused": False})
        return identifier

    def _open_negotiation(self, entry: DatasetRecord, permit: str) -> str | None:
        """Return a negotiation that a crash interrupted, to be waited for instead of a second one."""
        for record in self.node.store.list("negotiation"):
            process = Negotiation.from_dict(record.body)
            same = (process.counterparty, process.permit, process.offer.get("target"))
            if same == (entry.holder, permit, entry.id) and process.state not in ("FINALIZED", "TERMINATED"):
                return process.pid
        return None

    def _ensure_transfer(self, agreement: str) -> str:
        """Return a started transfer of its own, taking up one that a crash left without a study."""
        connector = self.node.connector
        taken = {t for r in self.node.store.list("study.request") for t in r.body.get("transfers", {}).values()}
        pid = None
        for record in self.node.store.list("transfer"):
            process = Transfer.from_dict(record.body)
            open_ = process.state in ("REQUESTED", "STARTED")
            if process.agreement_id == agreement and open_ and process.pid not in taken:
                pid = process.pid
        if pid is None:
            pid = connector.request_transfer(agreement, STUDY_FORMAT)
        started = connector.wait("transfer", pid, _SETTLED, _AGREE_SECONDS)
        assert isinstance(started, Transfer)
        if started.state is not transfer.State.STARTED:
            raise Refused(
                f"{started.counterparty} ended the transfer", reasons=started.reason, remedy="see the reasons"
            )
        return pid

    def _transfer(self, pid: str) -> Transfer:
        record = self.node.log.get("transfer", pid)
        if record is None:
            raise NotFound(f"no transfer {pid}")
        return Transfer.from_dict(record.body)

    def _address(self, pid: str) -> tuple[str, str]:
        """Return endpoint and token of a started transfer; a renewed one may be on its way."""
        waited = self.node.connector.wait("transfer", pid, _SETTLED, _AGREE_SECONDS)
        return read_address(waited.address if isinstance(waited, Transfer) else None)

    def _channel(self, holder: str, pid: str) -> HttpChannel:
        endpoint, token = self._address(pid)
        return HttpChannel(Did.parse(holder), self.node.http, endpoint, token, Line(endpoint, self.node.http.guard))

    def _complete(self, transfers: dict[str, str]) -> None:
        for pid in transfers.values():
            if self._transfer(pid).state is transfer.State.STARTED:
                self.node.connector.move_transfer(pid, transfer.Event.COMPLETE)

    def _add_provenance(
        self,
        identifier: str,
        result: Result,
        records: list[DatasetRecord],
        agreements: dict[str, str],
        transfers: dict[str, str],
    ) -> Result:
        """Add agreements, transfers and the holders' signed log checkpoints to the result."""
        if any("checkpoint" in h for h in result.provenance.get("holders", [])):
            return result  # a crash came after this was written
        holders = []
        present = {holder["did"] for holder in result.provenance["holders"]}
        for entry in (e for e in records if e.holder in present):
            checkpoint: dict[str, Any] = {}
            with contextlib.suppress(IhdsError):
                base = self.node.resolver.service(entry.holder, "DataService")
                root = base.removesuffix("/.well-known/dspace-version")
                checkpoint = self.node.http.get_json(f"{root}/checkpoint")
            holders.append(
                {
                    "did": entry.holder,
                    "name": entry.holder_name,
                    "country": entry.country,
                    "dataset": entry.id,
                    "agreement": agreements[entry.holder],
                    "transfer": transfers[entry.holder],
                    "checkpoint": checkpoint,
                }
            )
        full = result.with_provenance(result.rounds, {**result.provenance, "holders": holders})
        record = self.node.log.get("study", identifier)
        if record is not None:
            body = {**record.body, "result": full.to_dict()}
            details = {"permit": result.provenance.get("permit"), "study": identifier, "result": digest(body["result"])}
            self.node.log.commit(
                Event("study.witnessed", self.node.did, details), Put("study", identifier, record.version, body)
            )
        return full

    def cancel(self, identifier: str) -> dict[str, Any]:
        """End a study for good, here, where it runs and at its holders."""
        record = self.runs.record(StudyId.parse(identifier))
        status = self.runs.move(record.id, RunEvent.CANCEL)
        environment = self.user.held(record.body["permit"]).environment if record.body["permit"] else None
        if environment is not None:
            self.away.end(environment, record.id)
        self._complete(record.body.get("transfers", {}))
        return {"study": record.id, "status": str(status)}

    def studies(self) -> list[dict[str, Any]]:
        """Return all studies."""
        return [self._summary(r) for r in self.node.store.list("study.request")]

    def _summary(self, record: Record) -> dict[str, Any]:
        body = record.body
        return {
            "study": record.id,
            "method": body["method"],
            "formula": body["params"].get("formula", ""),
            "permit": body["permit"],
            "status": body["status"],
            "error": body["error"],
        }

    def show_study(self, identifier: str) -> dict[str, Any]:
        """Return a study with its result, if there is one."""
        record = self.runs.record(StudyId.parse(identifier))
        found = self.node.log.get("study", identifier)
        return {**self._summary(record), "result": found.body["result"] if found else None}

    def stop(self) -> None:
        """End the threads of the coordinator."""
        self.coordinator.shutdown()
