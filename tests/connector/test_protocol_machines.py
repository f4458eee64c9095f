"""Any message, in any state, from any role: hypothesis drives real bindings against the specification's own table."""

from __future__ import annotations

import threading
import time
import uuid

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ihds.connector.dsp import negotiation, transfer
from ihds.connector.dsp.message import message
from ihds.connector.openapi import description
from ihds.errors import IllegalTransition
from ihds.roles import node as nodes
from ihds.roles.config import free_port
from tests.kit.node import application
from tests.kit.scenarios import BEARER, COUNTERPART, FORMAT, SCENARIOS, offer_id

KEY = next(s.key for s in SCENARIOS if s.kind == "CN")
AGREED = next(s.key for s in SCENARIOS if s.kind == "TP")
AGREED_C = next(s.key for s in SCENARIOS if s.kind == "TP_C")
OFFER = {"@id": offer_id(KEY), "@type": "Offer", "target": KEY, "permission": [{"action": "use"}]}
HEADERS = {"Authorization": f"Bearer {BEARER}"}
END = ("FINALIZED", "TERMINATED", "COMPLETED")

#: DSP 2025-1 §7 and §9, written down once more, by sender: what may follow on what.
CONTRACT = {
    ("REQUESTED", "offer", "provider"): "OFFERED",
    ("REQUESTED", "agree", "provider"): "AGREED",
    ("OFFERED", "request", "consumer"): "REQUESTED",
    ("OFFERED", "accept", "consumer"): "ACCEPTED",
    ("ACCEPTED", "agree", "provider"): "AGREED",
    ("AGREED", "verify", "consumer"): "VERIFIED",
    ("VERIFIED", "finalize", "provider"): "FINALIZED",
}
MOVE = {
    ("REQUESTED", "start", "provider"): "STARTED",
    ("STARTED", "suspend", "provider"): "SUSPENDED",
    ("STARTED", "suspend", "consumer"): "SUSPENDED",
    ("STARTED", "complete", "provider"): "COMPLETED",
    ("STARTED", "complete", "consumer"): "COMPLETED",
    ("SUSPENDED", "start", "provider"): "STARTED",
    ("SUSPENDED", "start", "consumer"): "STARTED",
}
CONTRACT_WORDS = {
    "request": ("ContractRequestMessage", "request"),
    "offer": ("ContractOfferMessage", "offers"),
    "accept": ("ContractNegotiationEventMessage", "events"),
    "agree": ("ContractAgreementMessage", "agreement"),
    "verify": ("ContractAgreementVerificationMessage", "agreement/verification"),
    "finalize": ("ContractNegotiationEventMessage", "events"),
    "terminate": ("ContractNegotiationTerminationMessage", "termination"),
}
MOVE_WORDS = {
    "start": ("TransferStartMessage", "start"),
    "suspend": ("TransferSuspensionMessage", "suspension"),
    "complete": ("TransferCompletionMessage", "completion"),
    "terminate": ("TransferTerminationMessage", "termination"),
}


class Quiet:
    """Takes no step by itself: the machine takes them all."""

    def negotiation(self, *_: object, **__: object) -> None: ...

    def transfer(self, *_: object, **__: object) -> None: ...


@pytest.fixture(scope="module")
def under_test(tmp_path_factory):
    made: list[nodes.Node] = []
    plain = nodes.Node.app
    nodes.Node.app = lambda self: made.append(self) or plain(self)  # type: ignore[method-assign]
    try:
        app = application(tmp_path_factory.mktemp("machine") / "node", 1, pause=0, delay=0)
    finally:
        nodes.Node.app = plain  # type: ignore[method-assign]
    node = made[0]
    node.connector.reactions = Quiet()
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")  # no outbox
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=HEADERS) as http:
        yield node, http
    server.should_exit = True
    thread.join(5)


def machine(under_test, role: str, contract: bool) -> type[RuleBasedStateMachine]:
    """Return the machine of one protocol with the node in one role."""
    node, http = under_test
    table, words = (CONTRACT, CONTRACT_WORDS) if contract else (MOVE, MOVE_WORDS)
    noun = "negotiations" if contract else "transfers"
    peer = "consumer" if role == "provider" else "provider"
    events = negotiation.Event if contract else transfer.Event

    class Protocol(RuleBasedStateMachine):
        @initialize()
        def begin(self) -> None:
            self.state, self.theirs, self.paused, self.agreement = "REQUESTED", uuid.uuid4().urn, "", uuid.uuid4().urn
            if role == "provider":
                first = {"consumerPid": self.theirs, "callbackAddress": "http://127.0.0.1:9"}
                if contract:
                    body = message("ContractRequestMessage", **first, offer=OFFER)
                else:
                    body = message("TransferRequestMessage", **first, agreementId=AGREED, format=FORMAT)
                answer = http.post(f"/dsp/2025-1/{noun}/request", json=body)
                assert answer.status_code == 201
                self.mine = answer.json()["providerPid"]
            elif contract:
                self.mine = node.connector.request_contract(COUNTERPART, "http://127.0.0.1:9", OFFER, "")
            else:
                self.mine = node.connector.request_transfer(AGREED_C, FORMAT)

        def expected(self, event: str, sender: str) -> str | None:
            if event == "terminate":
                return None if self.state in END else "TERMINATED"
            if event == "start" and self.state == "SUSPENDED" and self.paused != sender:
                return None
            return table.get((self.state, event, sender))

        def moved(self, event: str, sender: str, after: str) -> None:
            self.state = after
            self.paused = sender if event == "suspend" else ""

        @rule(event=st.sampled_from(sorted(words)))
        def hear(self, event: str) -> None:
            """The counterparty says anything at all, also what only this side may say."""
            kind, path = words[event]
            pids = {f"{peer}Pid": self.theirs, f"{role}Pid": self.mine}
            extra: dict = {"@id": uuid.uuid4().urn}
            if event in ("request", "offer"):
                extra["offer"] = OFFER
            if event in ("accept", "finalize"):
                extra["eventType"] = "ACCEPTED" if event == "accept" else "FINALIZED"
            if event == "agree":
                extra["agreement"] = {
                    **OFFER,
                    "@id": self.agreement,
                    "@type": "Agreement",
                    "assigner": COUNTERPART,
                    "assignee": node.did,
                }
            if event == "start" and peer == "provider":
                extra["dataAddress"] = {"@type": "DataAddress", "endpointType": "x", "endpoint": "http://x"}
            answer = http.post(f"/dsp/2025-1/{noun}/{self.mine}/{path}", json=message(kind, **pids, **extra))
            after = self.expected(event, peer)
            if after is not None:
                assert answer.status_code == 200, answer.text
                self.moved(event, peer, after)
            elif answer.status_code == 200:  # what is so already may be said again
                assert self.again(event), (self.state, event)
            else:
                assert 400 <= answer.status_code < 500
                assert answer.status_code != 404
                assert answer.json()["@type"] == ("ContractNegotiationError" if contract else "TransferError")

        def again(self, event: str) -> bool:
            same = {
                "agree": ("AGREED", "VERIFIED", "FINALIZED"),
                "verify": ("VERIFIED", "FINALIZED"),
                "finalize": ("FINALIZED",),
                "terminate": ("TERMINATED",),
                "start": ("STARTED",) if role == "consumer" else (),
            }
            return self.state in same.get(event, ())

        @rule(event=st.sampled_from(sorted(words)))
        def say(self, event: str) -> None:
            """This side moves by hand, or tries to."""
            after = self.expected(event, role)
            act = node.connector.move_negotiation if contract else node.connector.move_transfer
            try:
                act(self.mine, events(event))
            except IllegalTransition:
                assert after is None
            else:
                assert after is not None, (self.state, event)
                self.moved(event, role, after)

        @rule(event=st.sampled_from(sorted(words)))
        def mistake(self, event: str) -> None:
            """A message that names another process changes nothing."""
            kind, path = words[event]
            pids = {f"{peer}Pid": uuid.uuid4().urn, f"{role}Pid": uuid.uuid4().urn}
            extra = {"offer": OFFER, "agreement": {"@id": "a"}, "eventType": "ACCEPTED"}
            answer = http.post(f"/dsp/2025-1/{noun}/{self.mine}/{path}", json=message(kind, **pids, **extra))
            assert answer.status_code == 400

        @invariant()
        def shown(self) -> None:
            if hasattr(self, "mine"):
                answer = http.get(f"/dsp/2025-1/{noun}/{self.mine}")
                assert answer.json()["state"] == self.state

    return Protocol


@pytest.mark.parametrize("contract", [True, False], ids=["negotiation", "transfer"])
@pytest.mark.parametrize("role", ["provider", "consumer"])
def test_no_message_in_any_state_from_any_role_breaks_the_protocol(under_test, role, contract):
    calm = settings(max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(machine(under_test, role, contract), settings=calm)


def test_a_dataset_id_may_hold_a_line_break(under_test):
    _, http = under_test
    answer = http.get("/dsp/2025-1/catalog/datasets/a%0Ab", headers=HEADERS)
    assert (answer.status_code, answer.json()["@type"]) == (404, "CatalogError")


API = schemathesis.openapi.from_dict(description("http://testserver"))


@API.parametrize()
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered_as_described(under_test, case):
    """Schemathesis sends bodies that fit and bodies that do not: never a 5xx, never an undescribed answer."""
    _, http = under_test
    response = case.call(base_url=str(http.base_url), headers=HEADERS)
    case.validate_response(
        response,
        checks=[
            schemathesis.checks.not_a_server_error,
            schemathesis.specs.openapi.checks.status_code_conformance,
            schemathesis.specs.openapi.checks.content_type_conformance,
        ],
    )
