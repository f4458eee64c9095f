"""A study in an environment, over real nodes: what its user gets and keeps, and whom holders answer."""

from __future__ import annotations

import json
import time

import httpx
import numpy as np
import pytest

from ihds import errors
from ihds.canonical import pack, sha256
from ihds.cli import main
from ihds.connector.dcp.credentials import MEMBERSHIP, PERMISSIONS
from ihds.connector.dcp.presentation import scope_of
from ihds.connector.dcp.tokens import Identity
from ihds.demo import pooled
from ihds.federation.study import Round, asked
from ihds.ids import StudyId
from ihds.roles.simulated import APPLICATION
from ihds.store.store import Store
from ihds.wire.keys import Keyring
from tests.space import COX, Space, running

HOLDERS = ("lih", "ncck", "us-site")
QUESTION = {
    "purpose": "scientific_research",
    "method": "cox",
    "params": {"formula": COX},
    "person": APPLICATION["persons"][0],
}


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Space:
    with running(tmp_path_factory.mktemp("environment")) as nodes:
        yield nodes


class Member:
    """A node's keys in the hands of software of its own."""

    def __init__(self, space: Space, name: str) -> None:
        self.config = config = space.configs[name]
        self.identity = Identity(config.did, Keyring(space.folder / name, config.did, config.passphrase_file))

    def token(self, audience: str) -> str:
        scopes = [scope_of(kind) for kind in (MEMBERSHIP, *PERMISSIONS)]
        claims = {"iss": self.config.did, "sub": audience, "scope": scopes, "exp": int(time.time()) + 300}
        return self.identity.token(audience, self.identity.key.sign_jwt(claims, typ="presentation+jwt"))

    def sign(self, claims: dict) -> str:
        return self.identity.key.sign_jwt({**claims, "iss": self.config.did})


def records(space: Space, name: str, kind: str) -> dict[str, dict]:
    store = Store(space.configs[name].store_url(space.folder / name))
    found = {r.id: r.body for r in store.list(kind)}
    store.close()
    return found


def request(space: Space, who: Member, study: str, permit: str, ways: dict, method: str = "PUT", **changes):
    config = space.configs["environment"]
    question = {"permit": permit, **QUESTION, **changes}
    body = {**question, "asked": who.sign(asked(study, **question)), "ways": ways, "max_rounds": None}
    return httpx.request(
        method,
        f"{config.base_url}/environment/studies/{study}",
        json=body if method == "PUT" else None,
        headers={"Authorization": f"Bearer {who.token(config.did)}"},
    )


def paused(space: Space, permit: str, rounds: int = 2) -> str:
    researcher = space.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=rounds)
    list(researcher.steps(study))
    assert researcher.study(study)["status"] == "paused"
    return study


def test_the_user_gets_the_result_and_nothing_else_lies_on_its_disk(space):
    permit = space.permit()
    steps = []
    result = space.space("researcher").run("cox", permit=permit, report=steps.append, formula=COX)
    for mine, theirs in zip(result.coefficients, pooled("cox", COX).coefficients, strict=True):
        assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-8)
    assert result.provenance["environment"] == space.configs["environment"].did
    assert {"checkpoint", "agreement"} <= set(result.provenance["holders"][0])
    told = [step for step in steps if step["step"] == "round"]
    assert told
    assert all(set(step) == {"step", "number", "contribution", "bytes"} for step in told)
    study = result.provenance["study"]
    assert set(records(space, "researcher", "study")[study]) == {"study", "status", "result"}
    assert set(records(space, "researcher", "study.request")[study]) == {
        *("permit", "purpose", "method", "params", "person", "datasets", "status", "error", "agreements", "transfers"),
    }
    kinds = {e["kind"] for e in space.entries("researcher") if e["details"].get("study") == study}
    assert kinds == {"study.requested", "study.connected", "study.received", "study.witnessed", "study.settled"}
    assert study not in records(space, "environment", "study")
    assert records(space, "environment", "study.request")[study]["status"] == "delivered"
    assert "study.round" in {e["kind"] for e in space.entries("environment")}


def test_with_the_tokens_of_its_transfers_a_user_asks_no_holder_anything(space):
    study = paused(space, space.permit())
    user, another = Member(space, "researcher"), Member(space, "ncck")
    transfers = records(space, "researcher", "transfer")
    held = records(space, "researcher", "study.request")[study]["transfers"]
    state = b"any"
    claims = {"study": study, "permit": "", "round": 2, "state": sha256(state)}
    body = pack(Round(user.sign(claims), np.frombuffer(state, dtype=np.uint8)))
    for holder, pid in held.items():
        properties = {p["name"]: p["value"] for p in transfers[pid]["address"]["endpointProperties"]}
        bearer = f"Bearer {properties['authorization']}"
        path = f"{transfers[pid]['address']['endpoint']}/studies/{study}/rounds"
        for shown in ({}, *({"IHDS-Environment": f"Bearer {who.token(holder)}"} for who in (user, another))):
            headers = {"Authorization": bearer, **shown}
            assert httpx.post(path, content=body, headers=headers).status_code == 401, shown
            assert httpx.delete(path.removesuffix("/rounds"), headers=headers).status_code == 401
    assert space.space("researcher").resume(study).rounds > 2


def test_requests_of_others_and_requests_that_were_not_signed_are_refused(space):
    permit = space.permit()
    study = paused(space, permit)
    user, another, fresh = Member(space, "researcher"), Member(space, "ncck"), StudyId.new()
    ways = {space.configs[name].did: "token" for name in HOLDERS}
    refused = request(space, another, fresh, permit, ways)
    assert refused.status_code == 403, refused.text
    assert "was not presented" in refused.text
    assert request(space, another, study, permit, ways, "GET").status_code == 404
    assert request(space, another, study, permit, ways, "DELETE").status_code == 404
    config = space.configs["environment"]
    unsigned = {"permit": permit, **QUESTION, "asked": another.sign(asked(fresh, permit, **QUESTION)), "ways": ways}
    headers = {"Authorization": f"Bearer {user.token(config.did)}"}
    address = f"{config.base_url}/environment/studies/{fresh}"
    assert httpx.put(address, json=unsigned, headers=headers).status_code == 401
    assert "used before" in httpx.put(address, json=unsigned, headers=headers).text
    assert httpx.put(address, json=unsigned).status_code == 401
    beyond = request(space, user, fresh, permit, ways, purpose="education")
    assert beyond.status_code == 403
    assert "R-53-PURPOSE" in beyond.text
    assert fresh not in records(space, "environment", "study.request")


def test_a_study_goes_on_after_its_environment_was_killed(space):
    permit, researcher = space.permit(), space.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit)
    for step in researcher.steps(study):
        if step["step"] == "round" and step["number"] >= 3:
            break
    space.kill("environment")
    list(researcher.steps(study))
    space.start("environment")
    space.wait()
    result = researcher.resume(study)
    assert result.coefficients[0].estimate == pytest.approx(pooled("cox", COX).coefficients[0].estimate, rel=1e-8)
    for holder in HOLDERS:
        answered = [
            e["details"]["round"]
            for e in space.entries(holder)
            if e["kind"] == "round.answered" and e["details"]["study"] == study
        ]
        assert answered == list(range(len(answered)))


def test_a_cancelled_study_ends_everywhere(space, capsys):
    study = paused(space, space.permit())
    at = ["--node", str(space.folder / "researcher")]
    assert main(["study", "cancel", study, "--json", *at]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "cancelled"
    assert records(space, "environment", "study.request")[study]["status"] == "cancelled"
    assert study not in records(space, "environment", "study")
    deadline = time.monotonic() + 20
    while not all(records(space, n, "gate.study")[study]["closed"] for n in HOLDERS):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(errors.IllegalTransition):
        space.space("researcher").resume(study)


def test_a_revoked_permit_is_refused_by_the_environment_too(space):
    permit = space.permit()
    study = paused(space, permit)
    space.space("access-body").call("permit.revoke", id=permit, reason="test")
    ways = {space.configs[name].did: "token" for name in HOLDERS}
    refused = request(space, Member(space, "researcher"), study, permit, ways)
    assert refused.status_code == 403, refused.text
    assert "REVOKED" in refused.text
    with pytest.raises(errors.Refused, match="REVOKED"):
        space.space("researcher").resume(study)


def test_the_officer_may_name_none_and_then_the_users_node_runs_the_study(space):
    permit = space.permit(environment="none")
    result = space.space("researcher").run("describe", permit=permit, variables="treatment")
    assert "environment" not in result.provenance
    with pytest.raises(errors.BadInput, match="nobody"):
        space.permit(environment="nobody")
