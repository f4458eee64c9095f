"""The threshold of a site: the only door through which a contribution leaves.

``answer`` takes seven steps in fixed order, nowhere else: permit and agreement in force, open
exactly the permitted view, local, disclosure check, budget, mask, audit; then the reply.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from ihds.analysis.coverage import Coverage, coverage
from ihds.analysis.method import Contribution, sendable
from ihds.analysis.plan import Plan, PlanState
from ihds.audit.log import Event, Log, now
from ihds.canonical import pack, sha256, unpack
from ihds.data.source import Scope, Source, View
from ihds.data.wide import Table
from ihds.errors import AnalysisFailed, CannotVerify, IhdsError, NotAuthenticated, NotFound, Refused, SiteMissing
from ihds.federation import ledger, promises
from ihds.federation.engine import Engine, Here, Work
from ihds.federation.opt_outs import Choices, NoRegistry
from ihds.federation.preview import Preview, preview
from ihds.federation.round import Hiding, Signatures, going_without, hiding, missing, names, words_of
from ihds.federation.study import Reply, Round, Study
from ihds.governance import aggregation
from ihds.governance.aggregation import CONTINUE
from ihds.governance.jurisdiction import Export, may_leave, shown_of, thresholds
from ihds.governance.permit import Permit, PermitState, Use, decide
from ihds.governance.policy import Refused as No
from ihds.ids import Did, StudyId
from ihds.privacy.accountant import Budget, Promise
from ihds.privacy.disclosure import Thresholds, grid_reasons, model_reasons, site_reasons
from ihds.privacy.noise import Shares, Words
from ihds.privacy.population import Marks, marks
from ihds.privacy.rules import NOISY
from ihds.store.store import Put, Record

_log = logging.getLogger("ihds.gate")

#: What one opened sum costs of a permit's budget.
ROUND_CHARGE = Fraction(1)


@dataclass(frozen=True, slots=True)
class Grant:
    """What is in force for one transfer: the permit, its present state, the dataset agreed on."""

    permit: Permit
    state: PermitState
    dataset: str
    agreement: str


class Grants(Protocol):
    """Knows which transfers may be used right now."""

    def in_force(self, transfer: str) -> Grant:
        """Return the grant of a started transfer. Raises Refused."""
        ...


class Threshold(Protocol):
    """A site's door for studies: the gate itself, or whatever asks it on behalf of others."""

    def open(self, signed: str, transfer: str) -> str:
        """Take part in a study; return the signed mask key."""
        ...

    def join(self, study_id: str, transfer: str, announcements: dict[str, str]) -> bytes:
        """Take everybody's mask keys; return sealed shares."""
        ...

    def answer(self, study_id: str, transfer: str, body: bytes) -> bytes:
        """Answer a round."""
        ...

    def step(self, study_id: str, transfer: str, name: str, body: bytes) -> bytes:
        """Go on with a round that was answered: help to open its sum."""
        ...

    def close(self, study_id: str, transfer: str) -> None:
        """End a study."""
        ...

    def close_transfer(self, transfer: str) -> None:
        """End the studies that rode on a transfer."""
        ...


@dataclass(frozen=True, slots=True)
class _Open:
    """A study at work: kept between its rounds, made anew after a restart."""

    study: Study
    plan: Plan
    work: Work
    hiding: Hiding
    persons: int
    levels: dict[str, tuple[str, ...]]
    covered: Coverage


#: What the gate sees to itself; a study adds rows up and joins no record with another site's.
_OWN_EVIDENCE = frozenset({"secure_aggregation", "disclosure_check", "audit_log", "no_linkage"})


@dataclass
class Gate:
    """One site's gate. ``_works`` keeps opened designs between the rounds of a study, ``_marks`` those of persons.

    Studies of the datasets ``by_hand`` wait until a person of the site has approved them; those of the
    datasets ``in_environment`` are answered to a permit's environment only, never to its user.
    ``attested`` is what the holder's officer vouches for, by dataset: approvals, and clauses with a recipient;
    ``own`` are the holder's own thresholds, by dataset: with those of permit and law, the strictest holds.
    ``promises`` bound, by dataset, what noisy studies of all permits together may tell of a person.
    """

    me: Did
    country: str
    source: Source
    log: Log
    grants: Grants
    signatures: Signatures
    clock: Callable[[], datetime] = now
    engine: Engine = field(default_factory=Here)
    by_hand: frozenset[str] = frozenset()
    in_environment: frozenset[str] = frozenset()
    attested: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opt_outs: Choices = field(default_factory=NoRegistry)
    own: Mapping[str, Thresholds] = field(default_factory=dict)
    promises: Mapping[str, Promise] = field(default_factory=dict)
    draw: Callable[[Shares], Words] = Shares.drawn
    _works: dict[str, _Open] = field(default_factory=dict)
    _marks: dict[str, Marks] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # -- before the first round ----------------------------------------------------------------

    def open(self, signed: str, transfer: str) -> str:
        """Take part in a study: judge it, make a mask key, return the signed announcement.

        Repeating the call returns the same announcement.

        Raises:
            Refused: permit, policy, thresholds or jurisdiction say no.
            SiteMissing: a person of this site has yet to approve the study.
            NotAuthenticated: the study is not signed by the permit's environment, or where it names none by its
                user; or the environment asks what the user did not.

        """
        grant = self.grants.in_force(transfer)
        claims = self.signatures.verify(signed, grant.permit.asker)
        study = Study.from_dict(claims.get("study") or {})
        if grant.permit.environment is not None:
            asked = self.signatures.verify(study.word, grant.permit.user)
            if any(asked.get(name) != value for name, value in study.asked().items()):
                raise NotAuthenticated("the environment asks for another study than the permit's user")
        self._judge(study, study.plan(), grant)
        with self._lock:  # a call repeated while the first is on its way finds its key
            record = self._begin(study, transfer, grant)
        if not record["approved"]:
            raise SiteMissing(
                f"{self.me} has yet to approve the study; a person looks at it there",
                remedy=f"resume later: ihds study run --resume {study.id}",
            )
        return self._hiding(study).announce(record["sums"], claims.get("attempt", 0))

    def _begin(self, study: Study, transfer: str, grant: Grant) -> dict[str, Any]:
        found = self.log.get("gate.study", study.id)
        if found is None:
            record = {
                "study": study.to_dict(),
                "transfer": transfer,
                "sums": self._hiding(study).begin(),
                "joined": False,
                "approved": grant.dataset not in self.by_hand,
                "round": -1,
                "attempt": -1,
                "digest": "",
                "reply": "",
                "closed": False,
                "phase": "dictionary",
                "frame": "",
            }
            details = {**self._ids(study, grant), "method": study.method, "params": study.params}
            details["digest"] = study.digest()
            kind = "study.opened" if record["approved"] else "study.asked"
            self.log.commit(Event(kind, study.user, details), Put("gate.study", study.id, 0, record))
        else:
            record = found.body
            if record["study"] != study.to_dict() or record["transfer"] != transfer:
                raise Refused("this study id is in use for another study or transfer")
        if record["closed"]:
            raise Refused("this study is closed here", remedy="start a new study")
        return record

    def approve(self, study_id: str) -> None:
        """Let a study go on that waited for a person of this site."""
        with self._lock:
            record = self._known(study_id)
            if not record.body["approved"]:
                details = {"study": record.id, "permit": record.body["study"]["permit"]}
                self.log.commit(
                    Event("study.approved", self.me, details),
                    Put("gate.study", record.id, record.version, {**record.body, "approved": True}),
                )

    def preview(self, study_id: str) -> Preview:
        """Return what an open study would take from here; see ``preview``."""
        record = self._known(study_id)
        grant = self.grants.in_force(record.body["transfer"])
        study = Study.from_dict(record.body["study"])
        plan, limits = study.plan(), self._thresholds(grant)
        seen = self.preview_of(plan, grant.dataset, grant.permit.variables, limits, grant.permit)
        if not self._difference(plan, grant) or not ledger.knows(self.log, study.user, grant.dataset):
            return seen
        levels = plan.agreement.begin().levels
        view = self.opt_outs.foreseen(self._view(plan, grant.dataset, grant.permit.variables), grant.permit)
        covered = view.apply(lambda t: self._covered(plan, levels, t, view), plan.agreement.ask.features)
        try:
            ledger.entered(self.log, study, grant.dataset, covered, limits.min_difference)
        except Refused as error:
            return replace(seen, refused=(*seen.refused, *error.reasons))
        return seen

    def preview_of(
        self, plan: Plan, dataset: str, variables: frozenset[str], limits: Thresholds, permit: Permit | None = None
    ) -> Preview:
        """Return what a study would take from here of permitted variables; nothing is written or sent."""
        view = self.opt_outs.foreseen(self._view(plan, dataset, variables), permit)
        return view.apply(lambda table: preview(plan, table, view.persons, limits), plan.agreement.ask.features)

    def _hiding(self, study: Study) -> Hiding:
        return hiding(study, study.digest(), self.me, self.signatures)

    def join(self, study_id: str, transfer: str, announcements: dict[str, str]) -> bytes:
        """Take the announcements of all holders, each signed by the holder it names; return sealed shares for them.

        The ledger is asked here already, before any site answers: else a study that one site refuses
        would stand in the ledgers of the others.

        Raises:
            Refused: the roster is not that of the study, or was another before; or the ledger says no.
            NotAuthenticated: a key is not signed by its holder.

        """
        study = Study.from_dict(self._record(study_id, transfer).body["study"])
        missing(study, tuple(announcements))
        for holder, token in announcements.items():  # their keys are asked of others, so before the lock
            self.signatures.verify(token, holder)
        with self._lock:
            record = self._record(study_id, transfer)
            kept, shared = self._hiding(study).take(record.body["sums"], announcements)
            if kept != record.body["sums"]:
                body = {**record.body, "sums": kept, "joined": True}
                event = Event("study.opened", study.user, {"study": study.id, "holders": sorted(announcements)})
                self.log.commit(event, Put("gate.study", study.id, record.version, body))
        grant = self.grants.in_force(transfer)
        try:
            self._judge(study, study.plan(), grant)
            self.opt_outs.fix(grant.permit, grant.dataset)  # it may ask the registry, so before the lock
            with self._lock:
                record = self._record(study_id, transfer)
                self._entering(record, self._work(record, grant), grant)
        except Refused as error:
            self._refusal(study_id, error)
            raise
        return shared

    # -- a round -------------------------------------------------------------------------------

    def answer(self, study_id: str, transfer: str, body: bytes) -> bytes:
        """Answer one round: seven steps, then the reply's bytes.

        The same round again gets the same bytes and costs nothing; another round under the same
        number, or an old one, is refused, so no mask ever covers two contributions.

        Raises:
            Refused: any step says no; the refusal is in the log.

        """
        try:
            asked = unpack(Round, body)
            # 1 permit and agreement in force: asked of others, so before the lock
            grant = self.grants.in_force(transfer)
            claims = self.signatures.verify(asked.signature, grant.permit.asker)
            self.opt_outs.fix(grant.permit, grant.dataset)
            with self._lock:
                return self._answer(study_id, transfer, asked.state.tobytes(), claims, grant)
        except IhdsError as error:
            self._refusal(study_id, error)
            raise

    def _answer(self, study_id: str, transfer: str, state_bytes: bytes, claims: dict[str, Any], grant: Grant) -> bytes:
        record = self._record(study_id, transfer)
        held = self._work(record, grant)
        study, plan = held.study, held.plan
        self._judge(study, plan, grant)
        number, repeat = self._check_round(record, study, claims, state_bytes)
        present = names(claims.get("present"))
        without = missing(study, present)
        anew = number == 0 and not repeat
        if anew:  # after a loss a study begins again: what it agreed on is asked afresh
            record = replace(record, body={**record.body, "round": -1, "phase": "dictionary", "frame": ""})
        state = unpack(PlanState, state_bytes)
        # 2 open exactly the permitted view (done in _work, kept between rounds), after what the
        #   public state alone tells: rules that need no row are judged before any row is touched
        self._check_state(record, held, state, grant, number, len(without))
        entering = self._compare(record, held, state, grant)
        # 3 local
        contribution = self._local(record, held.work, state)
        # 4 disclosure check
        self._disclose(held, contribution, grant)
        # 5 budget
        spending = [] if repeat else [self._spend(grant)]
        # 6 noise, if the study asks for it, and mask
        layout, words = plan.flatten(state, contribution)
        cost = {}
        if (noise := plan.noise(state)) is not None:
            cost = {"rho": str(noise.shares.rho)}
            if not repeat:
                spending += promises.charged(self.log, grant.permit, grant.dataset, self.promises, noise.shares.rho)
            spending += promises.add_noise(
                self.log, self.signatures, study.id, number, words, self.draw, noise.shares, repeat
            )
        kept, asked = held.hiding.enter(
            record.body["sums"], int(claims["attempt"]), sha256(state_bytes), present, anew=anew and bool(without)
        )
        kept, hidden = held.hiding.hide(kept, words)
        reply = pack(Reply(type(contribution).__name__, layout, words, hidden.said, hidden.told))
        # 7 audit, then the reply
        if repeat:
            if hidden.words != record.body["reply"]:
                raise Refused("this site's data changed during the round", remedy="start a new study")
            return reply
        after = {
            "round": number,
            "attempt": claims["attempt"],
            "sums": kept,
            "digest": sha256(state_bytes),
            "reply": hidden.words,
            "phase": state.agreement.phase,
            "frame": sha256(pack(state.agreement.frame)),
            "covered": ledger.fingerprint_of(held.covered),
        }
        details = {
            **self._ids(study, grant),
            "round": number,
            "attempt": claims["attempt"],
            "digest": asked,
            "contribution": type(contribution).__name__,
            "class": contribution.kind,
            "bytes": len(reply),
            "covered": after["covered"],
            "opt_outs": self.opt_outs.fix(grant.permit, grant.dataset),
            **cost,
            **({"missing": list(without)} if without else {}),
        }
        self.log.commit(
            Event("round.answered", study.user, details),
            Put("gate.study", study.id, record.version, {**record.body, **after}),
            *spending,
            *entering,
            *going_without(self.log, study.permit, without),
        )
        return reply

    def step(self, study_id: str, transfer: str, name: str, body: bytes) -> bytes:
        """Go on with a round that was answered: agree to open its sum, or give shares for it.

        Raises:
            Refused: another sum was agreed to, or too few agree, or the permit is not in force.

        """
        try:
            grant = self.grants.in_force(transfer)
            study = Study.from_dict(self._record(study_id, transfer).body["study"])
            for holder, token in words_of(study, name, body):  # their keys are asked of others, so before the lock
                with contextlib.suppress(CannotVerify):
                    self.signatures.verify(token, holder)
            with self._lock:
                record = self._record(study_id, transfer)
                held = self._work(record, grant)
                self._judge(held.study, held.plan, grant)
                done = held.hiding.step(record.body["sums"], name, body)
                if done.details is not None:
                    details = {**self._ids(held.study, grant), "round": record.body["round"], **done.details}
                    self.log.commit(
                        Event("round.confirmed", held.study.user, details),
                        Put("gate.study", record.id, record.version, {**record.body, "sums": done.kept}),
                        *going_without(self.log, held.study.permit, done.missing),
                    )
                return done.answer
        except IhdsError as error:
            self._refusal(study_id, error)
            raise

    def close(self, study_id: str, transfer: str) -> None:
        """End a study here and erase its mask key."""
        with self._lock:
            self._works.pop(study_id, None)
            record = self._record(study_id, transfer, closed=True)
            if not record.body["closed"]:
                self._end(record)

    def _end(self, record: Record) -> None:
        self._works.pop(record.id, None)
        body = {**record.body, "closed": True, "sums": {}}
        event = Event("study.closed", self.me, {"study": record.id})
        gone = promises.forgotten(self.log, record.id)
        self.log.commit(event, Put("gate.study", record.id, record.version, body), *gone)

    def close_transfer(self, transfer: str) -> None:
        """End the studies that rode on a transfer."""
        for record in self.log.store.list("gate.study"):
            if record.body["transfer"] == transfer and not record.body["closed"]:
                self.close(record.id, transfer)

    # -- the steps -----------------------------------------------------------------------------

    def _record(self, study_id: str, transfer: str, *, closed: bool = False) -> Record:
        found = self.log.get("gate.study", StudyId.parse(study_id))
        if found is None or found.body["transfer"] != transfer:
            raise NotFound(f"no study {study_id} on this transfer", remedy="open the study first")
        return found if closed else self._known(study_id)

    def _known(self, study_id: str) -> Record:
        """Return the record of a study that is not closed.

        Raises:
            NotFound, Refused: there is none, or it is closed.

        """
        found = self.log.get("gate.study", StudyId.parse(study_id))
        if found is None:
            raise NotFound(f"no study {study_id} here", remedy="ihds study list lists them")
        if found.body["closed"]:
            raise Refused("this study is closed here", remedy="start a new study")
        return found

    def _judge(self, study: Study, plan: Plan, grant: Grant) -> None:
        """Judge a study against permit, thresholds and the laws of this site's country."""
        own = self._thresholds(grant)
        use = Use(
            user=study.user,
            holder=self.me,
            dataset=grant.dataset,
            purpose=study.purpose,
            method=study.method,
            variables=plan.variables,
            holders=frozenset(study.holders),
            person=study.person,
        )
        reasons: list[str] = []
        decision = decide(grant.permit, grant.state, use, self.clock())
        if isinstance(decision, No):
            reasons += decision.reasons
        if study.permit != grant.permit.id:
            reasons.append("EHDS 68(10): the study names another permit than the agreement")
        if self.me not in study.holders:
            reasons.append("the study does not name this holder")
        if own.strictest(study.thresholds) != study.thresholds:
            reasons.append(f"thresholds: this site asks for at least {own}")
        today = self.clock().date()
        stated = shown_of(grant.permit.user, self.attested.get(grant.dataset, ()))
        evidence = _OWN_EVIDENCE | grant.permit.evidence(today) | stated
        recipient, regime = grant.permit.recipient_country, grant.permit.legal_regime
        verdict = may_leave(Export("MODEL_UPDATE", self.country, recipient, regime, evidence), today)
        if isinstance(verdict, No):
            reasons += verdict.reasons
        if study.user in study.holders or len(set(study.holders)) != len(study.holders):
            reasons.append("holders: the user may not be a holder, and no holder may stand twice")
        if set(study.holders) != {h for h, _ in grant.permit.datasets}:
            reasons.append("holders: a study asks all holders of its permit, so that no two can be subtracted")
        if grant.dataset in self.in_environment and grant.permit.environment is None:
            reasons.append("EHDS 73: this site answers in a secure processing environment only; the permit names none")
        if study.environment != grant.permit.environment:
            reasons.append("EHDS 68(10): the study names another environment than the permit")
        reasons += promises.reasons(plan, grant.permit, len(study.holders))
        reasons += aggregation.reasons(grant.permit.aggregation, study.aggregation, len(study.holders))
        reasons += self._codebook_reasons(plan, grant)
        ask = plan.agreement.ask
        clock = ask.formula.response[:-1] if ask.clock == "grid" and own.min_time_bin > 0 else ()
        if any(ask.formula.label(r) not in plan.codebook.variables for r in clock):
            reasons.append("min_time_bin: the time must be a plain column, not scaled or shifted")
        if ask.clock == "grid":
            reasons += grid_reasons(own, ask.time_bin)
        if reasons:
            raise Refused(f"{self.me} refuses the study", reasons=tuple(reasons), remedy="apply for what is missing")

    def _codebook_reasons(self, plan: Plan, grant: Grant) -> list[str]:
        mine = self.source.codebook(grant.dataset)
        reasons = []
        for name in sorted(plan.variables):
            theirs = plan.codebook.variable(name)
            own = mine.variables.get(name)
            if own is None:
                reasons.append(f"variable {name!r} is not in this site's codebook")
            elif own.kind not in (theirs.kind, "empty"):
                reasons.append(f"variable {name!r} is a {own.kind} here, not a {theirs.kind}")
            elif own.unit and theirs.unit and own.unit != theirs.unit:
                reasons.append(f"variable {name!r} is {own.unit} here, not {theirs.unit}")
            elif theirs.levels and own.kind == "number" and not own.levels:
                reasons.append(f"variable {name!r} has no published levels here")
            elif theirs.levels and not set(own.levels) <= set(theirs.levels):
                reasons.append(f"variable {name!r} has levels here that the study leaves out")
        if mine.person and plan.codebook.person != mine.person:
            reasons.append(f"this site counts persons by {mine.person!r}; the study does not")
        return reasons

    def _thresholds(self, grant: Grant) -> Thresholds:
        return self.limits(grant.dataset, grant.permit.legal_regime, grant.permit.thresholds)

    def limits(self, dataset: str, legal_regime: str, permit: Thresholds) -> Thresholds:
        """Return the strictest thresholds of permit, laws of this site's country, and holder."""
        return thresholds(self.country, legal_regime, permit).strictest(self.own.get(dataset, permit))

    def _work(self, record: Record, grant: Grant) -> _Open:
        study_id = record.id
        if study_id not in self._works:
            body = record.body
            if not body["joined"]:
                raise Refused("the holders' mask keys are not known here yet", remedy="send the roster first")
            study = Study.from_dict(body["study"])
            plan = study.plan()
            view = self.opt_outs.applied(self._view(plan, grant.dataset, grant.permit.variables), grant.permit)
            levels = plan.agreement.begin().levels
            least = self._difference(plan, grant)

            def opened(table: Table) -> tuple[Work, Coverage]:
                covered = self._covered(plan, levels, table, view) if least else Coverage((), {})
                return self.engine.work(plan, table), covered

            work, covered = view.apply(opened, plan.agreement.ask.features)
            self._works[study_id] = _Open(study, plan, work, self._hiding(study), view.persons, levels, covered)
        return self._works[study_id]

    def _covered(self, plan: Plan, levels: dict[str, tuple[str, ...]], table: Table, view: View) -> Coverage:
        """Return whom a study covers; the persons of a dataset are marked once, whoever of them is in the view."""
        dataset, person = view.scope.dataset, plan.codebook.person
        if dataset not in self._marks:
            known = ledger.secret(self.log, self.signatures, self.me)
            column = self.source.column(dataset, person) if person in table.columns else None
            rows = len(table) if column is None else len(column)
            self._marks[dataset] = marks(known, None if column is None else [column], rows)
        marked = self._marks[dataset]
        return coverage(plan.agreement.ask, levels, table, marked if view.kept is None else marked.of(view.kept))

    def _view(self, plan: Plan, dataset: str, variables: frozenset[str]) -> View:
        """Open what a study needs of the permitted variables, and the column that tells persons apart."""
        outside = plan.variables - variables
        if outside:
            raise Refused(f"the study reads {min(outside)!r}, which is not permitted here", remedy="leave it out")
        person = {plan.codebook.person} & {self.source.codebook(dataset).person} - {""}
        return self.source.open(Scope(dataset, plan.variables | person))

    def _check_round(self, record: Record, study: Study, claims: dict[str, Any], state: bytes) -> tuple[int, bool]:
        """Return the number of the round that is asked, and whether it was answered before."""
        digest = sha256(state)
        number, attempt = claims.get("round"), claims.get("attempt")
        if claims.get("study") != study.id or claims.get("permit") != study.permit or claims.get("state") != digest:
            raise NotAuthenticated("the round's signature is for another study, permit or state")
        last, tried = record.body["round"], record.body["attempt"]
        again = study.aggregation.dropouts == CONTINUE and last >= 0 and number == 0 and attempt == tried + 1
        if not isinstance(number, int) or (number not in (last, last + 1) and not again):
            raise Refused(f"round {number} does not follow round {last}", remedy="resume the study")
        asked = (number, attempt, digest)
        repeat = asked == (last, tried, record.body["digest"])
        if not repeat and number == last and not again:
            raise Refused("this round was asked before with another state", remedy="start a new study")
        if not repeat and attempt != tried + 1:
            raise Refused(f"attempt {attempt} does not follow attempt {tried}", remedy="resume the study")
        return number, repeat

    def _check_state(self, record: Record, held: _Open, state: PlanState, grant: Grant, number: int, lost: int) -> None:
        """Judge what the public state alone tells, before any row is touched."""
        limits = self._thresholds(grant)
        reasons = list(site_reasons(limits, held.persons))
        if held.plan.wanted is not None:
            reasons += promises.state_reasons(held.plan, state, number, lost)
        else:
            reasons += self._agreement_reasons(record, held, state, limits)
        if reasons:
            raise Refused(f"{self.me} may not answer", reasons=tuple(reasons), remedy="widen the study")

    def _agreement_reasons(self, record: Record, held: _Open, state: PlanState, limits: Thresholds) -> list[str]:
        """Return what is wrong with a state that was agreed on in rounds."""
        agreed, ask = state.agreement, held.plan.agreement.ask
        frame = agreed.frame
        reasons = []
        before, phase = _PHASES.index(record.body["phase"]), _PHASES.index(agreed.phase)
        if record.body["round"] < 0 and phase != 0:
            reasons.append("agreement: a study begins with the dictionary")
        if record.body["round"] >= 0 and (phase < before or (phase == 0 and state.rounds > 0)):
            reasons.append("agreement: its phases do not go back")
        if record.body["phase"] == "done" and sha256(pack(frame)) != record.body["frame"]:
            reasons.append("agreement: what was agreed on does not change afterwards")
        if agreed.phase == "times" and not (ask.clock == "grid" and ask.time_bin == 0 == limits.min_time_bin):
            reasons.append("min_time_bin: exact times are not allowed here")
        if not _within(agreed.levels, held.levels, whole=phase == 0) or frame.levels != agreed.levels:
            reasons.append("levels: they are not those of the codebook")
        if (frame.limits, frame.min_cell) != (held.study.thresholds, held.study.thresholds.min_cell):
            reasons.append("thresholds: what was agreed on names others than the study")
        if agreed.cells > _MAX_CELLS or len(frame.times) > _MAX_CELLS:
            reasons.append("size: this round would be too large")
        if agreed.phase == "done" and ask.covariates == "matrix":
            reasons += model_reasons(limits, frame.rows, len(frame.columns))
        if ask.clock == "grid" and ask.time_bin > 0 and len(frame.times):
            even = np.arange(len(frame.times)) * ask.time_bin
            if frame.time_bin != ask.time_bin or not np.array_equal(frame.times, even):
                reasons.append("min_time_bin: the time grid is not the one agreed on")
        elif ask.clock == "grid" and len(frame.times) and limits.min_time_bin > 0:
            reasons.append("min_time_bin: exact times are not allowed here")
        return reasons

    def _local(self, record: Record, work: Work, state: PlanState) -> Contribution:
        """Compute; whatever goes wrong on rows gets one constant error and ends the study here."""
        try:
            with np.errstate(all="ignore"):
                return work.local(state)
        except SiteMissing:  # the site's own cluster lost a worker; the rows are spread anew when asked again
            self._works.pop(record.id, None)
            raise
        except Exception as error:  # noqa: BLE001 - its text may tell something of a row
            _log.warning("study %s: %r", record.id, error)
            self._end(record)
            raise AnalysisFailed(
                f"{self.me} could not compute this round; the study is closed there",
                remedy="check formula and variables with 'describe'; the holder's own log says more",
            ) from None

    def _disclose(self, held: _Open, contribution: Contribution, grant: Grant) -> None:
        """Check the persons the model really uses, after missing values are left out, and what it is that leaves."""
        private = held.plan.wanted is not None  # noise hides how many they are
        limits, persons = self._thresholds(grant), held.work.persons()
        reasons = () if private else site_reasons(limits, persons)
        remedy = "use variables with fewer missing values"
        if (contribution.kind == NOISY) != private:
            raise Refused(f"{self.me} may not answer", reasons=("noise: exact sums are no noisy ones",))
        if held.study.aggregation.dropouts == CONTINUE and not private and persons < limits.min_difference:
            reasons += (f"min_difference: a sum may not come to lack fewer than {limits.min_difference} persons",)
        if wrong := sendable(contribution):
            reasons, remedy = (*reasons, *wrong), "use another method, or declare what it sends: docs/how-to"
        if reasons:
            raise Refused(f"{self.me} may not answer", reasons=reasons, remedy=remedy)

    def _compare(self, record: Record, held: _Open, state: PlanState, grant: Grant) -> list[Put]:
        """Compare whom a study covers with what its user has seen; it stays what it was in the first round."""
        least = self._difference(held.plan, grant)
        body, covered = record.body, held.covered
        if least and any(known - set(state.agreement.levels[n]) for n, known in covered.held.items()):
            self._end(record)
            raise Refused(
                f"{self.me} may not answer; the study is closed there",
                reasons=("levels: those that somebody holds are not left out afterwards",),
                remedy="start a new study",
            )
        if "covered" in body and ledger.fingerprint_of(covered) != body["covered"]:
            raise Refused("this site's data changed during the study", remedy="start a new study")
        return self._entering(record, held, grant)

    def _entering(self, record: Record, held: _Open, grant: Grant) -> list[Put]:
        """Return what the first round writes to the ledger; later rounds write nothing."""
        least = self._difference(held.plan, grant)
        if not least or "covered" in record.body:
            return []
        return [ledger.entered(self.log, held.study, grant.dataset, held.covered, least)]

    def _difference(self, plan: Plan, grant: Grant) -> int:
        """Return by how many persons what two studies cover must differ: noise makes differences of any size safe."""
        return 0 if plan.wanted is not None else self._thresholds(grant).min_difference

    def _spend(self, grant: Grant) -> Put:
        found = self.log.get("gate.budget", grant.permit.id)
        spent = Fraction(found.body["spent"]) if found else Fraction(0)
        after = Budget(Fraction(grant.permit.max_rounds), spent).spend(ROUND_CHARGE)
        if after is None:
            raise Refused(
                f"{self.me}: the permit's budget of {grant.permit.max_rounds} rounds is used up",
                reasons=("EHDS 68(10): max_rounds",),
                remedy="apply for an amended permit",
            )
        version = found.version if found else 0
        return Put("gate.budget", grant.permit.id, version, {"spent": str(after.spent)})

    def _ids(self, study: Study, grant: Grant) -> dict[str, Any]:
        return {"permit": grant.permit.id, "study": study.id, "agreement": grant.agreement}

    def _refusal(self, study_id: str, error: IhdsError) -> None:
        details = {"study": study_id, "code": error.code, "reasons": [error.message, *error.reasons]}
        found = self.log.get("gate.study", study_id)
        if found is not None:
            details["permit"] = found.body["study"]["permit"]
            self.log.commit(Event("study.refused", self.me, details))


_PHASES = ("dictionary", "moments", "weights", "times", "done")
_MAX_CELLS = 1 << 22


def _within(levels: dict[str, tuple[str, ...]], public: dict[str, tuple[str, ...]], *, whole: bool) -> bool:
    """Return whether levels are the public ones, or in order a part of them."""
    if set(levels) != set(public):
        return False
    if whole:
        return levels == public
    return all(tuple(lv for lv in public[n] if lv in set(kept)) == kept for n, kept in levels.items())
