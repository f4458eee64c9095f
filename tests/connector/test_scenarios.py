"""Every scenario of the official kit, natively: a counterpart that sends exactly those sequences."""

from __future__ import annotations

import json
import queue
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import uvicorn

from ihds.connector.dsp.message import message
from ihds.roles.config import free_port
from tests.kit.node import application
from tests.kit.scenarios import BEARER, FORMAT, SCENARIOS, offer_id

HEADERS = {"Authorization": f"Bearer {BEARER}"}
RULE = {"permission": [{"action": "use"}]}
NEGOTIATION = {
    "Request": ("ContractRequestMessage", "request"),
    "Offer": ("ContractOfferMessage", "offers"),
    "Accepted": ("ContractNegotiationEventMessage", "events"),
    "Agreement": ("ContractAgreementMessage", "agreement"),
    "Verification": ("ContractAgreementVerificationMessage", "agreement/verification"),
    "Finalized": ("ContractNegotiationEventMessage", "events"),
    "Termination": ("ContractNegotiationTerminationMessage", "termination"),
}
TRANSFER = {
    "Request": ("TransferRequestMessage", "request"),
    "Start": ("TransferStartMessage", "start"),
    "Suspension": ("TransferSuspensionMessage", "suspension"),
    "Completion": ("TransferCompletionMessage", "completion"),
    "Termination": ("TransferTerminationMessage", "termination"),
}


class Counterpart:
    """The other side: records what the node sends, answers as the kit does (200, mostly without a body)."""

    def __init__(self) -> None:
        self.inbox: dict[str, queue.Queue] = {}
        self.answered_at: dict[str, float] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = outer.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path: str, body: dict) -> bytes:
        body["_at"] = time.monotonic()
        first = path.endswith(("/negotiations/request", "/transfers/request"))
        key = (
            body["consumerPid"]
            if first
            else path.rsplit("/", 3)[1]
            if path.endswith("verification")
            else path.split("/")[2]
        )
        answer = b""
        if first:
            kind = "ContractNegotiation" if "/negotiations/" in path else "TransferProcess"
            body["providerPid"] = uuid.uuid4().urn
            answer = json.dumps(
                message(kind, consumerPid=key, providerPid=body["providerPid"], state="REQUESTED")
            ).encode()
            self.queue_of(body["providerPid"])
        self.queue_of(key).put((path, body))
        return answer

    def queue_of(self, pid: str) -> queue.Queue:
        return self.inbox.setdefault(pid, queue.Queue())


@pytest.fixture(scope="module")
def under_test(tmp_path_factory):
    port = free_port()
    app = application(tmp_path_factory.mktemp("kit") / "node", port, pause=0.2, delay=0.0)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(5)


@pytest.fixture(scope="module")
def counterpart():
    made = Counterpart()
    yield made
    made.server.shutdown()
    made.server.server_close()


class Play:
    """One scenario between the node and its counterpart."""

    def __init__(self, scenario, node: str, counterpart: Counterpart, http: httpx.Client) -> None:
        self.scenario, self.node, self.counterpart = scenario, node, counterpart
        self.negotiates = scenario.kind.startswith("CN")
        self.noun = "negotiations" if self.negotiates else "transfers"
        self.words = NEGOTIATION if self.negotiates else TRANSFER
        self.provider = not scenario.kind.endswith("_C")
        self.mine, self.theirs = uuid.uuid4().urn, ""
        self.acquainted, self.answered = False, 0.0
        self.http = http

    def begin(self) -> None:
        key, base = self.scenario.key, f"{self.node}/dsp/2025-1"
        offer = {"@id": offer_id(key), "@type": "Offer", "target": key, **RULE}
        if self.provider:
            first = {"consumerPid": self.mine, "callbackAddress": self.counterpart.url}
            if self.negotiates:
                body = message("ContractRequestMessage", **first, offer=offer)
            else:
                body = message("TransferRequestMessage", **first, agreementId=key, format=FORMAT)
            self.counterpart.queue_of(self.mine)
            answer = self.http.post(f"{base}/{self.noun}/request", json=body)
            self.answered = time.monotonic()
            assert answer.status_code == 201
            assert answer.json()["state"] == "REQUESTED"
            self.theirs = answer.json()["providerPid"]
            return
        asked = {"providerId": "TCK_PARTICIPANT", "connectorAddress": self.counterpart.url}
        asked |= (
            {"offerId": offer_id(key), "datasetId": key} if self.negotiates else {"agreementId": key, "format": FORMAT}
        )
        answer = self.http.post(f"{self.node}/tck/{self.noun}/requests", json=asked)
        self.theirs = answer.json()["pid"]

    def receive(self, word: str) -> None:
        first = not self.provider and not self.acquainted
        path, body = self.counterpart.queue_of(self.theirs if first else self.mine).get(timeout=10)
        assert body["@type"] == self.words[word][0]
        if word in ("Accepted", "Finalized"):
            assert body["eventType"] == word.upper()
        if first:
            assert path.endswith(f"/{self.noun}/request")
            self.mine, self.acquainted = body["providerPid"], True
        elif self.answered:
            assert "callbackAddress" not in body
            assert body["_at"] >= self.answered, "a message overtook the answer that caused it"

    def send(self, word: str) -> httpx.Response:
        kind, path = self.words[word]
        pids = {"consumerPid": self.mine, "providerPid": self.theirs}
        if not self.provider:
            pids = {"consumerPid": self.theirs, "providerPid": self.mine}
        offer = {"@id": offer_id(self.scenario.key), "@type": "Offer", "target": self.scenario.key, **RULE}
        extra: dict = {"@id": uuid.uuid4().urn}
        if word in ("Request", "Offer"):
            extra["offer"] = offer
        if word in ("Accepted", "Finalized"):
            extra["eventType"] = word.upper()
        if word == "Agreement":
            me = self.http.get(f"{self.node}/health").json()["did"]
            extra["agreement"] = {
                **offer,
                "@id": uuid.uuid4().urn,
                "@type": "Agreement",
                "assigner": "TCK_PARTICIPANT",
                "assignee": me,
                "timestamp": "2026-01-01T01:00:00Z",
            }
        body = message(kind, **pids, **extra)
        # what the node does because of this message can come only after this call has returned
        answer = self.http.post(f"{self.node}/dsp/2025-1/{self.noun}/{self.theirs}/{path}", json=body)
        self.answered = time.monotonic() - 0.005
        return answer

    def shows(self, state: str) -> None:
        until = time.monotonic() + 5
        while True:
            answer = self.http.get(f"{self.node}/dsp/2025-1/{self.noun}/{self.theirs}")
            assert answer.status_code == 200
            if answer.json()["state"] == state:
                return
            assert time.monotonic() < until, f"{answer.json()['state']}, not {state}"
            time.sleep(0.02)

    def run(self) -> None:
        self.begin()
        for step in self.scenario.steps.split():
            sign, word = step[0], step[1:]
            if sign == ">":
                self.receive(word)
            elif sign == "=":
                self.shows(word)
            else:
                status = self.send(word).status_code
                assert status == 200 if sign == "<" else 400 <= status < 500 and status != 404, (step, status)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.name)
def test_scenario_of_the_kit(scenario, under_test, counterpart):
    with httpx.Client(headers=HEADERS, timeout=10) as http:
        Play(scenario, under_test, counterpart, http).run()


def test_metadata_and_catalog(under_test):
    with httpx.Client(headers=HEADERS, base_url=under_test) as http:
        entry = http.get("/.well-known/dspace-version", headers={"Authorization": ""}).json()["protocolVersions"][0]
        assert (entry["version"], entry["path"], entry["binding"]) == ("2025-1", "/dsp/2025-1", "HTTPS")
        listed = http.post("/dsp/2025-1/catalog/request", json=message("CatalogRequestMessage")).json()
        assert "CAT0101" in {d["@id"] for d in listed["dataset"]}
        assert http.get("/dsp/2025-1/catalog/datasets/CAT0102").json()["@id"] == "CAT0102"
        absent = http.get("/dsp/2025-1/catalog/datasets/CAT0103")
        assert (absent.status_code, absent.json()["@type"]) == (404, "CatalogError")
