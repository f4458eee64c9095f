"""Asks every holder, adds the masked replies, opens only their sum, and repeats.

The coordinator never sees an unmasked contribution of one holder; it opens totals. It runs in the
environment that the permit names (``federation.environment``), or, where it names none, on the user's own node.
After every round the public state is committed, sealed, with its event, so a crash resumes where it was; with the
study's end it is erased.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ihds.analysis.method import leaves
from ihds.analysis.plan import Plan, PlanState
from ihds.analysis.result import Result
from ihds.audit.log import Event, Log
from ihds.canonical import digest, pack, unpack
from ihds.errors import AnalysisFailed, BadInput, Conflict, IhdsError, NotFound, Refused, SiteMissing
from ihds.federation.calls import Calls
from ihds.federation.channel import Channel
from ihds.federation.round import Signatures
from ihds.federation.study import Left, Study
from ihds.federation.sums import Asking, Lost, Opened, Progress, sums
from ihds.store.store import Put

Report = Callable[[str, dict[str, Any]], None]


def quiet(_what: str, _details: dict[str, Any]) -> None:
    """Report nothing."""


@dataclass
class Coordinator:
    """Runs studies."""

    log: Log
    signatures: Signatures
    calls: Calls = field(default_factory=Calls)

    def start(self, study: Study) -> None:
        """Record a new study; running it comes after."""
        state = study.plan().begin()
        body: dict[str, Any] = {
            "study": study.to_dict(),
            "status": "running",
            "state": self._sealed(state),
            "sums": Progress(0, study.holders).to_dict(),
            "left": [],
            "result": None,
        }
        details = {
            "permit": study.permit,
            "study": study.id,
            "method": study.method,
            "params": study.params,
            "digest": study.digest(),
        }
        self.log.commit(Event("study.started", study.user, details), Put("study", study.id, 0, body))

    def run(
        self,
        study_id: str,
        channels: Sequence[Channel],
        report: Report = quiet,
        max_rounds: int | None = None,
    ) -> Result | None:
        """Run or resume a study; return its result, or None if paused after ``max_rounds``.

        Raises:
            SiteMissing: a holder does not answer; nothing is lost, run again to resume.
            Refused: a holder refuses; the study ends and the reasons are recorded.
            AnalysisFailed: the data cannot carry the model; the study ends.

        """
        record = self.log.get("study", study_id)
        if record is None:
            raise NotFound(f"no study {study_id}", remedy="ihds study show lists them")
        study = Study.from_dict(record.body["study"])
        if record.body["result"] is not None:
            return Result.from_dict(record.body["result"])
        if record.body["status"] == "failed":
            raise Conflict(f"study {study_id} has ended: {record.body['error']}", remedy="start a new one")
        by_holder: dict[str, Channel] = {c.holder: c for c in channels}
        missing = sorted(set(record.body["sums"]["present"]) - set(by_holder))
        if missing:
            raise SiteMissing(f"these holders cannot be reached: {', '.join(missing)}", remedy="resume later")
        try:
            return self._rounds(study, by_holder, report, max_rounds)
        except (Refused, AnalysisFailed, BadInput) as error:
            self._fail(study, error)
            raise

    def _rounds(
        self, study: Study, channels: dict[str, Channel], report: Report, max_rounds: int | None
    ) -> Result | None:
        plan = study.plan()
        record = self.log.get("study", study.id)
        assert record is not None
        body, version = record.body, record.version
        state = unpack(PlanState, self.signatures.unseal(body["state"]))
        progress = Progress.from_dict(body["sums"])
        asking = Asking(study, self.signatures, self.calls, channels, progress, self._lost_before(study))
        model = sums(asking)
        model.begin()
        report("keys", {"holders": len(asking.progress.present)})
        done = 0
        while (result := plan.finish(state)) is None:
            if max_rounds is not None and done >= max_rounds:
                return None
            packed, number, attempt = pack(state), state.rounds, model.progress.attempt
            details: dict[str, Any] = {"permit": study.permit, "study": study.id, "round": number, "attempt": attempt}
            try:
                opened = model.sum(number, packed)
            except Lost:
                state, kind = plan.begin(), "study.restarted"
            else:
                state, left = self._moved(plan, state, opened)
                kind = "study.round"
                details |= {"contribution": left.contribution, "digest": left.digest}
                details |= {"faults": list(opened.faults)} if opened.faults else {}
                body = {**body, "left": [*body["left"], dataclasses.asdict(left)]}
                report("round", {"number": number, "contribution": left.contribution, "bytes": left.bytes})
            if model.progress.missing:
                details["missing"] = [h for h, _ in model.progress.missing]
            done += 1
            body = {**body, "state": self._sealed(state), "sums": model.progress.to_dict()}
            self.log.commit(Event(kind, study.user, details), Put("study", study.id, version, body))
            version += 1
        provenance = {
            "study": study.id,
            "permit": study.permit,
            "user": study.user,
            "purpose": study.purpose,
            "formula": study.params.get("formula"),
            "params": study.params,
            "holders": [{"did": h} for h in asking.progress.present],
            "thresholds": dataclasses.asdict(study.thresholds),
            **model.provenance(),
            "left_each_site": body["left"],
        }
        result = result.with_provenance(state.rounds, provenance)
        body = {**body, "status": "finished", "state": "", "result": result.to_dict()}
        details = {
            "permit": study.permit,
            "study": study.id,
            "rounds": state.rounds,
            "result": digest(body["result"]),
        }
        self.log.commit(Event("study.finished", study.user, details), Put("study", study.id, version, body))
        self.calls.there(asking.present, lambda c: c.close(study.id))  # who is away now closes with its transfer
        return result

    def _lost_before(self, study: Study) -> frozenset[str]:
        """Return the holders that other studies of the permit go without."""
        others = [r.body for r in self.log.store.list("study") if r.id != study.id]
        missing = [b["sums"]["missing"] for b in others if b["study"]["permit"] == study.permit]
        return frozenset(holder for lost in missing for holder, _ in lost)

    def _sealed(self, state: PlanState) -> str:
        return self.signatures.seal(pack(state))

    def _moved(self, plan: Plan, state: PlanState, opened: Opened) -> tuple[PlanState, Left]:
        """Return the state after an opened sum, and what left each site for it."""
        reply = opened.reply
        total = plan.total(state, reply.kind, reply.layout, opened.words)
        left = Left(
            round=state.rounds,
            contribution=reply.kind,
            output_class=total.kind,
            fields=tuple(leaves(type(total))),
            numbers=len(opened.words),
            bytes=opened.bytes,
            digest=opened.digest,
        )
        return plan.aggregate(state, total), left

    def _fail(self, study: Study, error: IhdsError) -> None:
        record = self.log.get("study", study.id)
        if record is None:
            return
        body = {**record.body, "status": "failed", "state": "", "error": error.message}
        details = {"permit": study.permit, "study": study.id, "code": error.code, "reasons": list(error.reasons)}
        self.log.commit(Event("study.failed", study.user, details), Put("study", study.id, record.version, body))

    def shutdown(self) -> None:
        """End the pool's threads."""
        self.calls.shutdown()
