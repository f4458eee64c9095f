"""The committee at its authority: signed acts, one vote per seat, effects when carried and not before."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from ihds import errors
from ihds.audit.log import Event
from ihds.governance.bodies import Motion
from ihds.roles.committee import MotionId
from ihds.roles.config import NodeConfig, free_port
from ihds.roles.node import Node, create
from ihds.store.store import Put
from ihds.wire.did import document
from ihds.wire.jose import SigningKey
from ihds.wire.serve import Call

PEOPLE = {"did:web:a.example": "Ada", "did:web:b.example": "Bo", "did:web:c.example": "Cy"}
SEATS = "".join(
    f'[[steering.seats]]\nmember = "{did}"\nperson = "{person}"\nsince = 2020-01-01\nuntil = {until}\n'
    for (did, person), until in zip(PEOPLE.items(), ("2099-12-31", "2099-12-31", "2099-12-31"), strict=True)
)
PAST = '[[steering.seats]]\nmember = "did:web:a.example"\nperson = "Old"\nsince = 2020-01-01\nuntil = 2020-12-31\n'
CHARTER = (
    'require = ["approve-codebook"]\n[steering]\ntitle = "Joint Steering Committee"\nquorum = "2/3"\n'
    'decides = ["suspend", "reinstate", "approve-codebook", "withdraw-approval", "appoint", "dismiss"]\n' + SEATS + PAST
)
DIGEST = "ab" * 32


class Authority:
    """A real authority in this process, and the keys of three institutions it resolves."""

    def __init__(self, folder):
        port = free_port()
        listed = tuple(f"{did} holder LU" for did in PEOPLE)
        config = NodeConfig("authority", "authority", "LU", f"http://127.0.0.1:{port}", port, charter="charter.toml")
        word = str(folder / "word")
        config = dataclasses.replace(config, authority=config.did, members=listed, passphrase_file=word)
        create(folder / "node", config)
        (folder / "node/charter.toml").write_text(CHARTER)
        self.node = Node(folder / "node")
        self.role = self.node.institution
        self.committee = self.role.committee
        self.committee.found()
        self.keys = {}
        for did in PEOPLE:
            key = self.keys[did] = SigningKey.new(f"{did}#key-1")
            shown = document(did, [(key.kid, key.public_jwk(), True)], {})
            self.node.resolver.known[did] = lambda shown=shown: shown
            claims = {"name": did, "role": "holder", "country": "LU", "signed": ""}
            self.role._register(did, claims, None)
            self.role.decide_member(did, "admit", "founder")

    def act(self, did, act, motion, *, key=None, **claims):
        body = {"iss": did, "aud": self.node.did, "iat": int(time.time()), "act": act, "motion": motion}
        token = (key or self.keys[did]).sign_jwt({**body, "person": PEOPLE[did], **claims})
        call = Call("POST", {}, {}, {}, json.dumps({"act": token}).encode(), "")
        return self.committee._act(call).body

    def propose(self, matter, subject, did="did:web:a.example", **claims):
        motion = MotionId.new()
        return self.act(did, "propose", motion, body="steering", matter=matter, subject=subject, **claims)["motion"]

    def vote(self, motion, did, choice, **claims):
        text = Motion.from_dict(motion).digest()
        return self.act(did, "vote", motion["id"], **{"choice": choice, "digest": text, **claims})

    def state(self, did):
        return next(m["state"] for m in self.role.members() if m["did"] == did)


A, B, C = PEOPLE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("committee"))
    yield authority
    authority.node.store.close()


def test_what_a_body_decides_is_no_longer_decided_by_hand(made):
    by_hand = made.role.commands()["member.decide"]
    with pytest.raises(errors.Refused, match="the Joint Steering Committee decides this"):
        by_hand({"did": B, "event": "suspend"})
    with pytest.raises(errors.IllegalTransition):  # the charter does not name this: the secretariat still does
        by_hand({"did": B, "event": "reject"})


def test_a_member_added_to_the_configuration_after_the_founding_is_not_admitted_by_it(made):
    assert set(made.role._listed()) == set(PEOPLE)
    object.__setattr__(made.node.config, "members", ("did:web:friend.example holder LU",))
    assert set(made.role._listed()) == set(PEOPLE)


def test_a_suspension_takes_effect_when_carried_and_not_before_in_one_transaction(made):
    motion = made.propose("suspend", C, title="does not answer")
    assert made.vote(motion, A, "yes")["state"] == "OPEN"
    assert made.state(C) == "MEMBER"
    with pytest.raises(errors.Refused, match="recused"):
        made.vote(motion, C, "no")
    assert made.vote(motion, B, "yes")["state"] == "CARRIED"
    assert made.state(C) == "SUSPENDED"
    last = made.node.log.entries()[-1]
    assert (last["kind"], last["details"]["member"], last["details"]["state"]) == ("motion.decided", C, "SUSPENDED")
    second = made.propose("approve-codebook", DIGEST)
    with pytest.raises(errors.Refused, match="has no seat"):
        made.vote(second, C, "yes")
    assert second["electorate"] == [f"{A} Ada", f"{B} Bo"]
    assert made.vote(second, A, "no")["state"] == "OPEN"
    assert made.vote(second, B, "yes")["state"] == "REJECTED", "a tie"
    back = made.propose("reinstate", C)
    made.vote(back, A, "yes")
    assert made.vote(back, B, "yes")["state"] == "CARRIED"
    assert made.state(C) == "MEMBER"


def test_one_vote_per_seat_and_no_other_text_key_person_or_time(made):
    motion = made.propose("approve-codebook", DIGEST)
    made.vote(motion, A, "yes")
    before = len(made.node.log.entries())
    made.vote(motion, A, "yes")  # sent again
    assert len(made.node.log.entries()) == before
    with pytest.raises(errors.Conflict, match="one vote per seat"):
        made.vote(motion, A, "no")
    with pytest.raises(errors.Refused, match="another text"):
        made.vote(motion, B, "yes", digest="0" * 64)
    with pytest.raises(errors.NotAuthenticated):
        made.vote(motion, B, "yes", key=made.keys[A])
    with pytest.raises(errors.NotAuthenticated, match="too long ago"):
        made.vote(motion, B, "yes", iat=int(time.time()) - 3600)
    with pytest.raises(errors.NotAuthenticated, match="another data space"):
        made.vote(motion, B, "yes", aud="did:web:elsewhere")
    with pytest.raises(errors.Refused, match="no seat"):
        made.vote(motion, B, "yes", person="Ada")
    with pytest.raises(errors.Refused, match="no seat"):
        made.vote(motion, A, "yes", person="Old")  # the mandate is over
    with pytest.raises(errors.BadInput, match="no vote"):
        made.vote(motion, B, "perhaps")
    with pytest.raises(errors.Refused, match="only its proposer"):
        made.act(B, "withdraw", motion["id"])
    assert made.committee.published()["approved"] == []
    assert made.vote(motion, B, "yes")["state"] == "CARRIED"
    assert made.committee.published() == {"required": ["approve-codebook"], "approved": [f"approve-codebook {DIGEST}"]}
    with pytest.raises(errors.Refused, match="CARRIED"):
        made.vote(motion, C, "no")
    gone = made.propose("withdraw-approval", f"approve-codebook {DIGEST}")
    for did in (A, B):
        made.vote(gone, did, "yes")
    assert made.committee.published()["approved"] == []


def test_what_could_never_take_effect_is_not_voted_on(made):
    for matter, subject, why in (
        ("suspend", "did:web:stranger.example", errors.NotFound),
        ("reinstate", A, errors.IllegalTransition),
        ("approve-codebook", "bladder 3", errors.BadInput),
        ("withdraw-approval", "approve-codebook x", errors.NotFound),
        ("expel", B, errors.Refused),
        ("appoint", "steering nobody", errors.BadInput),
        ("dismiss", f"steering {A} Nobody", errors.BadInput),
        ("suspend", "not a did", errors.BadInput),
    ):
        with pytest.raises(why):
            made.propose(matter, subject)
    with pytest.raises(errors.BadInput, match="1 to 90 days"):
        made.propose("suspend", B, days=0)


def test_two_motions_on_one_thing_the_second_is_void(made):
    first, second = made.propose("suspend", C), made.propose("suspend", C)
    for motion in (first, second):
        made.vote(motion, A, "yes")
    assert made.vote(first, B, "yes")["state"] == "CARRIED"
    last = made.vote(second, B, "yes")
    assert (last["state"], last["reason"]) == ("VOID", "the membership is SUSPENDED; suspend does not fit")
    made.role.decide_member(C, "reinstate", "for the next test")


def test_seats_are_filled_and_emptied_by_motion(made):
    motion = made.propose("appoint", f"steering {B} 2020-01-01 2099-12-31 Dee")
    for did in (A, B):
        made.vote(motion, did, "yes")
    assert f"{B} Dee" in {s.key for s in made.committee.body("steering").seats}
    assert motion["electorate"] == [f"{d} {p}" for d, p in PEOPLE.items()], "who sits later does not vote on it"
    motion = made.propose("dismiss", f"steering {B} Dee")
    made.vote(motion, A, "yes")
    made.vote(motion, B, "yes")
    assert made.vote(motion, C, "yes")["state"] == "CARRIED"
    assert f"{B} Dee" not in {s.key for s in made.committee.body("steering").seats}


def test_a_motion_ends_when_its_time_is_over_and_counts_then(made):
    carried, lapsed = made.propose("approve-codebook", DIGEST), made.propose("suspend", C)
    made.vote(carried, A, "yes")
    assert made.vote(carried, B, "abstain")["state"] == "OPEN"
    made.vote(lapsed, A, "yes")
    for motion in (carried, lapsed):
        record = made.node.log.get("motion", motion["id"])
        body = {**record.body, "motion": {**record.body["motion"], "closes_at": "2021-01-01T00:00:00+00:00"}}
        made.node.log.commit(Event("motion.opened", A, {}), Put("motion", record.id, record.version, body))
    assert made.committee.published()["approved"] == []
    made.committee.settle()
    assert made.committee.published()["approved"] == [f"approve-codebook {DIGEST}"]
    assert made.node.log.get("motion", lapsed["id"]).body["state"] == "LAPSED"
    assert made.state(C) == "MEMBER"


def test_a_charter_that_says_nonsense_stops_the_start(made, tmp_path):
    (made.node.folder / "charter.toml").write_text('require = ["approve-everything"]\n')
    record = made.node.log.get("charter", "current")
    made.node.log.commit(Event("charter.founded", A, {}), Put("charter", "current", record.version, None))
    with pytest.raises(errors.SetupFailed, match="approve-everything"):
        made.committee.found()
