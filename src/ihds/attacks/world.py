"""The real system in one process, from every seat an attacker may sit in, and the same sums in the clear.

Gates, masks, thresholds and coordinator are those of production; nothing can be switched off. Persons
are invented, and names, mask keys and noise are drawn from a seed, so that a figure is the same in every run.
A protection is left out only in ``cleartext`` and in the attacks themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis.method import Contribution, methods
from ihds.analysis.plan import Plan, PlanState
from ihds.analysis.result import Result
from ihds.audit.log import Log, now
from ihds.canonical import pack, sha256, unpack
from ihds.connector.dcp.tokens import Identity
from ihds.data.codebook import Codebook
from ihds.data.source import FrameSource
from ihds.data.table import conform, draft_codebook, read_table
from ihds.errors import IhdsError
from ihds.federation.calls import Calls
from ihds.federation.channel import Channel, MemoryChannel
from ihds.federation.coordinator import Coordinator
from ihds.federation.environment import Environment, Request
from ihds.federation.gate import Gate, Grant
from ihds.federation.runs import RunState
from ihds.federation.study import Reply, Round, Study, asked
from ihds.federation.sums import Asking, Progress, Sums, sums
from ihds.governance.aggregation import Aggregation
from ihds.governance.jurisdiction import SIMULATION
from ihds.governance.permit import Permit, PermitState
from ihds.ids import ApplicationId, Did, PermitId, StudyId
from ihds.privacy.disclosure import Thresholds
from ihds.privacy.noise import Shares, Words
from ihds.privacy.secagg.party import Party
from ihds.roles.local import LocalKeys
from ihds.store.store import Store
from ihds.wire.jose import SigningKey

_DATASET = "table"
_COUNTRY = "--"
_SECRET = 32


def people(count: int, seed: int) -> pd.DataFrame:
    """Return invented patients: covariates, an outcome, and days of follow-up with a long tail."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "age": rng.normal(66, 10, count).round(1),
            "bmi": rng.normal(27, 4, count).round(1),
            "smoker": rng.integers(0, 2, count).astype(float),
            "relapse": rng.integers(0, 2, count).astype(float),
            "days": np.minimum(rng.exponential(900, count), rng.uniform(100, 2500, count)).round() + 1,
            "death": rng.integers(0, 2, count).astype(float),
        }
    )


def shared_out(frame: pd.DataFrame, sites: int) -> list[pd.DataFrame]:
    """Return the rows of a frame by site."""
    return [frame.iloc[i::sites].reset_index(drop=True) for i in range(sites)]


def _tables(parts: list[pd.DataFrame]) -> tuple[list[pd.DataFrame], Codebook]:
    """Return each site's table and the codebook that all share."""
    whole = read_table(pd.concat(parts, ignore_index=True))
    book = draft_codebook("invented", whole)
    whole, ends = conform(whole, book, "all sites"), np.cumsum([len(part) for part in parts])
    return [
        whole.iloc[end - len(part) : end].reset_index(drop=True) for end, part in zip(ends, parts, strict=True)
    ], book


def cleartext(
    parts: list[pd.DataFrame], method: str, **params: Any
) -> Iterator[tuple[Plan, PlanState, list[Contribution]]]:
    """Yield, round by round, what each site would send in a design without secure sum, and without thresholds."""
    tables, book = _tables(parts)
    plan = Plan(method, params, book, Thresholds.none(), len(parts))
    works, state = [plan.work(table) for table in tables], plan.begin()
    while plan.finish(state) is None:
        sent = [work.local(state) for work in works]
        yield plan, state, sent
        flat = [plan.flatten(state, part) for part in sent]
        words = np.sum([w for _, w in flat], axis=0, dtype=np.uint64)
        state = plan.aggregate(state, plan.total(state, type(sent[0]).__name__, flat[0][0], words))


@dataclass
class Keys(LocalKeys):
    """Signatures of one party; what it seals for itself, mask keys above all, is drawn from a seed."""

    sealed: int = 0

    def seal(self, data: bytes) -> str:
        """Return what a secret becomes at rest; fresh ones are replaced by the next of the seed."""
        if len(data) == _SECRET:
            return self._next()
        if not data.startswith(b"{"):  # noise, which is drawn from a seed already
            return data.hex()
        party = Party.from_bytes(data)
        if party.roster is None:
            one, two, three, four = (self._next() for _ in range(4))
            party = dataclasses.replace(party, mask_key=one, share_key=two, self_seed=three, coins=four)
        return party.to_bytes().hex()

    def _next(self) -> str:
        self.sealed += 1
        return sha256(f"{self.identity.did}|{self.sealed}".encode())

    def unseal(self, text: str) -> bytes:
        """Return a secret."""
        return bytes.fromhex(text)


@dataclass(frozen=True)
class _InForce:
    permit: Permit

    def in_force(self, transfer: str) -> Grant:
        return Grant(self.permit, PermitState.GRANTED, _DATASET, transfer)


@dataclass(frozen=True)
class Outside:
    """What the environment of a space needs of the world."""

    space: Space

    def permit(self, identifier: str, user: str) -> tuple[Permit, PermitState]:
        """Return the space's permit."""
        return self.space.permit, PermitState.GRANTED

    def study(self, identifier: StudyId, permit: Permit, question: dict[str, Any]) -> Study:
        """Return a study of all holders."""
        return self.space.named(identifier, question["method"], question["params"])

    @contextlib.contextmanager
    def channels(self, ways: dict[str, str]) -> Iterator[list[MemoryChannel]]:
        """Open the ways to the gates."""
        yield [MemoryChannel(gate.me, gate, ways[gate.me]) for gate in self.space.gates]


@dataclass
class Space:
    """Holders with their gates and logs, which stay from study to study, and a user with a permit.

    With ``environment`` the permit names one: the user is told only what it tells.
    """

    parts: list[pd.DataFrame]
    limits: Thresholds = field(default_factory=Thresholds)
    max_rounds: int = 400
    environment: bool = False
    aggregation: Aggregation = field(default_factory=Aggregation)
    gates: list[Gate] = field(default_factory=list, init=False)
    _models: dict[str, Sums] = field(default_factory=dict, init=False)
    _calls: Calls = field(default_factory=Calls, init=False)
    _studies: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.tables, self.book = _tables(self.parts)
        dids = [Did(f"did:web:attacked:{i}") for i in range(len(self.parts))]
        others = (Did("did:web:environment"), Did("did:web:attacker"))
        everybody = [Identity(did, SigningKey.new(f"{did}#key")) for did in (*dids, *others)]
        known: dict[str, dict[str, Any]] = {one.did: one.key.public_jwk() for one in everybody}
        self.known, self.runner = known, everybody[-2]
        self.user = Keys(everybody[-1], known)
        self.permit = self._permit(dids)
        for one, table in zip(everybody, self.tables, strict=False):
            log = Log(Store("sqlite://"), one.did, one.key)
            source, grants = FrameSource(_DATASET, table, self.book), _InForce(self.permit)
            draw = partial(_drawn, np.random.default_rng(len(self.gates)))
            self.gates.append(Gate(one.did, _COUNTRY, source, log, grants, Keys(one, known), draw=draw))

    def _permit(self, holders: list[Did]) -> Permit:
        at = now()
        return Permit(
            id=PermitId(_urn(0)),
            application=ApplicationId(_urn(0)),
            access_body=self.user.identity.did,
            user=self.user.identity.did,
            legal_regime=SIMULATION,
            purpose="scientific_research",
            datasets=tuple((holder, _DATASET) for holder in holders),
            variables=frozenset(self.book.variables),
            methods=frozenset(methods()),
            persons=(),
            recipient_country=_COUNTRY,
            thresholds=self.limits,
            max_rounds=self.max_rounds,
            issued_at=at - timedelta(seconds=1),
            expires_at=at + timedelta(days=1),
            status_index=0,
            aggregation=self.aggregation,
            environment=self.runner.did if self.environment else None,
        )

    def study(self, method: str, **params: Any) -> Study:
        """Return a study of all holders."""
        return self.named(self._new_id(), method, params)

    def _new_id(self) -> StudyId:
        self._studies += 1
        return StudyId(_urn(self._studies))

    def named(self, identifier: StudyId, method: str, params: dict[str, Any]) -> Study:
        """Return a study of all holders under an id."""
        return Study(
            id=identifier,
            permit=self.permit.id,
            user=self.permit.user,
            purpose=self.permit.purpose,
            method=method,
            params=params,
            codebook=self.book.to_dict(),
            thresholds=self.limits,
            holders=tuple(gate.me for gate in self.gates),
            aggregation=self.aggregation,
            environment=self.permit.environment,
        )

    def run(self, method: str, **params: Any) -> Result:
        """Run a study with our own coordinator; return what its user reads."""
        me = self.user.identity
        coordinator = Coordinator(Log(Store("sqlite://"), me.did, me.key), LocalKeys(me, self.known))
        study = self.study(method, **params)
        try:
            coordinator.start(study)
            result = coordinator.run(study.id, [MemoryChannel(gate.me, gate, "t") for gate in self.gates])
        finally:
            coordinator.shutdown()
        assert result is not None
        return result

    def received(self, method: str, **params: Any) -> list[Any]:
        """Have the environment run a study; return everything that reaches its user's node, as JSON values."""
        me, one = self.user.identity.did, self.runner
        environment = Environment(
            one.did, Log(Store("sqlite://"), one.did, one.key), LocalKeys(one, self.known), Outside(self)
        )
        identifier, purpose = self._new_id(), self.permit.purpose
        signed = self.user.sign(asked(identifier, self.permit.id, purpose, method, params))
        ways: dict[str, str] = {gate.me: "t" for gate in self.gates}
        request = Request(identifier, self.permit.id, purpose, method, params, signed, ways)
        answers: list[Any] = []
        try:
            while not answers or answers[-1]["status"] == RunState.RUNNING:
                told = environment.told(me, identifier, 0) if answers else environment.submit(me, request)
                answers.append(json.loads(json.dumps(told)))
                time.sleep(0.005)
        finally:
            environment.shutdown()
        return answers

    def begin(self, study: Study) -> dict[str, str]:
        """Open a study at all gates and tell them one another's mask keys; return these."""
        signed = self.user.sign({"study": study.to_dict()})
        announced: dict[str, str] = {gate.me: gate.open(signed, "t") for gate in self.gates}
        for gate in self.gates:
            gate.join(study.id, "t", announced)
        return announced

    def model(self, study: Study) -> Sums:
        """Return our own coordinator's side of a study's secure sums."""
        if study.id not in self._models:
            channels: dict[str, Channel] = {gate.me: MemoryChannel(gate.me, gate, "t") for gate in self.gates}
            asking = Asking(study, self.user, self._calls, channels, Progress(0, study.holders))
            self._models[study.id] = sums(asking)
        return self._models[study.id]

    def asked(self, study: Study, state: PlanState, present: tuple[str, ...] = ()) -> bytes:
        """Return a signed round."""
        claims = {"study": study.id, "permit": study.permit, "round": state.rounds, "attempt": state.rounds}
        return self.signed({**claims, "present": list(present or study.holders)}, state)

    def signed(self, claims: dict[str, Any], state: PlanState) -> bytes:
        """Return a round with claims of the attacker's choice."""
        data = pack(state)
        return pack(Round(self.user.sign({**claims, "state": sha256(data)}), np.frombuffer(data, dtype=np.uint8)))

    def replies(self, study: Study, state: PlanState) -> list[Reply]:
        """Return the masked replies as they reach the user, by holder; a round asked again gets the same."""
        return [self.reply(study, state, site) for site in range(len(self.gates))]

    def reply(self, study: Study, state: PlanState, site: int) -> Reply:
        """Return one holder's masked reply."""
        return unpack(Reply, self.gates[site].answer(study.id, "t", self.asked(study, state)))

    def opened(self, study: Study, state: PlanState) -> Contribution:
        """Return the opened total, as the user's software holds it before anything is hidden."""
        opened = self.model(study).sum(state.rounds, pack(state))
        return study.plan().total(state, opened.reply.kind, opened.reply.layout, opened.words)

    def rounds(self, study: Study) -> Iterator[tuple[PlanState, list[Reply], Contribution]]:
        """Yield state, replies and total of every round of a study: what its user's software handles."""
        self.begin(study)
        plan, state = study.plan(), study.plan().begin()
        while plan.finish(state) is None:
            replies = self.replies(study, state)
            total = self.opened(study, state)
            yield state, replies, total
            state = plan.aggregate(state, total)

    def plain(self, study: Study, state: PlanState, site: int) -> Any:
        """Return the words a site would send unmasked: the truth that an attacker wants, or knows of its own site."""
        plan = study.plan()
        return plan.flatten(state, plan.work(self.tables[site]).local(state))[1]


def _drawn(rng: np.random.Generator, shares: Shares) -> Words:
    """Draw noise of the same size from a seed, so that a figure is the same in every run."""
    parts = [np.rint(rng.normal(0.0, scale, size)) for size, scale in shares.parts]
    return np.concatenate(parts).astype(np.int64).view(np.uint64)


def recovered(found: Any, truth: pd.DataFrame, columns: tuple[str, ...]) -> float:
    """Return the share of persons all of whose values stand in a row found (k, p), to a thousandth of their spread."""
    persons = truth[list(columns)].to_numpy(dtype=float)
    rows = np.asarray(found, dtype=float).reshape(-1, len(columns))
    near = np.abs(persons[:, None, :] - rows[None, :, :]) <= 1e-3 * persons.std(axis=0)
    return float(near.all(axis=2).any(axis=1).mean())


def same(read: Any, truth: Any) -> float:
    """Return the share of words read that are the true ones."""
    return float(np.mean(np.asarray(read) == np.asarray(truth)))


def area(cases: Any, others: Any) -> float:
    """Return the area under the ROC curve (AUC) of a score."""
    one, two = np.asarray(cases)[:, None], np.asarray(others)[None, :]
    return float(((one > two) + 0.5 * (one == two)).mean())


def reason(error: IhdsError) -> str:
    """Return why gates refused, in their words, without naming one."""
    said = error.reasons[0] if error.reasons else error.message
    return re.sub(r"did:web:attacked:[0-9]+", "a holder", said).removeprefix("a holder: ")


def with_inner(state: PlanState, number: int, inner: Any, /, **changes: Any) -> PlanState:
    """Return a public state with a method's state of the attacker's choice, for a round of that number."""
    chosen = dataclasses.replace(inner, **changes)
    return dataclasses.replace(state, inner=np.frombuffer(pack(chosen), dtype=np.uint8), rounds=number)


def _urn(number: int) -> str:
    return uuid.UUID(int=number, version=4).urn
