"""What an environment takes, tells and keeps; and that gates answer nobody else where a permit names one."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from ihds.attacks.world import Outside, Space, people, shared_out
from ihds.audit.log import Event, Log, now
from ihds.canonical import pack
from ihds.errors import BadInput, BadMessage, NotAuthenticated, NotFound, Refused
from ihds.federation.environment import Environment, Request
from ihds.federation.runs import NEXT, RunState
from ihds.federation.study import Confirm, asked
from ihds.governance.permit import Permit, PermitState, Use, decide
from ihds.ids import Did, StudyId
from ihds.roles.local import LocalKeys
from ihds.store.store import Put, Store
from tests.federation.test_gate import World

FORMULA = "relapse ~ age + bmi + smoker"


@dataclasses.dataclass(frozen=True)
class Shown(Outside):
    """The world of an environment, with the permit as it stands now."""

    room: Room

    def permit(self, identifier: str, user: str) -> tuple[Permit, PermitState]:
        return self.room.permit, self.room.state()


class Room:
    """An environment over three gates, and the user of the permit that names it."""

    def __init__(self) -> None:
        self.space = Space(shared_out(people(90, seed=3), 3), environment=True)
        self.permit, self.looked = self.space.permit, 0
        self.revoked_after = 10**9
        self.me, self.user = self.space.runner, self.space.user.identity.did
        self.log = Log(Store("sqlite://"), self.me.did, self.me.key)
        self.keys = LocalKeys(self.me, self.space.known)
        self.environment = self.made()

    def state(self) -> PermitState:
        self.looked += 1
        return PermitState.REVOKED if self.looked > self.revoked_after else PermitState.GRANTED

    def made(self) -> Environment:
        return Environment(self.me.did, self.log, self.keys, Shown(self.space, self))

    def request(self, **changes) -> Request:
        question = {
            "permit": self.space.permit.id,
            "purpose": "scientific_research",
            "method": "glm",
            "params": {"formula": FORMULA, "family": "binomial"},
        } | {k: changes.pop(k) for k in ("permit", "purpose", "method", "params") if k in changes}
        identifier = changes.pop("study", None) or StudyId.new()
        signed = self.space.user.sign(asked(identifier, **question))
        ways = {gate.me: "t" for gate in self.space.gates}
        return Request(**{"study": identifier, **question, "asked": signed, "ways": ways, **changes})

    def ended(self, study: str) -> dict:
        while True:
            told = self.environment.told(self.user, study, 0)
            if told["status"] != RunState.RUNNING and not self.environment.runs.busy(study):
                return told
            time.sleep(0.01)


@pytest.fixture
def room():
    made = Room()
    yield made
    made.environment.shutdown()


def test_a_user_gets_rounds_kinds_and_sizes_and_then_the_signed_result(room):
    request = room.request()
    room.environment.submit(room.user, request)
    told = room.ended(request.study)
    assert set(told) == {"study", "status", "error", "rounds", "definition", "result", "signature"}
    assert {name for row in told["rounds"] for name in row} == {"round", "contribution", "bytes"}
    assert told["result"]["n"] == 90
    claims = room.space.user.verify(told["signature"], room.me.did)
    assert claims["study"] == request.study
    assert room.environment.told(room.user, request.study, len(told["rounds"]))["rounds"] == []


def test_nothing_is_left_when_the_result_was_received(room):
    request = room.request()
    room.environment.submit(room.user, request)
    room.ended(request.study)
    assert room.log.get("study", request.study).body["state"] == ""
    assert "ways" not in room.log.get("study.request", request.study).body
    assert room.environment.end(room.user, request.study)["status"] == "delivered"
    assert room.log.get("study", request.study) is None
    assert room.environment.submit(room.user, request)["status"] == "delivered"


def test_a_state_lies_sealed_in_the_database(room):
    request = room.request(max_rounds=3)
    room.environment.submit(room.user, request)
    assert room.ended(request.study)["status"] == "paused"
    body = room.log.get("study", request.study).body
    assert room.keys.unseal(body["state"])[:4] not in body["state"].encode()
    assert b"smoker" in room.keys.unseal(body["state"])
    ways = room.log.get("study.request", request.study).body["ways"]
    assert json.loads(room.keys.unseal(ways)) == request.ways


def test_a_request_sent_again_is_the_same_study_and_a_paused_one_goes_on(room):
    request = room.request(max_rounds=2)
    room.environment.submit(room.user, request)
    assert len(room.ended(request.study)["rounds"]) == 2
    room.environment.submit(room.user, dataclasses.replace(request, max_rounds=None))
    finished = room.ended(request.study)
    assert [row["round"] for row in finished["rounds"]] == list(range(len(finished["rounds"])))
    again = room.environment.submit(room.user, request)
    assert (again["status"], again["result"]) == ("finished", finished["result"])


def test_an_id_is_not_used_for_a_second_question(room):
    request = room.request(max_rounds=1)
    room.environment.submit(room.user, request)
    room.ended(request.study)
    other = room.request(study=request.study, params={"formula": "relapse ~ age", "family": "binomial"})
    with pytest.raises(Refused, match="in use for another study"):
        room.environment.submit(room.user, other)


def test_only_its_user_follows_or_ends_a_study(room):
    request = room.request(max_rounds=1)
    room.environment.submit(room.user, request)
    room.ended(request.study)
    stranger = room.space.gates[0].me
    with pytest.raises(NotFound):
        room.environment.told(stranger, request.study, 0)
    with pytest.raises(NotFound):
        room.environment.end(stranger, request.study)
    with pytest.raises(Refused, match="R-73-NOT-LISTED"):
        room.environment.submit(stranger, room.request())


def test_what_the_user_did_not_sign_is_not_asked(room):
    signed = room.request()
    forged = dataclasses.replace(signed, params={"formula": "relapse ~ age", "family": "binomial"})
    with pytest.raises(NotAuthenticated, match="another study"):
        room.environment.submit(room.user, forged)
    other = room.keys.sign(asked(signed.study, **signed.question()))
    with pytest.raises(NotAuthenticated, match="does not verify"):
        room.environment.submit(room.user, dataclasses.replace(signed, asked=other))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"purpose": "education"}, "R-53-PURPOSE"),
        ({"method": "nonsense"}, "FCR-4"),
    ],
)
def test_what_the_permit_does_not_allow_is_refused_before_a_holder_is_asked(room, change, reason):
    with pytest.raises(Refused) as caught:
        room.environment.submit(room.user, room.request(**change))
    assert reason in str(caught.value.reasons)
    assert not room.space.gates[0].log.store.list("gate.study")


def test_the_permit_must_name_this_environment_and_all_its_holders_are_asked(room):
    room.permit = dataclasses.replace(room.permit, environment=Did("did:web:elsewhere"))
    with pytest.raises(Refused) as caught:
        room.environment.submit(room.user, room.request())
    assert "did:web:elsewhere" in str(caught.value.reasons)
    room.permit = room.space.permit
    some = {gate.me: "t" for gate in room.space.gates[:2]}
    with pytest.raises(Refused, match="all of them"):
        room.environment.submit(room.user, room.request(ways=some))


def test_a_permit_revoked_between_two_rounds_ends_the_study_without_a_result(room):
    request = room.request(max_rounds=3)
    room.environment.submit(room.user, request)
    room.ended(request.study)
    room.revoked_after = 0
    with pytest.raises(Refused, match="refuses"):
        room.environment.submit(room.user, request)
    room.revoked_after = room.looked + 4
    room.environment.submit(room.user, dataclasses.replace(request, max_rounds=None))
    told = room.ended(request.study)
    assert (told["status"], told["result"]) == ("failed", None)
    assert "REVOKED" in str(told["error"])
    assert room.log.get("study", request.study).body["state"] == ""


def test_an_expired_permit_is_refused(room):
    room.permit = dataclasses.replace(room.permit, expires_at=now())
    with pytest.raises(Refused) as caught:
        room.environment.submit(room.user, room.request())
    assert "R-73-OUT-OF-PERIOD" in str(caught.value.reasons)


def test_a_cancelled_study_is_forgotten_and_does_not_go_on(room):
    request = room.request(max_rounds=2)
    room.environment.submit(room.user, request)
    room.ended(request.study)
    assert room.environment.end(room.user, request.study)["status"] == "cancelled"
    assert room.environment.end(room.user, request.study)["status"] == "cancelled"
    assert room.log.get("study", request.study) is None
    assert room.environment.submit(room.user, request)["status"] == "cancelled"


def test_a_study_goes_on_in_an_environment_that_was_started_anew(room):
    request = room.request(max_rounds=3)
    room.environment.submit(room.user, request)
    room.ended(request.study)
    record = room.log.get("study.request", request.study)
    running = {**record.body, "status": "running"}  # as a crash leaves it
    event = Event("study.settled", room.user, {"study": request.study})
    room.log.commit(event, Put("study.request", request.study, record.version, running))
    room.environment.shutdown()
    room.environment = room.made()
    room.environment.runs.go_on()
    told = room.ended(request.study)
    assert told["status"] == "finished"
    assert [row["round"] for row in told["rounds"]] == list(range(len(told["rounds"])))


@pytest.mark.parametrize("body", [{}, {"permit": 3}, {"permit": "urn:uuid:x", "params": []}])
def test_a_malformed_request_is_named(body):
    with pytest.raises((BadMessage, BadInput)):
        Request.from_dict(StudyId.new(), body)


def test_every_state_of_a_study_says_what_may_follow():
    assert set(NEXT) == set(RunState)
    assert not NEXT[RunState.CANCELLED]
    assert not NEXT[RunState.DELIVERED]


# -- the gate ----------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    return World(environment=Did("did:web:evil"))


def opened(world: World, signer: str, asked_by: str = "user", **changes):
    study = world.study(environment=world.people["evil"].did)
    shown = dataclasses.replace(study, **changes).asked()
    study = dataclasses.replace(study, word=LocalKeys(world.people[asked_by], world.known).sign(shown))
    signed = LocalKeys(world.people[signer], world.known).sign({"study": study.to_dict()})
    return study, {world.people[n].did: g.open(signed, "t") for n, g in world.gates.items()}


def test_a_study_that_the_environment_signs_and_the_user_asked_for_is_opened(world):
    study, announced = opened(world, "evil")
    for gate in world.gates.values():
        gate.join(study.id, "t", announced)
    state = study.plan().begin()
    assert world.gates["lu"].answer(study.id, "t", world.ask(study, state, signer="evil"))
    with pytest.raises(NotAuthenticated):
        world.gates["kr"].answer(study.id, "t", world.ask(study, state, signer="user"))
    told = {"study": study.id, "permit": study.permit, "attempt": 0, "survivors": list(study.holders)}
    by_user = pack(Confirm(world.user.sign(told), ()))
    with pytest.raises(NotAuthenticated):
        world.gates["lu"].step(study.id, "t", "confirm", by_user)


def test_a_study_names_the_environment_of_its_permit():
    world = World()
    with pytest.raises(Refused) as caught:
        world.open(world.study(environment=world.people["evil"].did))
    assert "another environment than the permit" in str(caught.value.reasons)


def test_a_study_that_the_user_signs_is_refused(world):
    with pytest.raises(NotAuthenticated):
        opened(world, "user")


def test_the_environment_alone_asks_nothing(world):
    with pytest.raises(NotAuthenticated):
        opened(world, "evil", asked_by="evil")
    with pytest.raises(NotAuthenticated, match="another study"):
        opened(world, "evil", params={"formula": "Surv(time, status) ~ 1"})
    signed = LocalKeys(world.people["evil"], world.known).sign({"study": world.study().to_dict()})
    with pytest.raises(NotAuthenticated):
        world.gates["lu"].open(signed, "t")


def test_a_holder_that_asks_for_an_environment_refuses_permits_without():
    world = World()
    gate = dataclasses.replace(world.gates["lu"], in_environment=frozenset({"table"}))
    with pytest.raises(Refused) as caught:
        gate.open(world.user.sign({"study": world.study().to_dict()}), "t")
    assert "the permit names none" in str(caught.value.reasons)


def test_the_law_asks_for_an_environment_of_another_than_user_and_holders():
    permit = World().permit
    use = Use(permit.user, "did:web:lu", "table", permit.purpose, "cox", frozenset(), frozenset())
    for one, reason in (
        (dataclasses.replace(permit, legal_regime="ehds"), "73(1)"),
        (dataclasses.replace(permit, environment=permit.user), "neither the permit's user"),
        (dataclasses.replace(permit, environment=Did("did:web:kr")), "nor one of its holders"),
    ):
        assert reason in str(decide(one, PermitState.GRANTED, use, now()).reasons)
    named = dataclasses.replace(permit, environment=Did("did:web:room"), legal_regime="ehds")
    assert not getattr(decide(named, PermitState.GRANTED, use, now()), "reasons", ())[1:]
    assert Permit.from_dict(named.to_dict()) == named
    assert Permit.from_dict({k: v for k, v in permit.to_dict().items() if k != "environment"}) == permit
