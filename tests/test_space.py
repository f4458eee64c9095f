"""The permit walk and everything else that needs real nodes."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import time

import httpx
import pytest

from ihds import errors
from ihds.cli import main
from ihds.demo import CURVES, pooled
from ihds.ids import StudyId
from ihds.roles.config import DatasetConfig, NodeConfig
from ihds.roles.node import verify_folder
from tests.conftest import ROOT
from tests.space import APPLICATION, COX, OFFICER, Space, running

HOLDERS = ("lih", "ncck", "us-site")


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Space:
    with running(tmp_path_factory.mktemp("space")) as nodes:
        yield nodes


def test_one_permit_id_from_the_keyboard_to_the_result(space):
    permit = space.permit()
    before = {n: len(space.entries(n)) for n in space.configs}
    researcher = space.space("researcher")
    result = researcher.run("cox", permit=permit, formula=COX)
    reference = pooled("cox", COX)
    for mine, theirs in zip(result.coefficients, reference.coefficients, strict=True):
        assert mine.estimate == pytest.approx(theirs.estimate, rel=1e-8)
        assert mine.robust_se == pytest.approx(theirs.robust_se, rel=1e-8)
    assert result.provenance["permit"] == permit
    assert {h["name"] for h in result.provenance["holders"]} == set(HOLDERS)
    for name in (*HOLDERS, "researcher"):
        fresh = space.entries(name)[before[name] :]
        walked = [
            e for e in fresh if e["kind"].split(".")[0] in ("negotiation", "transfer", "study", "round", "message")
        ]
        assert len(walked) > 8
        assert {e["details"].get("permit", permit) for e in walked} == {permit}, name
        kinds = [e["kind"] for e in walked]
        assert kinds.index("negotiation.advanced") < kinds.index("transfer.advanced")
    for name in space.configs:
        assert verify_folder(space.folder / name)["proved"]


def test_revocation_in_the_middle_of_a_study_stops_the_next_round_at_every_holder(space):
    permit = space.permit()
    researcher = space.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=3)
    for _ in researcher.steps(study):
        pass
    assert researcher.study(study)["status"] == "paused"
    space.space("access-body").call("permit.revoke", id=permit, reason="test")
    with pytest.raises(errors.Refused) as caught:
        researcher.resume(study)
    assert "REVOKED" in str(caught.value)
    for name in HOLDERS:
        last = [
            e for e in space.entries(name) if e["details"].get("permit") == permit and e["kind"] == "transfer.advanced"
        ][-1]
        assert last["details"]["state"] == "TERMINATED"
        assert "REVOKED" in str(last["details"]["reasons"])
    assert [p for p in researcher.permits() if p["permit"] == permit][0]["permit_state"] == "REVOKED"


def test_a_permit_revoked_while_its_body_is_down_stops_at_every_holder(space):
    """Whoever cannot learn a permit's status says no: nobody goes on for longer than the status is kept."""
    permit = space.permit()
    researcher = space.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=3)
    for _ in researcher.steps(study):
        pass
    space.kill("access-body")
    try:
        kept = max(NodeConfig.read(space.folder / name).permit_status_seconds for name in HOLDERS)
        assert kept < 60
        time.sleep(kept + 0.5)
        with pytest.raises(errors.IhdsError) as caught:
            researcher.resume(study)
        assert "not knowing means no" in str(caught.value)
    finally:
        space.start("access-body")
        space.wait()
    space.space("access-body").call("permit.revoke", id=permit, reason="misuse, found while it was down")
    with pytest.raises(errors.Refused, match="REVOKED"):
        researcher.resume(study)


def test_agreements_are_reused_by_the_next_study(space):
    permit = space.permit()
    researcher = space.space("researcher")
    researcher.run("kaplan_meier", permit=permit, formula=CURVES)
    steps = []
    researcher.run("logrank", permit=permit, report=steps.append, formula=CURVES)
    assert [s["reused"] for s in steps if s["step"] == "agreement"] == [True] * 3


def test_a_study_without_a_permit_is_refused_with_the_article(space):
    researcher = space.space("researcher")
    datasets = [r["dataset"] for r in researcher.search("bladder")]
    with pytest.raises(errors.Refused, match="ended the contract negotiation") as caught:
        researcher.follow(researcher.start("cox", {"formula": COX}, datasets=datasets))
    assert "EHDS 61(1), 68(10)" in str(caught.value)


def test_a_purpose_outside_the_permit_is_refused(space):
    with pytest.raises(errors.Refused, match="R-53-PURPOSE"):
        space.space("researcher").run("cox", permit=space.permit(), purpose="education", formula=COX)


def test_a_variable_outside_the_permit_is_refused(space):
    answer = space.apply(variables=["first_months", "first_recurrence"])
    permit = space.grant(answer["application"])
    with pytest.raises(errors.Refused, match="does not open treatment"):
        space.space("researcher").run("kaplan_meier", permit=permit, formula=CURVES)


def test_an_incomplete_application_is_sent_back_with_one_list(space):
    answer = space.apply(ethics="", benefit="")
    assert answer["state"] == "AWAITING_ADDITIONAL_INFORMATION"
    assert len(answer["reasons"]) == 2
    with pytest.raises(errors.IllegalTransition):
        space.space("access-body").call("permit.decide", id=answer["application"], grant=True, by=OFFICER)


def test_an_applicant_cannot_claim_another_country_than_its_membership(space):
    with pytest.raises(errors.Refused, match="a member from LU, not from KR"):
        space.apply(applicant_country="KR")


def test_a_refusal_needs_reasons_and_reaches_the_applicant(space):
    answer = space.apply()
    officer = space.space("access-body")
    with pytest.raises(errors.BadInput, match="68\\(9\\)"):
        officer.call("permit.decide", id=answer["application"], grant=False, by=OFFICER)
    officer.call(
        "permit.decide", id=answer["application"], grant=False, reasons=["R-66-MIN: not necessary"], by=OFFICER
    )
    row = [p for p in space.space("researcher").permits() if p["application"] == answer["application"]][0]
    assert row["reasons"] == ["R-66-MIN: not necessary"]


def test_a_site_missing_from_a_round_stops_the_study_which_can_be_resumed(space):
    permit = space.permit()
    researcher = space.space("researcher")
    study = researcher.start("cox", {"formula": COX}, permit=permit, max_rounds=4)
    for _ in researcher.steps(study):
        pass
    space.kill("ncck")
    try:
        with pytest.raises(errors.IhdsError) as caught:
            researcher.resume(study)
        assert caught.value.exit_status == 16
        assert researcher.study(study)["status"] == "waiting"
    finally:
        space.start("ncck")
        space.wait()
    result = researcher.resume(study)
    assert result.n == pooled("cox", COX).n


# -- strangers at the door -------------------------------------------------------------------------


def url(space: Space, name: str, path: str) -> str:
    return space.configs[name].base_url + path


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.e30"])
def test_a_foreign_token_is_refused_everywhere(space, token):
    headers = {"Authorization": f"Bearer {token}".strip()}
    for path in ("/dsp/2025-1/catalog/request", "/dsp/2025-1/negotiations/request", "/dsp/2025-1/transfers/request"):
        answer = httpx.post(url(space, "lih", path), json={"@type": "CatalogRequestMessage"}, headers=headers)
        assert answer.status_code == 401, path
    answer = httpx.post(url(space, "lih", "/data/studies"), json={"study": "x"}, headers=headers)
    assert answer.status_code == 401
    assert httpx.post(url(space, "lih", "/api/datasets"), json={}, headers=headers).status_code == 401


def member(space: Space, name: str):
    """Return what a node can say of itself: tokens that open its credentials, as the node makes them."""
    from ihds.audit.log import now
    from ihds.connector.dcp.presentation import scope_of
    from ihds.connector.dcp.tokens import Identity
    from ihds.wire.keys import Keyring

    config = space.configs[name]
    identity = Identity(config.did, Keyring(space.folder / name, config.did, config.passphrase_file))

    def token(audience: str) -> str:
        scopes = [scope_of("MembershipCredential")]
        access = {"iss": config.did, "sub": audience, "scope": scopes, "exp": int(now().timestamp()) + 300}
        return identity.token(audience, identity.key.sign_jwt(access, typ="presentation+jwt"))

    return token


def member_token(space: Space, audience: str) -> str:
    return member(space, "researcher")(audience)


def test_a_token_is_good_once_and_for_one_node(space):
    path = "/dsp/2025-1/catalog/request"
    body = {"@context": ["https://w3id.org/dspace/2025/1/context.jsonld"], "@type": "CatalogRequestMessage"}
    token = member_token(space, space.configs["lih"].did)
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.post(url(space, "lih", path), json=body, headers=headers).status_code == 200
    again = httpx.post(url(space, "lih", path), json=body, headers=headers)
    assert again.status_code == 401
    assert "used before" in again.text
    other = httpx.post(
        url(space, "ncck", path),
        json=body,
        headers={"Authorization": f"Bearer {member_token(space, space.configs['lih'].did)}"},
    )
    assert other.status_code == 401


def test_other_peoples_processes_are_not_found(space):
    held = [e["details"]["pid"] for e in space.entries("lih") if e["kind"] == "negotiation.advanced"][0]
    token = member(space, "ncck")(space.configs["lih"].did)
    answer = httpx.get(
        url(space, "lih", f"/dsp/2025-1/negotiations/{held}"), headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 404
    assert answer.json()["@type"] == "ContractNegotiationError"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"{}",
        b'{"@type": "ContractRequestMessage"}',
        b"\xff\xfe",
        json.dumps({"a": [[[[1]]]]}).encode(),
    ],
)
def test_malformed_messages_get_a_clear_error_and_change_nothing(space, body):
    before = len(space.entries("lih"))
    headers = {"Authorization": f"Bearer {member_token(space, space.configs['lih'].did)}"}
    answer = httpx.post(url(space, "lih", "/dsp/2025-1/negotiations/request"), content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["reason"]
    assert len(space.entries("lih")) == before


def test_an_oversized_body_is_refused(space):
    headers = {"Authorization": f"Bearer {member_token(space, space.configs['lih'].did)}"}
    answer = httpx.post(url(space, "lih", "/dsp/2025-1/catalog/request"), content=b"x" * (2 << 20), headers=headers)
    assert answer.status_code == 413


def test_versions_did_and_catalogue_are_public(space):
    versions = httpx.get(url(space, "lih", "/.well-known/dspace-version")).json()
    assert versions["protocolVersions"][0]["version"] == "2025-1"
    assert httpx.get(url(space, "lih", "/.well-known/did.json")).json()["id"] == space.configs["lih"].did
    description = httpx.get(url(space, "lih", "/catalogue")).json()[0]
    assert description["@type"] == "dcat:Dataset"
    assert description["healthdcatap:numberOfUniqueIndividuals"]["@value"].endswith("0")


def test_unknown_studies_and_permits_are_not_found(space):
    researcher = space.space("researcher")
    with pytest.raises(errors.NotFound):
        researcher.resume(StudyId.new())
    with pytest.raises(errors.NotFound):
        researcher.run("cox", permit=StudyId.new(), formula=COX)


def test_a_wrong_formula_fails_the_study_with_its_reason(space):
    with pytest.raises(errors.UnknownVariable, match="'nope'"):
        space.space("researcher").run(
            "cox", permit=space.permit(), formula="Surv(first_months, first_recurrence) ~ nope"
        )


def test_an_application_for_an_unknown_dataset_is_told(space):
    with pytest.raises(errors.BadInput, match="no catalogue lists"):
        space.space("researcher").apply(datasets=["nowhere"], **APPLICATION)


def test_idle_nodes_do_nothing(space):
    def written() -> dict[str, int]:  # what they sign of one another's logs follows what was done before
        return {n: sum(e["kind"] != "witness.signed" for e in space.entries(n)) for n in space.configs}

    before = written()
    time.sleep(1.5)
    assert written() == before


def test_an_officer_works_a_case_by_the_commands_of_the_page(space, capsys, monkeypatch):
    """Every command of the page is run, in order, as it stands there."""
    monkeypatch.chdir(space.folder)
    signed = space.space("access-body").call("joint.show", id=space.agreement())["text"]
    text = {k: v for k, v in signed.items() if k not in ("id", "body")}
    (space.folder / "agreement.json").write_text(json.dumps(text))
    names: dict[str, str] = {}
    shell = "".join(re.findall(r"```sh\n(.*?)```", (ROOT / "docs/how-to/work-a-case.md").read_text(), re.DOTALL))
    for line in shell.replace("\\\n", " ").splitlines():
        command, _, remark = line.partition("#")
        for placeholder, value in names.items():
            command = command.replace(placeholder, value)
        words = shlex.split(command)
        assert main(words[1:]) == (12 if "refused" in remark else 0), command
        out = capsys.readouterr().out
        if words[1:3] == ["agreement", "propose"]:
            names["urn:uuid:AGREEMENT"] = re.search(r"urn:uuid:[0-9a-f-]{36}", out)[0]
        if words[1] == "apply":
            names["urn:uuid:APPLICATION"] = re.search(r"urn:uuid:[0-9a-f-]{36}", out)[0]
        if words[1:3] == ["permit", "decide"] and "refused" not in remark:
            names["urn:uuid:PERMIT"] = re.search(r"urn:uuid:[0-9a-f-]{36}", out)[0]
            assert "under the agreement" in out
            assert "permit" not in out
    assert len(names) == 3
    shown = space.space("researcher").call("permit.list")
    assert [r["permit_state"] for r in shown if r["permit"] == names["urn:uuid:PERMIT"]] == ["REVOKED"]


def test_an_officers_key_gives_commands_in_that_officers_name_only(space):
    application = space.apply()["application"]
    body = space.space("access-body")
    key = body.call("officer.add", name="C", roles=["assessor"])["key"]
    own = dataclasses.replace(body, key=key)
    words = {"id": application, "question": "all", "answer": "yes", "because": "why"}
    own.call("permit.assess", **words, by=OFFICER)
    assert {v["assessor"] for v in body.call("permit.show", id=application)["verdicts"].values()} == {"C"}
    with pytest.raises(errors.Refused, match="is for the officer"):
        own.call("permit.decide", id=application, grant=True, by=OFFICER)
    for name, arguments in (
        ("permit.revoke", {"id": application, "reason": "because"}),
        ("officer.assign", {"id": application, "name": "C", "role": "assessor"}),
        ("citizen.status", {"subject": "1893120105732"}),
        ("citizen.reverse", {"subject": "1893120105732"}),
    ):
        for given in (own, body):  # with its own key, and where the node's key says in whose name
            with pytest.raises(errors.Refused, match="is for the officer"):
                given.call(name, **arguments, by="C")
    for name, arguments in (("officer.add", {"name": "D", "roles": ["officer"]}), ("key.rotate", {})):
        with pytest.raises(errors.Refused, match="administrator"):
            own.call(name, **arguments)
    body.call("officer.remove", name="C")
    with pytest.raises(errors.NotAuthenticated):
        own.call("permit.list")


def test_a_party_signs_the_agreement_as_it_stands_at_its_body_and_nobody_else_does(space):
    body, signed = space.space("access-body"), space.agreement()
    with pytest.raises(errors.NotFound):
        body.call("joint.sign", id=signed, body=body.config.did)
    shown = body.call("joint.show", id=signed)
    assert shown["state"] == "IN_FORCE"
    assert sorted(shown["signatures"]) == sorted(p["did"] for p in shown["text"]["parties"])


def test_a_holder_looks_at_a_study_before_it_runs_and_lets_it_go_on(space, tmp_path, capsys):
    def decides(how: str) -> None:
        folder = space.folder / "us-site"
        held = NodeConfig.read(folder)
        own = {"min_cell": 7} if how == "hand" else {}  # learned from the catalogue, so that the signed study names it
        datasets = tuple(dataclasses.replace(d, studies=how, thresholds=own) for d in held.datasets)
        dataclasses.replace(held, datasets=datasets).write(folder)
        space.kill("us-site")
        space.start("us-site")
        space.wait()

    at = ["--node", str(space.folder / "us-site")]
    permit = space.permit()
    decides("hand")
    try:
        researcher = space.space("researcher")
        study = researcher.start("cox", {"formula": COX}, permit=permit)
        steps = list(researcher.steps(study))
        assert steps[-1]["step"] == "waiting"
        assert researcher.study(study)["status"] == "waiting"
        assert main(["study", "asked", "--json", *at]) == 0
        (asked,) = [s for s in json.loads(capsys.readouterr().out) if s["state"] == "waits for approval"]
        page = tmp_path / "preview.html"
        assert main(["study", "preview", asked["study"], "--html", str(page), *at]) == 0
        told = capsys.readouterr().out
        assert "opened only as the sum over 3 holders" in told
        assert "Dictionary (count table), once" in told
        assert "else it is hidden or refused (min_cell 7)" in told
        assert "<h2>What would leave</h2>" in page.read_text()
        assert main(["study", "preview", "cox", "--formula", COX, "--json", *at]) == 0
        thought = json.loads(capsys.readouterr().out)
        assert thought["leaving"]
        assert main(["study", "approve", asked["study"], *at]) == 0
        capsys.readouterr()
        result = researcher.resume(study)
        assert (result.n > 0, result.provenance["thresholds"]["min_cell"]) == (True, 7)
        other = researcher.start("cox", {"formula": COX}, permit=permit)
        list(researcher.steps(other))
        assert main(["study", "asked", "--json", *at]) == 0
        (asked,) = [s for s in json.loads(capsys.readouterr().out) if s["state"] == "waits for approval"]
        assert main(["study", "decline", asked["study"], *at]) == 0
        with pytest.raises(errors.Refused, match="refuse"):
            researcher.resume(other)
    finally:
        decides("rule")


def test_a_setting_that_would_not_be_heeded_is_refused():
    with pytest.raises(errors.SetupFailed, match="write rule or hand"):
        DatasetConfig("d", "D", studies="Hand")
    with pytest.raises(errors.SetupFailed, match="no threshold 'min_cel'"):
        DatasetConfig("d", "D", thresholds={"min_cel": 7})
    with pytest.raises(errors.SetupFailed, match="inner zone"):
        NodeConfig(
            "n",
            "holder",
            "LU",
            "http://127.0.0.1:1",
            1,
            worker=True,
            datasets=(DatasetConfig("d", "D", studies="hand"),),
        )
