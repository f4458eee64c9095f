"""Attacks on the gate: each would succeed without the step it tests."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ihds.analysis.plan import PlanState
from ihds.audit.log import Log, now
from ihds.canonical import pack, sha256, unpack
from ihds.connector.dcp.tokens import Identity
from ihds.data.source import FrameSource
from ihds.data.table import draft_codebook, read_table
from ihds.errors import BadMessage, IhdsError, NotAuthenticated, Refused, SiteMissing
from ihds.federation.calls import Calls
from ihds.federation.channel import MemoryChannel
from ihds.federation.gate import Gate, Grant
from ihds.federation.study import Reply, Round, Study
from ihds.federation.sums import Asking, Progress, sums
from ihds.governance.jurisdiction import evidence_terms
from ihds.governance.permit import Permit, PermitState
from ihds.ids import ApplicationId, Did, PermitId, StudyId
from ihds.privacy.disclosure import Thresholds
from ihds.roles.local import LocalKeys
from ihds.store.store import Store
from ihds.wire.jose import SigningKey
from ihds.wire.keys import Sealing

FORMULA = "Surv(time, status) ~ age"


class Grants:
    def __init__(self, permit: Permit) -> None:
        self.permit, self.state = permit, PermitState.GRANTED

    def in_force(self, transfer: str) -> Grant:
        return Grant(self.permit, self.state, "table", "agreement")


class World:
    """Three gates and a user who may be evil."""

    def __init__(self, **permit_changes) -> None:
        self.names = ["lu", "kr", "us"]
        self.people = {
            n: Identity(Did(f"did:web:{n}"), SigningKey.new(f"did:web:{n}#k")) for n in [*self.names, "user", "evil"]
        }
        self.known = {i.did: i.key.public_jwk() for i in self.people.values()}
        rng = np.random.default_rng(0)
        frame = read_table(
            pd.DataFrame(
                {
                    "time": rng.integers(1, 400, 90),
                    "status": rng.integers(0, 2, 90),
                    "age": rng.normal(60, 8, 90),
                    "secret": rng.normal(0, 1, 90),
                }
            )
        )
        self.book = draft_codebook("t", frame)
        at = now()
        values = {
            "id": PermitId.new(),
            "application": ApplicationId.new(),
            "access_body": Did("did:web:hdab"),
            "user": self.people["user"].did,
            "legal_regime": "contract",
            "purpose": "scientific_research",
            "datasets": tuple((self.people[n].did, "table") for n in self.names),
            "variables": frozenset({"time", "status", "age"}),
            "methods": frozenset({"cox"}),
            "persons": (),
            "recipient_country": "LU",
            "thresholds": Thresholds(),
            "max_rounds": 50,
            "issued_at": at.replace(year=at.year - 1),
            "expires_at": at.replace(year=at.year + 1),
            "status_index": 0,
        }
        user = self.people["user"].did
        self.attested = tuple(f"{n} {user}" if t.of_recipient else n for n, t in evidence_terms().items())
        self.sealing = Sealing()
        self.permit = Permit(**{**values, **permit_changes})
        self.grants = Grants(self.permit)
        self.gates, self.logs, self.frames = {}, {}, {}
        for i, (name, country) in enumerate(zip(self.names, ("LU", "KR", "US"), strict=True)):
            who = self.people[name]
            self.frames[name] = frame.iloc[i::3].reset_index(drop=True)
            self.logs[name] = Log(Store("sqlite://"), who.did, who.key)
            self.gates[name] = self.make_gate(name, country)
        self.user = LocalKeys(self.people["user"], self.known)
        self.calls, self.models = Calls(), {}

    def make_gate(self, name: str, country: str) -> Gate:
        who = self.people[name]
        source = FrameSource("table", self.frames[name], self.book)
        keys = LocalKeys(who, self.known, self.sealing)  # a gate made anew is the same site
        attested = {"table": self.attested}
        return Gate(who.did, country, source, self.logs[name], self.grants, keys, attested=attested)

    def study(self, **changes) -> Study:
        values = {
            "id": StudyId.new(),
            "permit": self.permit.id,
            "user": self.people["user"].did,
            "purpose": "scientific_research",
            "method": "cox",
            "params": {"formula": FORMULA},
            "codebook": self.book.to_dict(),
            "thresholds": Thresholds(),
            "holders": tuple(self.people[n].did for n in self.names),
        }
        return Study(**{**values, **changes})

    def open(self, study: Study) -> dict[str, str]:
        signed = self.user.sign({"study": study.to_dict()})
        return {self.people[n].did: g.open(signed, "t") for n, g in self.gates.items()}

    def begin(self, study: Study) -> None:
        announced = self.open(study)
        for gate in self.gates.values():
            gate.join(study.id, "t", announced)

    def ask(self, study: Study, state: PlanState, signer: str = "user", number: int | None = None) -> bytes:
        data = pack(state)
        number = state.rounds if number is None else number
        claims = {"study": study.id, "permit": study.permit, "round": number, "attempt": number, "state": sha256(data)}
        signature = LocalKeys(self.people[signer], self.known).sign({**claims, "present": list(study.holders)})
        return pack(Round(signature, np.frombuffer(data, dtype=np.uint8)))

    def asking(self, study: Study) -> Asking:
        channels = {gate.me: MemoryChannel(gate.me, gate, "t") for gate in self.gates.values()}
        return Asking(study, self.user, self.calls, channels, Progress(0, study.holders))

    def sum(self, study: Study, state: PlanState) -> PlanState:
        asking = self.asking(study)
        model = self.models.setdefault(study.id, sums(asking))
        model.asking.channels = asking.channels
        opened, plan = model.sum(state.rounds, pack(state)), study.plan()
        return plan.aggregate(state, plan.total(state, opened.reply.kind, opened.reply.layout, opened.words))


@pytest.fixture
def world() -> World:
    return World()


def test_an_honest_study_runs_to_its_result(world):
    study = world.study()
    world.begin(study)
    plan, state = study.plan(), study.plan().begin()
    while plan.finish(state) is None:
        state = world.sum(study, state)
    assert plan.finish(state).n == 90


@pytest.mark.parametrize(
    ("site", "term", "rule"),
    [
        ("lu", "ethics_opinion", "LU-CNER"),
        ("kr", "drb_approval", "KR-BSA"),
        ("us", "safe_harbor", "X13-UPDATE"),
        ("us", "recipient_screened", "US-DSP"),
    ],
)
def test_a_site_without_the_evidence_its_law_asks_for_refuses(world, site, term, rule):
    needed = {"expert_determination", "data_use_agreement"} if term == "safe_harbor" else set()
    world.attested = tuple(t for t in world.attested if t.split()[0] not in {term, *needed})
    with pytest.raises(Refused) as caught:
        world.make_gate(site, site.upper()).open(world.user.sign({"study": world.study().to_dict()}), "t")
    assert [r for r in caught.value.reasons if rule in r and term in r]


def test_what_a_holder_vouches_for_of_one_recipient_opens_nothing_for_another(world):
    world.attested = tuple(t.replace("did:web:user", "did:web:evil") for t in world.attested)
    with pytest.raises(Refused) as caught:
        world.make_gate("us", "US").open(world.user.sign({"study": world.study().to_dict()}), "t")
    assert [r for r in caught.value.reasons if "US-DSP" in r]


def test_one_reply_is_noise_and_shows_nothing_of_the_site(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    reply = unpack(Reply, world.gates["lu"].answer(study.id, "t", world.ask(study, state)))
    plain = study.plan().flatten(state, study.plan().work(world.frames["lu"]).local(state))[1]
    assert not np.any(reply.words == plain)
    assert np.unpackbits(reply.words.view(np.uint8)).mean() == pytest.approx(0.5, abs=0.05)


def test_two_replies_of_three_are_noise_too(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    two = [unpack(Reply, world.gates[n].answer(study.id, "t", world.ask(study, state))).words for n in ("lu", "kr")]
    partial = np.sum(two, axis=0, dtype=np.uint64).view(np.int64)
    assert np.median(np.abs(partial.astype(float))) > 2.0**60


def test_the_same_round_again_gets_the_same_bytes_and_costs_nothing(world):
    study = world.study()
    world.begin(study)
    asked = world.ask(study, study.plan().begin())
    first = world.gates["lu"].answer(study.id, "t", asked)
    entries = len(world.logs["lu"].entries())
    assert world.gates["lu"].answer(study.id, "t", asked) == first
    assert len(world.logs["lu"].entries()) == entries
    world.gates["lu"] = world.make_gate("lu", "LU")  # after a restart
    assert world.gates["lu"].answer(study.id, "t", asked) == first


def test_another_state_under_the_same_round_is_refused(world):
    """Without this, the difference of two replies would show the site's own sums."""
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    world.gates["lu"].answer(study.id, "t", world.ask(study, state))
    other = dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, cells=4096))
    with pytest.raises(Refused, match="another state"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, other))


def test_two_sites_told_different_states_give_noise(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    other = dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, cells=4096))
    states = {"lu": state, "kr": state, "us": other}
    replies = [unpack(Reply, world.gates[n].answer(study.id, "t", world.ask(study, s))) for n, s in states.items()]
    total = np.sum([r.words for r in replies], axis=0, dtype=np.uint64).view(np.int64)
    assert np.median(np.abs(total.astype(float))) > 2.0**60


def test_changed_data_under_the_same_mask_are_refused(world):
    study = world.study()
    world.begin(study)
    asked = world.ask(study, study.plan().begin())
    world.gates["lu"].answer(study.id, "t", asked)
    world.frames["lu"] = world.frames["lu"].iloc[1:].reset_index(drop=True)
    world.gates["lu"] = world.make_gate("lu", "LU")
    with pytest.raises(Refused, match="data changed"):
        world.gates["lu"].answer(study.id, "t", asked)


def test_rounds_follow_one_another(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    with pytest.raises(Refused, match="does not follow"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, state, number=3))


def test_a_round_must_be_signed_by_the_user(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    with pytest.raises(NotAuthenticated):
        world.gates["lu"].answer(study.id, "t", world.ask(study, state, signer="evil"))


def test_a_study_must_be_signed_by_the_permits_user(world):
    study = world.study()
    signed = LocalKeys(world.people["evil"], world.known).sign({"study": study.to_dict()})
    with pytest.raises(NotAuthenticated):
        world.gates["lu"].open(signed, "t")


def test_a_mask_key_that_its_holder_did_not_sign_is_refused(world):
    """Without this, the coordinator could put its own key in a holder's place and unmask the rest."""
    study = world.study()
    announced = world.open(study)
    claims = world.user.verify(announced[world.people["kr"].did], world.people["kr"].did)
    announced[world.people["kr"].did] = LocalKeys(world.people["evil"], world.known).sign(claims)
    with pytest.raises(NotAuthenticated):
        world.gates["lu"].join(study.id, "t", announced)


def test_a_mask_key_of_another_study_is_refused(world):
    one, two = world.study(), world.study()
    other = world.open(one)
    announced = world.open(two)
    announced[world.people["kr"].did] = other[world.people["kr"].did]
    with pytest.raises(NotAuthenticated, match="another study"):
        world.gates["lu"].join(two.id, "t", announced)


def test_invented_holders_are_refused(world):
    """Without this, a user could surround one site with holders of its own."""
    evil = world.people["evil"].did
    study = world.study(holders=(world.people["lu"].did, evil, world.people["user"].did))
    with pytest.raises(Refused, match="refuses") as caught:
        world.open(study)
    assert any("does not name the holder" in r for r in caught.value.reasons)


def test_two_holders_are_refused(world):
    study = world.study(holders=tuple(world.people[n].did for n in ("lu", "kr")))
    with pytest.raises(Refused) as caught:
        world.open(study)
    assert any("min_holders" in r for r in caught.value.reasons)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"purpose": "improving_care"}, "R-53-PURPOSE"),
        ({"method": "glm", "params": {"formula": "age ~ time"}}, "does not name the method"),
        ({"params": {"formula": "Surv(time, status) ~ secret"}}, "does not open secret"),
        ({"thresholds": Thresholds.none()}, "thresholds"),
        ({"params": {"formula": FORMULA, "time_bin": 0.5}}, "min_time_bin: the time bin must be at least"),
        ({"params": {"formula": FORMULA, "time_bin": 30.5}}, "whole multiple"),
        ({"permit": PermitId.new()}, "another permit"),
    ],
)
def test_what_the_permit_does_not_cover_is_refused_with_its_rule(world, change, rule):
    with pytest.raises(Refused) as caught:
        world.open(world.study(**change))
    assert any(rule in r for r in caught.value.reasons), caught.value.reasons
    assert world.logs["lu"].entries() == []


def test_a_revoked_permit_stops_the_next_round(world):
    study = world.study()
    world.begin(study)
    state = world.sum(study, study.plan().begin())
    world.grants.state = PermitState.REVOKED
    for gate in world.gates.values():
        with pytest.raises(Refused) as caught:
            gate.answer(study.id, "t", world.ask(study, state))
        assert any("REVOKED" in r for r in caught.value.reasons)
    assert world.logs["lu"].entries()[-1]["kind"] == "study.refused"


def test_an_expired_permit_is_refused():
    at = now()
    world = World(expires_at=at.replace(year=at.year - 1), issued_at=at.replace(year=at.year - 2))
    with pytest.raises(Refused) as caught:
        world.open(world.study())
    assert any("expired" in r for r in caught.value.reasons)


def test_the_budget_of_rounds_ends():
    world = World(max_rounds=2)
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    for _ in range(2):
        state = world.sum(study, state)
    with pytest.raises(Refused, match="max_rounds"):
        world.sum(study, state)


def test_results_do_not_go_to_a_country_of_concern():
    world = World(recipient_country="RU")
    study = world.study()
    signed = world.user.sign({"study": study.to_dict()})
    with pytest.raises(Refused) as caught:
        world.gates["us"].open(signed, "t")
    assert any("X14" in r for r in caught.value.reasons)


def test_a_finer_time_grid_in_the_state_is_refused(world):
    study = world.study()
    world.begin(study)
    plan, state = study.plan(), study.plan().begin()
    while state.agreement.phase != "done":
        state = world.sum(study, state)
    frame = dataclasses.replace(state.agreement.frame, times=np.arange(400.0), time_bin=1.0)
    evil = dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, frame=frame))
    with pytest.raises(IhdsError, match="answer"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, evil))
    assert plan.finish(state) is None


def test_a_closed_study_has_no_key_and_answers_no_more(world):
    study = world.study()
    world.begin(study)
    world.gates["lu"].close(study.id, "t")
    assert world.logs["lu"].get("gate.study", study.id).body["sums"] == {}
    with pytest.raises(Refused, match="closed"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, study.plan().begin()))
    with pytest.raises(Refused, match="closed"):
        world.gates["lu"].open(world.user.sign({"study": study.to_dict()}), "t")


@pytest.mark.parametrize(
    "body", [b"", b"x" * 40, b"IHDSpack" + bytes(24), pack(Round("x.y.z", np.zeros(3, dtype=np.uint8)))]
)
def test_garbage_is_named_and_changes_nothing(world, body):
    study = world.study()
    world.begin(study)
    before = world.logs["lu"].get("gate.study", study.id)
    with pytest.raises((BadMessage, NotAuthenticated)):
        world.gates["lu"].answer(study.id, "t", body)
    assert world.logs["lu"].get("gate.study", study.id) == before


def test_every_reply_is_in_the_log_with_its_permit(world):
    study = world.study()
    world.begin(study)
    world.sum(study, study.plan().begin())
    answered = [e for e in world.logs["kr"].entries() if e["kind"] == "round.answered"]
    assert len(answered) == 1
    assert answered[0]["details"]["permit"] == world.permit.id
    assert answered[0]["details"]["class"] == "count table"


# -- what an independent attacker found, and what now stands in the way -----------------------------


def agreed_state(world, study):
    state = study.plan().begin()
    while state.agreement.phase != "done":
        state = world.sum(study, state)
    return state


def changed(state, **changes):
    return dataclasses.replace(state, agreement=dataclasses.replace(state.agreement, **changes))


def test_an_error_never_tells_which_site_holds_a_person(world):
    """A term that is infinite for one known person must not make that person's hospital answer otherwise."""
    age = float(world.frames["kr"]["age"].iloc[0])
    study = world.study(params={"formula": f"Surv(time, status) ~ I(1/(age-{age!r}))"})
    world.begin(study)
    state = study.plan().begin()
    for gate in world.gates.values():
        assert gate.answer(study.id, "t", world.ask(study, state))
    with pytest.raises(IhdsError, match="for some persons"):
        world.sum(study, state)


def test_a_value_out_of_range_fails_the_total_not_the_site(world):
    study = world.study()
    world.begin(study)
    state = agreed_state(world, study)
    inner = study.plan().inner(state)
    wild = dataclasses.replace(inner, beta=inner.beta + 1e6)
    evil = dataclasses.replace(state, inner=np.frombuffer(pack(wild), dtype=np.uint8))
    replies = [unpack(Reply, g.answer(study.id, "t", world.ask(study, evil))) for g in world.gates.values()]
    words = np.sum([r.words for r in replies], axis=0, dtype=np.uint64)
    with pytest.raises(IhdsError, match="do not fit"):
        study.plan().total(evil, replies[0].kind, replies[0].layout, words)


def test_a_study_asks_all_holders_of_its_permit():
    """Without this, the same state asked of all and of all but one gives that one's sums."""
    world = World()
    extra = (Did("did:web:fourth"), "table")
    world.grants.permit = dataclasses.replace(world.permit, datasets=(*world.permit.datasets, extra))
    with pytest.raises(Refused) as caught:
        world.open(world.study())
    assert any("all holders of its permit" in r for r in caught.value.reasons)


def test_a_holder_may_not_stand_twice(world):
    holders = tuple(world.people[n].did for n in world.names)
    with pytest.raises(Refused) as caught:
        world.open(world.study(holders=holders * 2))
    assert any("stand twice" in r for r in caught.value.reasons)


def test_exact_times_cannot_be_asked_for_by_the_phase(world):
    study = world.study()
    world.begin(study)
    state = world.sum(study, study.plan().begin())
    with pytest.raises(Refused) as caught:
        world.gates["lu"].answer(study.id, "t", world.ask(study, changed(state, phase="times")))
    assert any("exact times" in r for r in caught.value.reasons)


def test_time_cannot_be_stretched_past_the_grid(world):
    with pytest.raises(Refused) as caught:
        world.open(world.study(params={"formula": "Surv(time*1000, status) ~ age", "time_bin": 1.0}))
    assert any("plain column" in r for r in caught.value.reasons)


@pytest.mark.parametrize("levels", [{"age": ("60.1", "60.2")}, {"secret": ("x",)}])
def test_levels_cannot_be_invented(world, levels):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    frame = dataclasses.replace(state.agreement.frame, levels=levels)
    with pytest.raises(Refused) as caught:
        world.gates["lu"].answer(study.id, "t", world.ask(study, changed(state, levels=levels, frame=frame)))
    assert any("codebook" in r for r in caught.value.reasons)


def test_the_agreement_cannot_be_skipped_or_changed_afterwards(world):
    study = world.study()
    world.begin(study)
    state = study.plan().begin()
    with pytest.raises(Refused, match="answer"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, changed(state, phase="done")))
    done = agreed_state(world, study)
    later = world.sum(study, done)
    frame = dataclasses.replace(later.agreement.frame, scale=later.agreement.frame.scale * 2)
    with pytest.raises(Refused) as caught:
        world.gates["lu"].answer(study.id, "t", world.ask(study, changed(later, frame=frame)))
    assert any("does not change afterwards" in r for r in caught.value.reasons)


def test_the_length_of_an_answer_does_not_depend_on_rows():
    """strata(site) with the phase of pooled risk sets would show the number of event times in clear."""
    world = World()
    study = world.study(params={"formula": FORMULA + " + strata(site)"})
    world.begin(study)
    state = agreed_state(world, study)
    inner = dataclasses.replace(study.plan().inner(state), phase="sums")
    evil = dataclasses.replace(state, inner=np.frombuffer(pack(inner), dtype=np.uint8))
    with pytest.raises(IhdsError, match="could not compute"):
        world.gates["lu"].answer(study.id, "t", world.ask(study, evil))


def test_the_user_may_not_be_a_holder(world):
    holders = (*(world.people[n].did for n in ("lu", "kr")), world.people["user"].did)
    with pytest.raises(Refused):
        world.open(world.study(holders=holders))


def test_a_mask_key_without_a_secret_is_refused_before_it_is_kept(world):
    study = world.study()
    announced = world.open(study)
    kr = world.people["kr"]
    claims = {"sub": kr.did, "study": study.digest(), "maskKey": "00" * 32, "shareKey": "11" * 32}
    announced[kr.did] = LocalKeys(kr, world.known).sign(claims)
    with pytest.raises(BadMessage, match="cannot be used"):
        world.gates["lu"].join(study.id, "t", announced)
    assert world.logs["lu"].get("gate.study", study.id).body["joined"] is False


def test_a_revocation_noticed_inside_a_round_does_not_block_the_gate(world):
    """The holder terminates the transfer from inside in_force, which closes the study at the same gate."""
    study = world.study()
    world.begin(study)
    gate = world.gates["lu"]

    class Revoking:
        def in_force(self, transfer):
            gate.close(study.id, transfer)
            raise Refused("the permit was revoked")

    gate.grants = Revoking()
    with pytest.raises(Refused, match="revoked"):
        gate.answer(study.id, "t", world.ask(study, study.plan().begin()))


def test_a_study_waits_until_a_person_of_the_holder_approves_it(world):
    study = world.study()
    gate = world.gates["kr"]
    gate.by_hand = frozenset({"table"})
    for _ in range(2):
        with pytest.raises(SiteMissing, match="has yet to approve"):
            world.open(study)
    kinds = [json.loads(e)["kind"] for e in world.logs["kr"].store.read()]
    assert kinds.count("study.asked") == 1
    assert "study.opened" not in kinds
    gate.approve(study.id)
    gate.approve(study.id)
    world.begin(study)
    world.sum(study, study.plan().begin())
    kinds = [json.loads(e)["kind"] for e in world.logs["kr"].store.read()]
    assert kinds.count("study.approved") == 1


def test_no_round_is_answered_before_approval(world):
    study = world.study()
    world.gates["kr"].by_hand = frozenset({"table"})
    with pytest.raises(SiteMissing):
        world.open(study)
    others = {
        world.people[n].did: world.gates[n].open(world.user.sign({"study": study.to_dict()}), "t") for n in ("lu", "us")
    }
    forged = {**others, world.people["kr"].did: others[world.people["lu"].did]}
    with pytest.raises(IhdsError):
        world.gates["kr"].join(study.id, "t", forged)
    with pytest.raises(IhdsError):
        world.gates["kr"].answer(study.id, "t", world.ask(study, study.plan().begin()))


def test_the_holder_sees_in_words_what_would_leave_and_nothing_is_written(world):
    study = world.study()
    world.begin(study)
    before = len(list(world.logs["lu"].store.read()))
    seen = world.gates["lu"].preview(study.id)
    assert len(list(world.logs["lu"].store.read())) == before
    assert (seen.method, seen.persons, seen.variables) == ("cox", 30, ("age", "status", "time"))
    assert [part.contribution for part in seen.leaving][:2] == ["Dictionary", "Moments"]
    state, sizes = study.plan().begin(), {}
    for _ in range(3):
        reply = unpack(Reply, world.gates["lu"].answer(study.id, "t", world.ask(study, state)))
        sizes[reply.kind] = len(reply.words) - 1
        state = world.sum(study, state)
    told = {part.contribution: part.numbers for part in seen.leaving}
    assert all(told[kind] == size for kind, size in sizes.items() if kind in ("Dictionary", "Moments"))
    assert "secret" not in str(seen.to_dict())


def test_a_preview_says_what_this_site_would_refuse(world):
    limits = Thresholds(min_site_persons=31)
    plan = world.study().plan()
    seen = world.gates["lu"].preview_of(plan, "table", world.permit.variables, limits)
    assert seen.refused == ("min_site_persons: a site needs 31 persons to take part",)
    assert seen.leaving
    alone = world.gates["lu"].preview_of(plan, "table", world.permit.variables, Thresholds(min_residual_dof=100))
    assert "min_residual_dof" in alone.alone
    assert not alone.refused
    with pytest.raises(Refused):
        world.gates["lu"].preview_of(plan, "table", frozenset({"time", "secret"}), limits)
