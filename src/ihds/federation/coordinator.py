"""Asks every holder, adds the masked replies, opens only their sum, and repeats.

The coordinator belongs to the user and is not trusted: it never sees an unmasked contribution.
After every round the public state is committed with its event, so a crash resumes where it was.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ihds.analysis.method import leaves
from ihds.analysis.plan import Plan, PlanState
from ihds.analysis.result import Result
from ihds.audit.log import Event, Log
from ihds.canonical import digest, pack, sha256, unpack
from ihds.errors import AnalysisFailed, BadInput, BadMessage, Conflict, IhdsError, NotFound, Refused, SiteMissing
from ihds.federation.channel import Channel
from ihds.federation.gate import Signatures
from ihds.federation.study import Left, Reply, Round, Study, round_digest
from ihds.store.store import Put

Progress = Callable[[str, dict[str, Any]], None]


def quiet(_what: str, _details: dict[str, Any]) -> None:
    """Report nothing."""


@dataclass
class Coordinator:
    """Runs the studies of one user."""

    log: Log
    signatures: Signatures
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(64, "round"))

    def start(self, study: Study) -> None:
        """Record a new study; running it comes after."""
        state = study.plan().begin()
        body: dict[str, Any] = {
            "study": study.to_dict(),
            "status": "running",
            "state": _text(state),
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
        progress: Progress = quiet,
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
        by_holder = {c.holder: c for c in channels}
        if set(by_holder) != set(study.holders):
            missing = sorted(set(study.holders) - set(by_holder))
            raise SiteMissing(f"these holders cannot be reached: {', '.join(missing)}", remedy="resume later")
        try:
            return self._rounds(study, [by_holder[h] for h in study.holders], progress, max_rounds)
        except (Refused, AnalysisFailed, BadInput) as error:
            self._fail(study, error)
            raise

    def _rounds(
        self, study: Study, channels: list[Channel], progress: Progress, max_rounds: int | None
    ) -> Result | None:
        plan = study.plan()
        announced = self._keys(study, channels, progress)
        self._each(channels, lambda c: c.join(study.id, announced))
        record = self.log.get("study", study.id)
        assert record is not None
        body, version = record.body, record.version
        state = unpack(PlanState, base64.b64decode(body["state"]))
        done = 0
        while (result := plan.finish(state)) is None:
            if max_rounds is not None and done >= max_rounds:
                return None
            state, left = self._round(study, plan, state, channels)
            done += 1
            body = {**body, "state": _text(state), "left": [*body["left"], dataclasses.asdict(left)]}
            details = {
                "permit": study.permit,
                "study": study.id,
                "round": left.round,
                "contribution": left.contribution,
                "digest": left.digest,
            }
            self.log.commit(Event("study.round", study.user, details), Put("study", study.id, version, body))
            version += 1
            progress("round", {"number": left.round, "contribution": left.contribution, "bytes": left.bytes})
        provenance = {
            "study": study.id,
            "permit": study.permit,
            "user": study.user,
            "purpose": study.purpose,
            "formula": study.params.get("formula"),
            "params": study.params,
            "holders": [{"did": h} for h in study.holders],
            "thresholds": dataclasses.asdict(study.thresholds),
            "secure_aggregation": "pairwise masks over Z_2^64; X25519, HKDF-SHA256, AES-128-CTR",
            "left_each_site": body["left"],
        }
        result = result.with_provenance(state.rounds, provenance)
        body = {**body, "status": "finished", "result": result.to_dict()}
        details = {
            "permit": study.permit,
            "study": study.id,
            "rounds": state.rounds,
            "result": digest(body["result"]),
        }
        self.log.commit(Event("study.finished", study.user, details), Put("study", study.id, version, body))
        self._each(channels, lambda c: c.close(study.id))
        return result

    def _keys(self, study: Study, channels: list[Channel], progress: Progress) -> dict[str, str]:
        signed = self.signatures.sign({"study": study.to_dict()})
        answers = self._each(channels, lambda c: c.open(signed))
        progress("keys", {"holders": len(channels)})
        return {c.holder: a for c, a in zip(channels, answers, strict=True)}

    def _round(self, study: Study, plan: Plan, state: PlanState, channels: list[Channel]) -> tuple[PlanState, Left]:
        packed = pack(state)
        claims = {"study": study.id, "permit": study.permit, "round": state.rounds, "state": sha256(packed)}
        asked = pack(Round(self.signatures.sign(claims), np.frombuffer(packed, dtype=np.uint8)))
        replies = self._each(channels, lambda c: c.answer(study.id, asked))
        total: Any = None
        first: Reply | None = None
        for channel, raw in zip(channels, replies, strict=True):
            reply = unpack(Reply, raw)
            if first is None:
                first, total = reply, reply.words.copy()
            elif (reply.kind, reply.layout) != (first.kind, first.layout):
                raise BadMessage(f"{channel.holder} answered in another shape than {channels[0].holder}")
            else:
                np.add(total, reply.words, out=total)
        assert first is not None
        opened = plan.total(state, first.kind, first.layout, total)
        left = Left(
            round=state.rounds,
            contribution=first.kind,
            output_class=opened.kind,
            fields=tuple(leaves(type(opened))),
            numbers=len(first.words),
            bytes=len(replies[0]),
            digest=round_digest(study.digest(), state.rounds, packed),
        )
        return plan.aggregate(state, opened), left

    def _each(self, channels: list[Channel], call: Callable[[Channel], Any]) -> list[Any]:
        """Call all holders at once; if any fail, raise the gravest after all have ended."""
        futures = [self._pool.submit(call, channel) for channel in channels]
        results, errors = [], []
        for channel, future in zip(channels, futures, strict=True):
            try:
                results.append(future.result())
            except IhdsError as error:
                errors.append((channel.holder, error))
        refusals = [(h, e) for h, e in errors if isinstance(e, Refused)]
        if refusals:
            reasons = tuple(f"{h}: {r}" for h, e in refusals for r in (e.reasons or (e.message,)))
            raise Refused(
                f"{len(refusals)} of {len(channels)} holders refuse",
                reasons=reasons,
                remedy=refusals[0][1].remedy,
            )
        if errors:
            missing = [e for _, e in errors if isinstance(e, SiteMissing)]
            raise next((e for _, e in errors if not isinstance(e, SiteMissing)), None) or missing[0]
        return results

    def _fail(self, study: Study, error: IhdsError) -> None:
        record = self.log.get("study", study.id)
        if record is None:
            return
        body = {**record.body, "status": "failed", "error": error.message}
        details = {"permit": study.permit, "study": study.id, "code": error.code, "reasons": list(error.reasons)}
        self.log.commit(Event("study.failed", study.user, details), Put("study", study.id, record.version, body))

    def shutdown(self) -> None:
        """End the pool's threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _text(state: PlanState) -> str:
    return base64.b64encode(pack(state)).decode()
