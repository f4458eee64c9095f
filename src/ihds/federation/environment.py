"""The secure processing environment: runs studies where their user can neither see nor choose what is opened.

EHDS Art. 68(10) lets a permit name it, Art. 73 says what it must be. Trust: it opens totals over all holders of a
permit, never one holder's sum; it asks only what a user signed and gates check both signatures. Its user gets a
finished result, after the method's release rules, and on the way no more than rounds, kinds and sizes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ihds.analysis.result import Result
from ihds.audit.log import Event, Log, now
from ihds.canonical import digest
from ihds.errors import BadMessage, NotAuthenticated, NotFound, Refused
from ihds.federation.channel import Channel
from ihds.federation.coordinator import Coordinator
from ihds.federation.round import Signatures
from ihds.federation.runs import ENDED, Run, RunEvent, Runs, RunState
from ihds.federation.study import Study, asked
from ihds.governance.permit import Permit, PermitState, Use, decide
from ihds.governance.policy import Refused as No
from ihds.ids import Did, PermitId, StudyId
from ihds.store.store import Put, Record

#: What a user learns of a round while the study runs.
_TOLD = ("round", "contribution", "bytes")


class Outside(Protocol):
    """What an environment needs of the world: proofs, descriptions and ways to the holders."""

    def permit(self, identifier: str, user: str) -> tuple[Permit, PermitState]:
        """Return a permit that its user showed here, and its present state. Raises Refused."""
        ...

    def study(self, identifier: StudyId, permit: Permit, question: dict[str, Any]) -> Study:
        """Return the study that puts a user's question to the permit's holders."""
        ...

    def channels(self, ways: dict[str, str]) -> AbstractContextManager[Sequence[Channel]]:
        """Open the channels to holders by the transfer tokens that the user handed over."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """A study as its user asks for it; ``asked`` is the user's signature, ``ways`` the transfer tokens by holder."""

    study: StudyId
    permit: PermitId
    purpose: str
    method: str
    params: dict[str, Any]
    asked: str
    ways: dict[str, str]
    max_rounds: int | None = None
    person: str = ""

    @classmethod
    def from_dict(cls, study: str, body: dict[str, Any]) -> Request:
        """Read the JSON form.

        Raises:
            BadMessage: a field is missing or wrong.

        """
        try:
            most = body.get("max_rounds")
            return cls(
                study=StudyId.parse(study),
                permit=PermitId.parse(body["permit"]),
                purpose=str(body["purpose"]),
                method=str(body["method"]),
                params=dict(body["params"]),
                asked=str(body["asked"]),
                ways={str(holder): str(token) for holder, token in dict(body["ways"]).items()},
                max_rounds=None if most is None else int(most),
                person=str(body.get("person", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadMessage(f"this is not a request for a study: {error!r}") from error

    def question(self) -> dict[str, Any]:
        """Return what does not change while a study is asked for again."""
        names = ("permit", "purpose", "method", "params", "person")
        return {name: getattr(self, name) for name in names}


@dataclass
class Environment:
    """Takes requests, runs them, and hands results out."""

    me: Did
    log: Log
    signatures: Signatures
    outside: Outside
    clock: Callable[..., Any] = now
    runs: Runs = field(init=False)
    coordinator: Coordinator = field(init=False)

    def __post_init__(self) -> None:
        """Make what runs studies."""
        self.runs = Runs(self.log, self.me, self._work)
        self.coordinator = Coordinator(self.log, self.signatures)

    # -- what a user may do ----------------------------------------------------------------------

    def submit(self, user: Did, request: Request) -> dict[str, Any]:
        """Take a study or go on with it; asked again the same, nothing is done twice.

        Raises:
            Refused: permit or environment do not fit the request; or the id is in use for another one.
            NotAuthenticated: the user did not sign it.

        """
        question = request.question()
        permit = self._judged(user, question, frozenset())
        if set(request.ways) != {holder for holder, _ in permit.datasets}:
            raise Refused("the request does not lead to the holders of the permit, all of them and no other")
        claims = self.signatures.verify(request.asked, user)
        if {k: claims.get(k) for k in ("study", "question")} != asked(request.study, **question):
            raise NotAuthenticated("the user's signature is for another study")
        found = self.log.get("study.request", request.study)
        if found is None:
            body = {**question, "user": user, "asked": request.asked, "status": str(RunState.RUNNING), "error": None}
            details = {"permit": request.permit, "study": request.study, "method": request.method}
            put = Put("study.request", request.study, 0, {**body, "ways": self._sealed(request.ways)})
            self.log.commit(Event("study.requested", user, details), put)
        elif found.body["user"] != user or {k: found.body[k] for k in question} != question:
            raise Refused("this study id is in use for another study", remedy="start a new study")
        elif found.body["status"] in ENDED or self.runs.busy(request.study):
            return self.told(user, request.study, 0)
        else:
            body = {**found.body, "status": str(RunState.RUNNING), "error": None, "ways": self._sealed(request.ways)}
            details = {"permit": request.permit, "study": request.study, "status": str(RunState.RUNNING)}
            put = Put("study.request", request.study, found.version, body)
            self.log.commit(Event("study.settled", user, details), put)
        self.runs.launch(request.study, request.max_rounds)
        return self.told(user, request.study, 0)

    def told(self, user: Did, identifier: str, after: int) -> dict[str, Any]:
        """Return all that a user learns of a study: its state, its rounds after so many, and at the end its result."""
        body = self._own(user, identifier).body
        study = self.log.get("study", identifier)
        rounds = study.body["left"][after:] if study else []
        answer: dict[str, Any] = {
            "study": identifier,
            "status": body["status"],
            "error": body["error"],
            "rounds": [{name: row[name] for name in _TOLD} for row in rounds],
            "result": None,
        }
        if body["status"] == RunState.FINISHED and study is not None:
            result = study.body["result"]
            claims = {"study": identifier, "permit": body["permit"], "result": digest(result)}
            signature = self.signatures.sign(claims)
            answer |= {"definition": study.body["study"], "result": result, "signature": signature}
        return answer

    def end(self, user: Did, identifier: str) -> dict[str, Any]:
        """Forget a study: one that runs is cancelled, the result of one that has finished was received."""
        status = RunState(self._own(user, identifier).body["status"])
        if status not in (RunState.CANCELLED, RunState.DELIVERED):
            event = RunEvent.DELIVER if status is RunState.FINISHED else RunEvent.CANCEL
            study = self.log.get("study", identifier)
            gone = [Put("study", identifier, study.version, None)] if study else []
            self.runs.move(identifier, event, None, *gone)
        return self.told(user, identifier, 0)

    def _own(self, user: Did, identifier: str) -> Record:
        record = self.runs.record(StudyId.parse(identifier))
        if record.body["user"] != user:
            raise NotFound(f"no study {identifier} of yours")
        return record

    # -- running ---------------------------------------------------------------------------------

    def _judged(self, user: str, question: dict[str, Any], variables: frozenset[str]) -> Permit:
        """Return the permit of a request, which allows it now.

        Raises:
            Refused: it does not.

        """
        permit, state = self.outside.permit(question["permit"], user)
        reasons: list[str] = []
        if permit.environment != self.me:
            reasons.append(f"EHDS 68(10): the permit names {permit.environment or 'no environment'}, not this one")
        holders = frozenset(holder for holder, _ in permit.datasets)
        for holder, dataset in permit.datasets:
            purpose, method, person = (str(question[k]) for k in ("purpose", "method", "person"))
            use = Use(user, holder, dataset, purpose, method, variables, holders, person)
            verdict = decide(permit, state, use, self.clock())
            if isinstance(verdict, No):
                reasons += [r for r in verdict.reasons if r not in reasons]
        if reasons:
            said = tuple(f"{self.me}: {reason}" for reason in reasons)
            raise Refused("the environment refuses the study", reasons=said, remedy="apply: ihds apply")
        return permit

    def _work(self, identifier: str, run: Run, max_rounds: int | None) -> Result | None:
        """Run a study; permit and cancellation are looked at before the first round and after each."""
        body = self.runs.record(identifier).body
        question = {name: body[name] for name in ("permit", "purpose", "method", "params", "person")}

        def judged(variables: frozenset[str]) -> Permit:
            return self._judged(body["user"], question, variables)

        permit, found = judged(frozenset()), self.log.get("study", identifier)
        if found is not None:
            study = Study.from_dict(found.body["study"])
        else:
            study = self.outside.study(StudyId.parse(identifier), permit, question)
            study = replace(study, word=body["asked"])
        variables = study.plan().variables
        judged(variables)
        if found is None:
            self.coordinator.start(study)

        def report(what: str, details: dict[str, Any]) -> None:
            run.report(what, details)
            judged(variables)

        with self.outside.channels(json.loads(self.signatures.unseal(body["ways"]))) as channels:
            return self.coordinator.run(identifier, channels, report, max_rounds)

    def _sealed(self, ways: dict[str, str]) -> str:
        return self.signatures.seal(json.dumps(ways).encode())

    def shutdown(self) -> None:
        """End the coordinator's threads."""
        self.coordinator.shutdown()
