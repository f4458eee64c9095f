"""People at a node: each acts in its own name, in its duty, once; the table of rights is whole."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ihds.audit.log import Event
from ihds.errors import BadInput, IhdsError, NotAuthenticated, Refused
from ihds.governance.duties import FOUR_EYES, SEPARATE, Actor, Role, taken_on
from ihds.governance.policy import Granted
from ihds.governance.rights import ADMINISTRATION, ANY, BESIDE, COMMANDS, DUTIES, MOVING, allows, may, rights, who
from ihds.ids import Did
from ihds.people.proofs import proof
from ihds.roles import officers
from ihds.roles.config import NodeConfig
from ihds.roles.node import Node, create
from ihds.store.store import Put
from ihds.wire.jose import SigningKey, read_unverified
from tests.governance.test_cases import ASSESSOR, OFFICER, Body
from tests.governance.test_governance import make_application
from tests.people.test_passports import Members, make_permit
from tests.people.world import CLIENT, ISSUER, NODE, PASSWORD, Desk

# -- the table -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", sorted(DUTIES))
def test_every_command_of_a_node_is_somebodys_or_the_administrators(role, tmp_path, monkeypatch):
    monkeypatch.setenv("IHDS_PASSPHRASE", "word")
    create(tmp_path / "n", NodeConfig("n", role, "LU", "http://127.0.0.1:7", 7))
    node = Node(tmp_path / "n")
    commands = {**node.institution.commands(), **node._own_commands()}
    node.store.close()
    assert set(commands) <= set(COMMANDS) | ADMINISTRATION
    assert not set(COMMANDS) & ADMINISTRATION
    given = frozenset(DUTIES[role])
    idle = [c for c in commands if c in COMMANDS and not COMMANDS[c].roles & given]
    assert idle == [], "a command that no account of this institution could give"


def test_the_table_is_total_and_grants_nothing_beside_its_rows():
    rows = {(r.noun, r.state, r.action): r.role for r in rights() if r.state != ANY}
    assert len(rows) == sum(len(row) for steps in MOVING.values() for row in steps.values())
    for noun, steps in MOVING.items():
        actions = {str(a) for row in steps.values() for a in row}
        for state in map(str, steps):
            for action in actions:
                for role in Role:
                    allowed = isinstance(may({role}, noun, action, state), Granted)
                    assert allowed == (rows.get((noun, state, action)) == role)
    for noun, acts in BESIDE.items():
        for action, roles in acts.items():
            assert {r for r in Role if isinstance(may({r}, noun, action), Granted)} == roles != set()
    assert who("case", "no such thing") == who("nothing", "assess") == frozenset()


@given(st.sampled_from([*sorted(COMMANDS), *sorted(ADMINISTRATION), "no.such"]), st.frozensets(st.sampled_from(Role)))
def test_a_command_is_given_by_those_the_table_names_and_a_refusal_names_them(command, roles):
    named = COMMANDS[command].roles if command in COMMANDS else frozenset()
    verdict = allows(roles, command)
    assert isinstance(verdict, Granted) == bool(named & roles)
    if not isinstance(verdict, Granted):
        wanted = named or {"administrator"}
        assert all(str(role) in verdict.reasons[0] for role in wanted)


# -- duties in a project -------------------------------------------------------------------------------


class Duties(RuleBasedStateMachine):
    """Whoever has whatever duties, in whatever order they act: nobody ends with two separate ones in a project."""

    @initialize()
    def begin(self):
        self.body = Body()
        self.cases = [self.body.apply() for _ in range(2)]

    actors = st.builds(
        Actor,
        st.sampled_from(["A", "B", "A again"]),
        st.frozensets(st.sampled_from(sorted(SEPARATE | FOUR_EYES)), min_size=1),
        st.sampled_from(["https://login#1", "https://login#2"]),
    )

    def tried(self, act):
        with contextlib.suppress(IhdsError):
            act()

    @rule(actor=actors, case=st.integers(0, 1), role=st.sampled_from(sorted(SEPARATE | FOUR_EYES)))
    def assign(self, actor, case, role):
        self.tried(lambda: self.body.cases.assign(self.cases[case], actor, role))

    @rule(actor=actors, case=st.integers(0, 1))
    def assess(self, actor, case):
        self.tried(lambda: self.body.grants.assess(self.cases[case], actor, "all", "yes", "why"))

    @rule(actor=actors, case=st.integers(0, 1))
    def tell_fees(self, actor, case):
        self.tried(lambda: self.body.grants.fee_notice(self.cases[case], actor))

    @rule(actor=actors, case=st.integers(0, 1))
    def grant(self, actor, case):
        self.tried(lambda: self.body.grants.grant(self.cases[case], actor, {}))

    @rule(actor=actors, case=st.integers(0, 1))
    def amend(self, actor, case):
        permit = self.body.cases.record(self.cases[case]).body["permit"]
        if permit:
            self.tried(lambda: self.body.grants.assess(self.body.amend(permit, "persons"), actor, "all", "yes", "why"))

    @invariant()
    def nobody_holds_two(self):
        for record in self.body.log.store.list("project"):
            for roles in record.body["duties"].values():
                held = set(map(Role, roles))
                assert len(held & SEPARATE) <= 1
                assert not held >= FOUR_EYES


Duties.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestDuties = Duties.TestCase


def test_an_account_under_another_name_is_still_the_same_person():
    body = Body()
    case = body.apply()
    both = frozenset({Role.ASSESSOR, Role.REVIEWER, Role.OFFICER})
    body.grants.assess(case, Actor("A", both, "https://login#1"), "all", "yes", "why")
    for name in ("A", "A under another name"):
        for role in (Role.REVIEWER, Role.OFFICER):
            with pytest.raises(Refused, match="separate duties"):
                body.cases.assign(case, Actor(name, both, "https://login#1"), role)
    body.cases.assign(case, Actor("B", both, "https://login#2"), Role.REVIEWER)


def test_what_an_account_did_before_its_person_signed_in_counts():
    before = {"A": frozenset({Role.ASSESSOR}), "https://login#2": frozenset({Role.REVIEWER})}
    roles = frozenset(Role)
    assert taken_on(before, Actor("A", roles, "https://login#1"), Role.REVIEWER)
    assert taken_on(before, Actor("C", roles, "https://login#2"), Role.ASSESSOR)
    assert not taken_on(before, Actor("C", roles, "https://login#1"), Role.ASSESSOR)


def test_only_an_officer_excludes():
    with pytest.raises(Refused, match="exclude is for the officer"):
        Body().redress.exclude("did:web:user.example", ASSESSOR, 2, "misuse")


def test_who_assessed_neither_tells_the_fees_nor_decides():
    body = Body()
    case = body.apply()
    both = Actor("A", frozenset({Role.ASSESSOR, Role.OFFICER}))
    body.grants.assess(case, both, "all", "yes", "why")
    for act in (lambda: body.grants.fee_notice(case, both), lambda: body.grants.refuse(case, both, ("no",))):
        with pytest.raises(Refused, match="four eyes"):
            act()
    body.grants.fee_notice(case, OFFICER)
    with pytest.raises(Refused, match="four eyes"):
        body.grants.grant(case, both, {})
    body.grants.grant(case, OFFICER, {})


def test_deletion_is_recorded_by_who_ran_the_environment_and_by_nobody_with_another_duty():
    from datetime import timedelta

    from ihds.governance.permit import Permit

    body = Body()
    permit = body.permit(body.granted())
    held = Permit.from_dict(body.log.get("permit", permit).body["permit"])
    body.at = held.expires_at + timedelta(days=1)
    body.time.look()
    operator = frozenset({Role.ENVIRONMENT})
    with pytest.raises(Refused, match="separate duties"):
        body.publications.deleted(permit, Actor(ASSESSOR.name, operator | ASSESSOR.roles))
    with pytest.raises(Refused, match="for the officer or operator"):
        body.publications.deleted(permit, Actor("R", frozenset({Role.REVIEWER})))
    body.publications.deleted(permit, Actor("E", operator))
    with pytest.raises(Refused, match="separate duties"):
        body.cases.assign(held.application, Actor("E", operator | {Role.REVIEWER}), Role.REVIEWER)


# -- a node with people --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    made = Desk(tmp_path_factory.mktemp("desk"))
    made.anna = made.person("anna", "assessor", name="A. Assessor")
    made.otto = made.person("otto", "officer", "output reviewer", name="O. Officer")
    yield made
    made.close()


def application(desk):
    from ihds.ids import ApplicationId
    from ihds.roles.cases import Asked

    asked = make_application(id=ApplicationId.new(), submitted_at=desk.node.log.clock())
    return desk.node.institution.cases.submit(Asked(asked)).id


def test_what_a_person_does_is_in_its_own_name_and_says_who_it_is(desk):
    case = application(desk)
    words = {"id": case, "question": "all", "answer": "yes", "because": "why"}
    desk.anna.call("permit.assess", **words, by="O. Officer")
    told = desk.anna.session.whoami()
    assert {v["assessor"] for v in desk.admin.call("permit.show", id=case)["verdicts"].values()} == {"A. Assessor"}
    event = [e for e in desk.node.log.entries() if e["kind"] == "application.assessed"][-1]["details"]
    assert event["signed_in"] == {"issuer": ISSUER, "subject": told["subject"]}
    held = desk.node.log.get("project", case).body["duties"]
    assert held == {f"{ISSUER}#{told['subject']}": ["assessor"]}
    assert officers.acting.get() is None


def test_a_person_does_what_its_duty_allows_and_a_refusal_names_the_duty(desk):
    case = application(desk)
    with pytest.raises(Refused, match="permit.decide is for the officer"):
        desk.anna.call("permit.decide", id=case, grant=True)
    with pytest.raises(Refused, match="permit.assess is for the assessor"):
        desk.otto.call("permit.assess", id=case, question="all", answer="yes", because="why")
    for command in ("officer.add", "key.rotate", "joint.sign"):
        with pytest.raises(Refused, match="administrator"):
            desk.otto.call(command)
    assert desk.anna.call("permit.list")


def test_the_nodes_key_administers_and_does_nothing_that_a_person_answers_for(desk):
    case = application(desk)
    for command in ("permit.assess", "permit.decide", "permit.revoke", "officer.assign", "citizen.status"):
        with pytest.raises(Refused, match="by a person who signed in"):
            desk.admin.call(command, id=case, by="O. Officer", question="all", answer="yes", because="why")
    assert desk.admin.call("permit.show", id=case)
    with pytest.raises(BadInput, match="needs subject"):
        desk.admin.call("officer.add", name="nobody", roles=["assessor"])
    with pytest.raises(NotAuthenticated):
        dataclasses.replace(desk.admin, key="").call("permit.list")


def test_one_person_has_one_account_and_keeps_its_duties_under_another_name(desk):
    subject = desk.anna.session.whoami()["subject"]
    with pytest.raises(BadInput, match="has an account: 'A. Assessor'"):
        desk.admin.call("officer.add", name="Somebody Else", roles=["output reviewer"], subject=subject)
    ben = desk.person("ben", "assessor", name="Ben")
    case = application(desk)
    ben.call("permit.assess", id=case, question="all", answer="yes", because="why")
    desk.admin.call("officer.remove", name="Ben")
    with pytest.raises(Refused, match="no account"):  # the session is open, the account is not
        ben.call("permit.list")
    again = ben.config and next(a for a in desk.provider.accounts.list() if a["user"] == "ben")["subject"]
    desk.admin.call("officer.add", name="Benjamin", roles=["output reviewer"], subject=again)
    with pytest.raises(Refused, match="separate duties"):
        desk.otto.call("officer.assign", id=case, name="Benjamin", role="output reviewer")


def test_a_session_is_worth_nothing_without_its_key_and_a_request_is_good_once(desk):
    session, url = desk.anna.session, f"{NODE}/api/permit.list"
    thief = dataclasses.replace(session, key=SigningKey.new("thief"))
    with pytest.raises(NotAuthenticated, match="another key"):
        desk.admin.signed_in(thief).call("permit.list")
    other = dataclasses.replace(session, secret=desk.otto.session.secret)
    with pytest.raises(NotAuthenticated, match="another key"):
        desk.admin.signed_in(other).call("permit.list")
    seen = session.headers("POST", url)
    assert desk.web.json("POST", url, {}, headers=seen)[0] == 200
    for method, path, headers in (
        ("POST", "permit.list", seen),
        ("POST", "status", session.headers("POST", url)),
        ("POST", "permit.list", {"Authorization": seen["Authorization"]}),
        ("POST", "permit.list", {"Authorization": seen["Authorization"].replace("DPoP", "Bearer")}),
        ("POST", "permit.list", {**seen, "DPoP": proof(session.key, "POST", url)}),
    ):
        status, said = desk.web.json(method, f"{NODE}/api/{path}", {}, headers=headers)
        assert status == 401, said


def test_who_left_is_out_at_once_and_who_closed_the_account_at_the_provider_at_renewal(desk):
    eve = desk.person("eve", "assessor")
    eve.call("permit.list")
    eve.session.leave()
    with pytest.raises(NotAuthenticated):
        eve.call("permit.list")
    eve.session.leave()  # twice is once
    eve = desk.sign_in("eve")
    eve.session.expires_at = 0.0
    eve.call("permit.list")  # renewed by the provider's word
    assert eve.session.expires_at > 0
    desk.provider.accounts.remove("eve")
    eve.session.expires_at = 0.0
    with pytest.raises(NotAuthenticated, match="invalid_grant"):
        eve.call("permit.list")


def test_a_stranger_of_the_same_provider_gets_no_session(desk):
    desk.provider.accounts.add("mallory", PASSWORD)
    with pytest.raises(Refused, match="no account"):
        desk.sign_in("mallory")
    told = desk.web.get_json(f"{NODE}/people")
    assert (told["issuer"], told["client_id"]) == (ISSUER, CLIENT)
    for path in ("challenge", "session", "session/renew"):
        status, _ = desk.web.json("POST", f"{NODE}/people/{path}", {"challenge": "x"})
        assert status == (200 if path == "challenge" else 401)


def test_a_kept_session_is_its_owners_and_goes_on(desk, tmp_path):
    from ihds.people.client import SignedIn

    session = desk.sign_in("anna").session
    session.file = tmp_path / "session.json"
    session.keep()
    assert session.file.stat().st_mode & 0o077 == 0
    again = SignedIn.read(session.file, desk.web)
    assert again.whoami()["name"] == "A. Assessor"
    assert json.loads(session.file.read_text())["url"] == NODE
    again.leave()
    assert not session.file.exists()


def test_two_programs_of_one_person_renew_one_session(desk, tmp_path):
    session = desk.sign_in("anna").session
    session.file = tmp_path / "session.json"
    session.keep()
    from ihds.people.client import SignedIn

    other = SignedIn.read(session.file, desk.web)
    session.expires_at = other.expires_at = 0.0
    other.whoami()
    assert session.whoami()["name"] == "A. Assessor"  # its refresh token was used by the other
    assert session.refresh == other.refresh


def test_duties_by_the_providers_claim_call_a_person_by_its_subject(desk):
    from ihds.people.oidc import Person

    person = Person(ISSUER, "s", "O. Officer")
    actor = desk.node.people.officers.signed_in(person, ("officer", "king", "researcher"))
    assert (actor.name, actor.roles, actor.person) == ("s", {Role.OFFICER}, f"{ISSUER}#s")
    with pytest.raises(Refused):
        desk.node.people.officers.signed_in(person, ("king",))
    subject = desk.anna.session.whoami()["subject"]
    with pytest.raises(Refused):  # the same subject of another provider is another person
        desk.node.people.officers.signed_in(Person("https://other.example", subject), None)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    made = Desk(tmp_path_factory.mktemp("lab"), "user", authority="did:web:127.0.0.1%3A7")
    made.rita = made.person("rita", "researcher", name="A. Researcher")
    made.sven = made.person("sven", "seat of a body", name="S. Seat")
    yield made
    made.close()


def test_who_runs_a_study_or_votes_is_the_person_who_signed_in(lab, monkeypatch):
    asked = []
    monkeypatch.setattr(lab.node.institution, "commands", lambda: {"study.run": asked.append})
    lab.rita.call("study.run", method="cox", person="Somebody Else")
    assert asked == [{"method": "cox", "person": "A. Researcher"}]
    with pytest.raises(Refused, match="is for the researcher"):
        lab.sven.call("study.run", method="cox", person="A. Researcher")
    with pytest.raises(Refused, match="by a person who signed in"):
        lab.admin.call("study.run", method="cox", person="A. Researcher")
    signed = []
    monkeypatch.setattr(lab.node.resolver, "service", lambda *_: "http://127.0.0.1:7/committee")
    monkeypatch.setattr(lab.node.http, "call", lambda *given, **_: signed.append(given[2]["act"]) or {})
    lab.sven.call("committee.withdraw", motion="urn:uuid:00000000-0000-4000-8000-000000000001", person="A. Chair")
    claims = read_unverified(signed[0])[1]
    assert (claims["person"], claims["signed_in"]["issuer"]) == ("S. Seat", ISSUER)
    with pytest.raises(Refused, match="seat of a body"):
        lab.rita.call("committee.withdraw", motion="m", person="S. Seat")


# -- duties beyond the access body -----------------------------------------------------------------------


def test_who_assessed_takes_no_duty_at_the_environment_of_the_same_project(desk, monkeypatch):
    environment, holder = "did:web:environment.example", "did:web:lih.example"
    case = application(desk)
    desk.anna.call("permit.assess", id=case, question="all", answer="yes", because="why")
    permit = make_permit(application=case, environment=Did(environment))
    held = {"permit": permit.to_dict(), "state": "GRANTED", "application": case, "credential": ""}
    desk.node.log.commit(Event("permit.granted", NODE), Put("permit", permit.id, 0, held))
    members = Members()
    monkeypatch.setattr(desk.node, "members", members)

    def told(who, role, person, name="N"):
        members.who = who
        body = {"role": str(role), "person": person, "name": name}
        return desk.web.json("POST", f"{NODE}/access/permits/{permit.id}/duties", body)

    anna = f"{ISSUER}#{desk.anna.session.whoami()['subject']}"
    for role in (Role.ENVIRONMENT, Role.REVIEWER, Role.PREPARER):
        status, said = told(environment, role, anna)
        assert (status, "separate duties" in str(said)) == (403, True), said
    assert told(environment, Role.ENVIRONMENT, "https://login#e")[0] == 200
    assert told(environment, Role.ENVIRONMENT, "https://login#e")[0] == 200  # told twice
    assert told(environment, Role.REVIEWER, "https://login#e")[0] == 403
    assert told(holder, Role.PREPARER, "https://login#e")[0] == 403  # the same person at another institution
    assert told(holder, Role.PREPARER, "https://login#p")[0] == 200
    assert told(holder, Role.ENVIRONMENT, "https://login#q")[0] == 403
    assert told("did:web:stranger.example", Role.PREPARER, "https://login#q")[0] == 404
    assert told(environment, Role.OFFICER, "https://login#q")[0] == 400
    assert told(environment, Role.ENVIRONMENT, "")[0] == 400


def test_an_environment_runs_nothing_until_a_person_took_it_on(tmp_path, monkeypatch):
    made = Desk(tmp_path, "environment", access_bodies=("did:web:hdab.example",))
    permit, asked = "urn:uuid:00000000-0000-4000-8000-000000000001", []
    emil = made.person("emil", "operator of the secure environment", name="E. Operator")
    duties = made.node.institution.duties
    monkeypatch.setattr(made.node.resolver, "service", lambda *_: "https://hdab.example/access")
    monkeypatch.setattr(made.node.wallet, "token", lambda *_: "token")
    monkeypatch.setattr(made.node.http, "call", lambda _m, _u, told, _t: asked.append(told) or {})
    with pytest.raises(Refused, match="nobody here has taken on"):
        duties.operated(permit)
    with pytest.raises(Refused, match="is no output reviewer here"):
        emil.call("duty.take", id=permit, role="output reviewer")
    with pytest.raises(BadInput):
        emil.call("duty.take", id=permit, role="officer")
    emil.call("duty.take", id=permit, role="operator of the secure environment")
    emil.call("duty.take", id=permit, role="operator of the secure environment")
    duties.operated(permit)
    (held,) = made.admin.call("duty.list")
    assert held["person"] == asked[0]["person"] == f"{ISSUER}#{emil.session.whoami()['subject']}"
    monkeypatch.setattr(made.node.http, "call", lambda *_: (_ for _ in ()).throw(Refused("separate duties")))
    other = permit[:-1] + "2"
    with pytest.raises(Refused, match="separate duties"):
        emil.call("duty.take", id=other, role="operator of the secure environment")
    with pytest.raises(Refused, match="nobody here"):
        duties.operated(other)
    made.close()
