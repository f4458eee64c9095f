"""Every message we send fits the published schemas; every table follows the specification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema_rs
import pytest

from ihds.connector.dataplane.plane import data_address
from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.message import message
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.errors import BadMessage, IllegalTransition
from ihds.roles.config import DatasetConfig
from ihds.roles.offers import offer

CONFIG = DatasetConfig("bladder", "Bladder")
OFFER = {**offer(CONFIG, Path()), "target": "bladder"}
AGREEMENT = {
    **{k: v for k, v in OFFER.items() if k == "permission"},
    "@id": "urn:uuid:a",
    "@type": "Agreement",
    "target": "bladder",
    "assigner": "did:web:p",
    "assignee": "did:web:c",
    "timestamp": "2026-01-01T01:00:00Z",
}


def side(role, state=negotiation.State.REQUESTED, other="urn:uuid:other"):
    return Negotiation("urn:uuid:mine", other, role, state, "did:web:x", "http://x", OFFER, AGREEMENT, "p")


def moving(role, state=transfer.State.STARTED):
    address = data_address("http://p/data", "token")
    return Transfer(
        "urn:uuid:mine",
        "urn:uuid:other",
        role,
        state,
        "did:web:x",
        "http://x",
        "urn:uuid:a",
        transfer.STUDY_FORMAT,
        address,
    )


@pytest.fixture(scope="session")
def validate(shared):
    folder = shared / "specs/dsp"
    schemas = {}
    for path in folder.rglob("*-schema.json"):
        text = path.read_text().replace("#definitions/", "#/definitions/")  # a defect of three schemas
        schemas[path.name] = json.loads(text)
    resources = [(body["$id"], body) for body in schemas.values() if "$id" in body]
    registry = jsonschema_rs.Registry(resources)

    def check(name, body):
        jsonschema_rs.validator_for(schemas[name], registry=registry).validate(body)

    return check


E, T = negotiation.Event, transfer.Event


def first(role):
    return replace(side(role), other_pid="")


SENT = [
    ("contract-request-message-schema.json", lambda: negotiation.say(first("consumer"), E.REQUEST, "http://c")[1]),
    ("contract-request-message-schema.json", lambda: negotiation.say(side("consumer"), E.REQUEST, "http://c")[1]),
    ("contract-offer-message-schema.json", lambda: negotiation.say(side("provider"), E.OFFER, "http://p")[1]),
    ("contract-offer-message-schema.json", lambda: negotiation.say(first("provider"), E.OFFER, "http://p")[1]),
    ("contract-agreement-message-schema.json", lambda: negotiation.say(side("provider"), E.AGREE, "")[1]),
    ("contract-agreement-verification-message-schema.json", lambda: negotiation.say(side("consumer"), E.VERIFY, "")[1]),
    ("contract-negotiation-event-message-schema.json", lambda: negotiation.say(side("consumer"), E.ACCEPT, "")[1]),
    ("contract-negotiation-event-message-schema.json", lambda: negotiation.say(side("provider"), E.FINALIZE, "")[1]),
    (
        "contract-negotiation-termination-message-schema.json",
        lambda: negotiation.say(replace(side("provider"), reason=("no",)), E.TERMINATE, "")[1],
    ),
    (
        "contract-negotiation-termination-message-schema.json",
        lambda: negotiation.say(side("provider"), E.TERMINATE, "")[1],
    ),
    ("contract-negotiation-schema.json", lambda: side("provider").acknowledgement()),
    ("contract-negotiation-error-schema.json", lambda: side("provider").error("1", ["x"])),
    ("transfer-request-message-schema.json", lambda: transfer.say(moving("consumer"), T.REQUEST, "http://c")[1]),
    ("transfer-start-message-schema.json", lambda: transfer.say(moving("provider"), T.START, "")[1]),
    ("transfer-completion-message-schema.json", lambda: transfer.say(moving("consumer"), T.COMPLETE, "")[1]),
    ("transfer-suspension-message-schema.json", lambda: transfer.say(moving("consumer"), T.SUSPEND, "")[1]),
    (
        "transfer-termination-message-schema.json",
        lambda: transfer.say(replace(moving("provider"), reason=("no",)), T.TERMINATE, "")[1],
    ),
    ("transfer-process-schema.json", lambda: moving("provider").acknowledgement()),
    ("transfer-error-schema.json", lambda: moving("provider").error("1", ["x"])),
    ("catalog-request-message-schema.json", lambda: message("CatalogRequestMessage")),
    ("catalog-error-schema.json", lambda: catalog.error("404", ["x"])),
    ("protocol-version-schema.json", lambda: catalog.versions("did:web:p")),
]


@pytest.mark.parametrize(("schema", "make"), SENT, ids=lambda v: v if isinstance(v, str) else "")
def test_every_message_we_send_fits_its_schema(validate, schema, make):
    validate(schema, make())


def test_catalog_and_dataset_fit_their_schemas(validate):
    entry = catalog.dataset("bladder", [offer(CONFIG, Path())], "urn:s", [transfer.STUDY_FORMAT], {"dct:title": "x"})
    head = catalog.head("did:web:p", "http://p/dsp/2025-1", "urn:s")
    for datasets in ([], [entry], [{**entry, "@id": str(i)} for i in range(2000)]):
        streamed = json.loads(b"".join(catalog.stream(head, datasets)))
        assert streamed.get("dataset", []) == datasets
        validate("catalog-schema.json", streamed)
    validate("dataset-schema.json", {**message("Dataset"), **entry})


#: DSP 2025-1 tables: state, event, sender -> state (None: refused).
STEPS = [
    ("START", "request", "consumer", "REQUESTED"),
    ("START", "request", "provider", None),
    ("START", "offer", "provider", "OFFERED"),
    ("REQUESTED", "offer", "provider", "OFFERED"),
    ("REQUESTED", "agree", "provider", "AGREED"),
    ("REQUESTED", "agree", "consumer", None),
    ("REQUESTED", "request", "consumer", None),
    ("REQUESTED", "verify", "consumer", None),
    ("REQUESTED", "finalize", "provider", None),
    ("OFFERED", "accept", "consumer", "ACCEPTED"),
    ("OFFERED", "accept", "provider", None),
    ("OFFERED", "request", "consumer", "REQUESTED"),
    ("OFFERED", "verify", "consumer", None),
    ("OFFERED", "agree", "provider", None),
    ("OFFERED", "finalize", "provider", None),
    ("ACCEPTED", "agree", "provider", "AGREED"),
    ("ACCEPTED", "offer", "provider", None),
    ("ACCEPTED", "verify", "consumer", None),
    ("AGREED", "verify", "consumer", "VERIFIED"),
    ("AGREED", "finalize", "provider", None),
    ("VERIFIED", "finalize", "provider", "FINALIZED"),
    ("VERIFIED", "finalize", "consumer", None),
    ("FINALIZED", "terminate", "consumer", None),
    ("TERMINATED", "request", "consumer", None),
    *[
        (s, "terminate", who, "TERMINATED")
        for s in ("REQUESTED", "OFFERED", "ACCEPTED", "AGREED", "VERIFIED")
        for who in ("consumer", "provider")
    ],
]


@pytest.mark.parametrize(("state", "event", "sender", "after"), STEPS)
def test_negotiation_follows_the_specification(state, event, sender, after):
    process = side("provider", negotiation.State(state))
    if after is None:
        with pytest.raises(IllegalTransition):
            negotiation.step(process, E(event), sender)
    else:
        assert negotiation.step(process, E(event), sender).state == after


MOVES = [
    ("REQUESTED", "start", "provider", "STARTED"),
    ("REQUESTED", "start", "consumer", None),
    ("REQUESTED", "complete", "consumer", None),
    ("REQUESTED", "suspend", "provider", None),
    ("STARTED", "suspend", "consumer", "SUSPENDED"),
    ("STARTED", "complete", "provider", "COMPLETED"),
    ("SUSPENDED", "start", "consumer", "STARTED"),
    ("SUSPENDED", "start", "provider", "STARTED"),
    ("SUSPENDED", "complete", "consumer", None),
    ("COMPLETED", "terminate", "consumer", None),
    ("TERMINATED", "start", "provider", None),
    *[
        (s, "terminate", who, "TERMINATED")
        for s in ("REQUESTED", "STARTED", "SUSPENDED")
        for who in ("consumer", "provider")
    ],
]


@pytest.mark.parametrize(("state", "event", "sender", "after"), MOVES)
def test_transfer_follows_the_specification(state, event, sender, after):
    process = moving("provider", transfer.State(state))
    if after is None:
        with pytest.raises(IllegalTransition):
            transfer.step(process, T(event), sender)
    else:
        assert transfer.step(process, T(event), sender).state == after


def test_unknown_fields_are_taken_and_wrong_ones_named():
    process = side("provider", negotiation.State.AGREED)
    good = {
        **negotiation.say(side("consumer"), E.VERIFY, "")[1],
        "consumerPid": "urn:uuid:other",
        "providerPid": "urn:uuid:mine",
        "more": 1,
    }
    assert negotiation.read(good, "ContractAgreementVerificationMessage", process) is E.VERIFY
    for change, word in (
        ({"@type": "X"}, "expected"),
        ({"@context": "x"}, "@context"),
        ({"consumerPid": "z"}, "consumerPid"),
        ({"providerPid": None}, "providerPid"),
    ):
        with pytest.raises(BadMessage, match=word):
            negotiation.read({**good, **change}, "ContractAgreementVerificationMessage", process)
