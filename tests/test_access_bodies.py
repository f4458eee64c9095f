"""Two access bodies over HTTP: one application, a case of its own and a decision of its own in each country."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ihds import errors
from ihds.roles.config import NodeConfig, free_port
from ihds.roles.offered import BYAR
from ihds.roles.simulated import APPLICATION, ASSESSOR, EVIDENCE, OFFICER, agree
from tests.space import Space

PLACES = {"authority": "LU", "body-lu": "LU", "body-kr": "KR", "lih": "LU", "ncck": "KR", "researcher": "LU"}
ROLES = {"authority": "authority", "body-lu": "access_body", "body-kr": "access_body", "researcher": "user"}


@pytest.fixture
def nodes(tmp_path: Path):
    space = Space(tmp_path)
    ports = {name: free_port() for name in PLACES}
    dids = {name: f"did:web:127.0.0.1%3A{port}" for name, port in ports.items()}
    bodies = (dids["body-lu"], dids["body-kr"])
    more: dict[str, dict[str, Any]] = {
        "authority": {"members": tuple(f"{dids[n]} {ROLES.get(n, 'holder')} {c}" for n, c in PLACES.items())},
        "body-lu": {"other_bodies": {dids["ncck"]: dids["body-kr"]}},
        "researcher": {"catalogues": (dids["lih"], dids["ncck"])},
    }
    for name in ("lih", "ncck"):
        more[name] = {"datasets": (BYAR.dataset(name, [t.format(dids["researcher"]) for t in EVIDENCE[PLACES[name]]]),)}
    for name, country in PLACES.items():
        settings = {
            "authority": dids["authority"],
            "access_bodies": bodies,
            "passphrase_file": str(tmp_path / f".{name}"),
        }
        url = f"http://127.0.0.1:{ports[name]}"
        config = NodeConfig(
            name, ROLES.get(name, "holder"), country, url, ports[name], **settings, **more.get(name, {})
        )
        space.make(config)
    from ihds.roles.node import load_dataset

    for number, name in enumerate(("lih", "ncck")):
        load_dataset(tmp_path / name, f"bladder-{name}", BYAR.part(number), BYAR.codebook)
    try:
        for name in space.configs:
            space.start(name)
        space.wait()
        yield space
    finally:
        space.stop()


def test_an_application_for_two_countries_is_decided_in_each_by_its_own_body(nodes):
    researcher, here, there = (nodes.space(name) for name in ("researcher", "body-lu", "body-kr"))
    agreements = {
        body: agree(nodes.space(body), [nodes.space(h)], researcher)
        for body, h in (("body-lu", "lih"), ("body-kr", "ncck"))
    }
    datasets = sorted(r["dataset"] for r in researcher.search("bladder"))
    nodes.kill("body-kr")
    answer = researcher.apply(
        datasets=datasets,
        access_body=here.config.did,
        agreement=agreements["body-lu"],
        agreements={there.config.did: agreements["body-kr"]},
        **APPLICATION,
    )
    parent, ((child, part),) = answer["application"], answer["children"].items()
    assert part["state"] == ""  # the other body is down: its part waits
    nodes.start("body-kr")
    nodes.wait()
    here.call("permit.look")
    here.call("permit.look")
    assert here.call("permit.show", id=parent)["children"][child]["state"] == "PROCESSING"
    for space, case in ((here, parent), (there, child)):
        asked = space.call("permit.show", id=case)["application"]
        assert [d for _, d in asked["datasets"]] == [datasets[space is there]]
    why = {"question": "all", "answer": "yes", "because": "see the protocol", "by": ASSESSOR}
    here.call("permit.assess", id=parent, **why)
    granted = here.call("permit.decide", id=parent, grant=True, by=OFFICER)["permit"]
    with pytest.raises(errors.NotFound):
        here.call("permit.decide", id=child, grant=True, by=OFFICER)  # not for this body to decide
    there.call("permit.decide", id=child, grant=False, reasons=["the data review board says no"], by=OFFICER)
    here.call("permit.look")
    outcome = here.call("permit.show", id=parent)["children"][child]
    assert (outcome["state"], outcome["decision"], outcome["permit"]) == ("DECISION_ISSUED", "REFUSED", None)
    rows = {r["application"]: r for r in researcher.permits()}
    assert rows[parent]["permit"] == granted
    assert rows[child]["reasons"] == ["the data review board says no"]
    assert researcher.call("permit.show", id=granted)["legal_regime"] == "contract"
    # and the applicant, who was refused there, appeals there
    appealed = researcher.call("permit.act", id=child, action="lodge", reasons=["the board misread the protocol"])
    assert appealed["state"] == "LODGED"
    told = researcher.call("publication.report", id=granted, link="https://doi.org/10.1000/1", summary="no difference")
    assert told["reports"] == 1
    assert here.call("publication.list")[0]["links"] == ["https://doi.org/10.1000/1"]
    amended = researcher.call("permit.amend", id=granted, persons=["B. Researcher"])["application"]
    here.call("permit.assess", id=amended, **why)
    here.call("permit.decide", id=amended, grant=True, by=OFFICER)
    states = {r["permit"]: r["permit_state"] for r in researcher.permits() if r["permit"]}
    assert states[granted] == "REVOKED"  # superseded: its status bit is set
    assert sorted(states.values()) == ["GRANTED", "REVOKED"]
