"""The outer half of a holder in two zones: its connector takes questions and hands them to a worker that fetches them.

The rows, the gate and the gate's log lie in the inner zone, where no port is open. The worker asks
for work over a connection it opens itself, answers over the same, and shows one key. Trust: this half
can withhold or delay questions and tell the worker which transfers are in force; it never holds a row
or a site's unmasked sum. It also tells the worker other participants' DID documents, except those of
the authority and the access bodies, which the worker has pinned.
"""

from __future__ import annotations

import json
import queue
import struct
import threading
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event
from ihds.connector.dataplane.signaling import check_key
from ihds.data.codebook import Codebook
from ihds.errors import BadMessage, NotFound, SiteMissing, from_dict
from ihds.roles import choices
from ihds.store.store import Put
from ihds.wire.serve import MAX_BODY, Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Node

WORKER_KEY_FILE = "worker.key"
#: How long a question waits for a worker's answer, and a worker for a question.
ANSWER_SECONDS = 110.0
POLL_SECONDS = 20.0
_LENGTH = struct.Struct(">I")


def frame(meta: dict[str, Any], body: bytes = b"") -> bytes:
    """Return what travels between the zones: words and bytes together."""
    words = json.dumps(meta).encode()
    return _LENGTH.pack(len(words)) + words + body


def unframe(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Read what travels between the zones.

    Raises:
        BadMessage: it is something else.

    """
    try:
        (length,) = _LENGTH.unpack_from(data)
        meta = json.loads(data[4 : 4 + length])
    except (struct.error, ValueError) as error:
        raise BadMessage(f"this is not a question or answer between zones: {error}") from error
    if not isinstance(meta, dict):
        raise BadMessage("this is not a question or answer between zones")
    return meta, data[4 + length :]


@dataclass
class _Question:
    """One call of the gate that waits for its answer."""

    meta: dict[str, Any]
    body: bytes
    done: threading.Event = field(default_factory=threading.Event)
    answer: tuple[dict[str, Any], bytes] | None = None


@dataclass
class Relay:
    """Stands where the gate would stand, and asks the worker.

    Questions may be repeated without harm, so they are kept in memory, and a worker that starts anew
    is asked again what its former life did not answer.
    """

    node: Node
    _waiting: queue.Queue[_Question] = field(default_factory=queue.Queue)
    _asked: dict[str, _Question] = field(default_factory=dict)
    _life: str = ""

    # -- as a gate -------------------------------------------------------------------------------

    def open(self, signed: str, transfer: str) -> str:
        """Take part in a study."""
        return str(self._ask("open", transfer, signed=signed)[0]["announcement"])

    def join(self, study_id: str, transfer: str, announcements: dict[str, str]) -> bytes:
        """Take everybody's mask keys."""
        return self._ask("join", transfer, study=study_id, announcements=announcements)[1]

    def answer(self, study_id: str, transfer: str, body: bytes) -> bytes:
        """Answer a round."""
        return self._ask("answer", transfer, body, study=study_id)[1]

    def step(self, study_id: str, transfer: str, name: str, body: bytes) -> bytes:
        """Go on with a round."""
        return self._ask("step", transfer, body, study=study_id, name=name)[1]

    def close(self, study_id: str, transfer: str) -> None:
        """End a study."""
        self._ask("close", transfer, study=study_id)

    def close_transfer(self, transfer: str) -> None:
        """End the studies of a transfer; the worker does so when it next asks, wherever it is now."""
        self._waiting.put(_Question({"verb": "close_transfer", "transfer": transfer, "id": uuid.uuid4().hex}, b""))

    def _ask(self, verb: str, transfer: str, body: bytes = b"", **words: Any) -> tuple[dict[str, Any], bytes]:
        asked = _Question({"id": uuid.uuid4().hex, "verb": verb, "transfer": transfer, **words}, body)
        self._asked[asked.meta["id"]] = asked
        self._waiting.put(asked)
        try:
            if not asked.done.wait(ANSWER_SECONDS) or asked.answer is None:
                raise SiteMissing("the worker of this holder does not answer", remedy="start it: ihds worker run")
        finally:
            self._asked.pop(asked.meta["id"], None)
        meta, answered = asked.answer
        if "error" in meta:
            raise from_dict(meta["error"])
        return meta, answered

    # -- for the worker --------------------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the endpoints the worker calls; it shows the worker key."""
        return [
            Route("/worker/hello", endpoint(self._hello), methods=["PUT"]),
            Route("/worker/next", endpoint(self._next), methods=["POST"]),
            Route("/worker/answers", endpoint(self._answered, max_body=MAX_BODY, before=self._known), methods=["POST"]),
            Route("/worker/grants/{transfer}", endpoint(self._grant), methods=["GET"]),
            Route("/worker/fetch", endpoint(self._fetch), methods=["POST"]),
            Route("/worker/opt-outs", endpoint(self._opt_outs), methods=["GET"]),
        ]

    def _check(self, call: Call) -> None:
        check_key(call, (self.node.folder / WORKER_KEY_FILE).read_text(encoding="utf-8").strip())

    def _known(self, call: Call) -> Answer:
        self._check(call)
        return Answer()

    def _hello(self, call: Call) -> Answer:
        """Take the worker's public keys and the descriptions of its datasets."""
        self._check(call)
        body = call.json()
        kept = {"keys": body.get("keys", []), "datasets": body.get("datasets", {})}
        found = self.node.log.get("worker", "inner")
        if found is None or found.body != kept:
            put = Put("worker", "inner", found.version if found else 0, kept)
            self.node.log.commit(Event("worker.registered", self.node.did, {"datasets": sorted(kept["datasets"])}), put)
            self.node.institution.refresh()
        self._life = str(body.get("life", ""))
        for asked in list(self._asked.values()):
            self._waiting.put(asked)
        return Answer({"did": self.node.did, "country": self.node.config.country})

    def _next(self, call: Call) -> Answer:
        self._check(call)
        try:
            asked = self._waiting.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return Answer(None, status=204)
        if call.json().get("life") != self._life:  # a former life of the worker asked, and nobody is there
            self._waiting.put(asked)
            return Answer(None, status=204)
        return Answer(raw=frame(asked.meta, asked.body), media_type="application/octet-stream")

    def _answered(self, call: Call) -> Answer:
        self._check(call)
        meta, body = unframe(call.body)
        asked = self._asked.get(str(meta.get("id")))
        if asked is None:
            raise NotFound("nobody waits for this answer any more")
        asked.answer = (meta, body)
        asked.done.set()
        return Answer({})

    def _grant(self, call: Call) -> Answer:
        """Tell what is in force for a transfer, with the signed proofs; the worker verifies them itself."""
        self._check(call)
        return Answer(self.node.institution.proofs(call.path["transfer"]))

    def _fetch(self, call: Call) -> Answer:
        """Fetch a public document for the worker, which reaches nobody else."""
        self._check(call)
        answer = self.node.http.send("GET", str(call.json().get("url")))
        media = answer.headers.get("content-type", "application/json")
        return Answer(raw=answer.content, status=answer.status_code, media_type=media)

    def _opt_outs(self, call: Call) -> Answer:
        """Pass on a page of the list of opt-outs; the registry signed it, and its pseudonyms mean nothing here."""
        self._check(call)
        return Answer({"list": choices.page(self.node, call.query.get("dataset", ""), int(call.query["after"]))})

    def ticket(self) -> dict[str, Any]:
        """Return what a worker is made from: the key it shows, and the documents it pins."""
        config = self.node.config
        named = [d for d in (config.authority, *config.access_bodies, config.opt_out_registry) if d]
        return {
            "key": (self.node.folder / WORKER_KEY_FILE).read_text(encoding="utf-8").strip(),
            "connector": config.base_url,
            "did": self.node.did,
            "country": config.country,
            "authority": config.authority,
            "access_bodies": list(config.access_bodies),
            "pinned": {did: self.node.resolver.resolve(did) for did in named},
            "opt_outs": choices.ticket(self.node),
        }

    # -- what the worker told --------------------------------------------------------------------

    def keys(self) -> list[tuple[str, dict[str, Any], bool]]:
        """Return the worker's keys for the DID document: they sign mask keys, nothing else."""
        found = self.node.log.get("worker", "inner")
        return [(str(kid), dict(jwk), False) for kid, jwk in (found.body["keys"] if found else [])]

    def described(self) -> dict[str, tuple[Codebook, int]]:
        """Return the codebook and number of persons of each dataset the worker holds."""
        found = self.node.log.get("worker", "inner")
        datasets = found.body["datasets"] if found else {}
        return {name: (Codebook.from_dict(d["codebook"]), int(d["persons"])) for name, d in datasets.items()}
