"""Witnessing: this node looks at the logs of others, signs that they only grew, and says so when they did not.

Trust: a node that signs its own log can write what it likes, but not take it back once a witness saw
it. Who witnesses whom follows from the authority's trust list (``audit.witnessing``), so a node does not
choose its witnesses. Witnesses compare what they saw: a log that shows each of them another history is
found as soon as two of them meet. A log that does not answer is not signed for; that is no alarm.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.audit.witnessing import Checkpoint, grown, witnesses
from ihds.errors import AuditBroken, BadInput, BadMessage, IhdsError, NotFound, Refused
from ihds.ids import Did
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

_log = logging.getLogger("ihds.witness")

#: The service of a DID document at which a node shows its log.
SERVICE = "AuditLog"
#: What a witness signs is a token of this type.
TYPE = "ihds-witness+jwt"
_SECONDS = 10.0
#: So many entries may be added before a log is signed for again, whatever it says of their worth.
_RESTS = 200


class Witness:
    """One node as a witness of others, and with its own witnesses."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self._stopping = threading.Event()
        self._looking: dict[str, threading.Lock] = {}
        self._latest: dict[str, Checkpoint] = {}

    def routes(self) -> list[Route]:
        """Return where the log is shown, and where what this node signed of others lies."""
        return [
            Route("/checkpoint", endpoint(self._show), methods=["GET"]),
            Route("/checkpoint/witnessed", endpoint(self._asked), methods=["POST"]),
            Route("/checkpoint/witnessed/{did:text}", endpoint(self._signed), methods=["GET"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the commands of the operator."""
        return {
            "witness.list": lambda _a: self.watched(),
            "witness.look": lambda _a: self.look_at_all(),
            "witness.accept": lambda a: self.accept(str(a["did"]), str(a.get("reason", ""))),
        }

    def keep(self) -> None:
        """Look at the logs of others in the background, again and again."""
        threading.Thread(target=self._keep, name="witness", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _keep(self) -> None:
        while not self._stopping.wait(self.node.config.witness_seconds):
            try:
                self.look_at_all()
            except Exception:  # noqa: BLE001 - a bug here must not end the watch
                _log.exception("witnessing failed")

    # -- this node's own log ----------------------------------------------------------------------

    def _show(self, call: Call) -> Answer:
        since = call.query.get("since")
        if since is None:
            return Answer(self.node.log.checkpoint())
        if not since.isdigit() or len(since) > 15:
            raise BadInput("since is not a number of entries")
        return Answer(self.node.log.prove(int(since)))

    def mine(self) -> tuple[str, ...]:
        """Return who witnesses this node's log."""
        return witnesses(self.node.did, self.node.trust.members())

    def statements(self) -> list[str]:
        """Ask the witnesses of this node to look now; return what they sign. Who does not answer is left out."""
        found = []
        for witness in self.mine():
            with contextlib.suppress(IhdsError):
                url = f"{self.node.resolver.service(witness, SERVICE)}/witnessed"
                found.append(str(self.node.http.call("POST", url, {}, self.node.identity.token(witness))["statement"]))
        return found

    # -- the logs of others -----------------------------------------------------------------------

    def _asked(self, call: Call) -> Answer:
        log = str(self.node.tokens.check(call.bearer)["iss"])
        if self.node.did not in witnesses(log, self.node.trust.members()):
            raise Refused(f"{self.node.did} is not a witness of {log}", remedy="ask those the trust list gives")
        return Answer({"statement": self.look(Did.parse(log))})

    def _signed(self, call: Call) -> Answer:
        record = self.node.log.get("witness", Did.parse(call.path["did"]))
        if record is None or record.body["alarm"]:
            raise NotFound("this node signed nothing of that log")
        return Answer({"statement": record.body["statement"]})

    def watched(self) -> list[dict[str, Any]]:
        """Return what this node saw of other logs, and whose logs it is to watch."""
        members = self.node.trust.members()
        seen = {r.id: r.body for r in self.node.store.list("witness")}
        watched = {m for m in members if self.node.did in witnesses(m, members)} | set(seen)
        return [
            {
                "log": log,
                "size": seen.get(log, {}).get("seen", {}).get("size", 0),
                "at": seen.get(log, {}).get("at", ""),
                "alarm": seen.get(log, {}).get("alarm", ""),
            }
            for log in sorted(watched)
        ]

    def look_at_all(self) -> list[dict[str, Any]]:
        """Look at every log this node witnesses; return what is known of each."""
        for row in self.watched():
            try:
                self.look(Did.parse(row["log"]))
            except IhdsError as error:
                _log.warning("%s is not signed for: %s", row["log"], error.message)
        return self.watched()

    def look(self, log: Did) -> str:
        """Look at one log; return the signed statement that it extends all this node knows of it.

        Raises:
            AuditBroken: it does not; the alarm is in this node's log, with both checkpoints.
            IhdsError: it does not answer, or not in a form that can be read.

        """
        with self._looking.setdefault(log, threading.Lock()):
            record = self.node.log.get("witness", log)
            body: dict[str, Any] = record.body if record else {"seen": None, "statement": "", "alarm": "", "at": ""}
            if body["alarm"]:
                raise AuditBroken(f"{log}: {body['alarm']}", remedy=_ACCEPT)
            url = self.node.resolver.service(log, SERVICE)
            seen = Checkpoint(**body["seen"]) if body["seen"] else None
            latest = self._latest.get(log)  # also of looks that signed nothing
            before = max((c for c in (seen, latest) if c), key=lambda c: c.size, default=None)
            told, last = self._compare(log, url, before, record)
            self._latest[log] = last
            for other in self._seen_by_others(log):
                if other.size <= last.size:
                    self._compare(log, url, other, record)
            worth = told.get("worth")
            rests = seen and isinstance(worth, int) and worth <= seen.size and last.size <= seen.size + _RESTS
            if rests and body["statement"]:
                return str(body["statement"])  # nothing but witnessing happened there since
            at = now()
            claims = {"iss": self.node.did, "sub": log, "iat": int(at.timestamp()), **last.to_dict()}
            statement = self.node.identity.key.sign_jwt(claims, TYPE)
            after = {"seen": last.to_dict(), "statement": statement, "alarm": "", "at": at.isoformat()}
            event = Event("witness.signed", self.node.did, {"log": log, "size": last.size, "root": last.root})
            self.node.log.commit(event, Put("witness", log, record.version if record else 0, after))
            return statement

    def _compare(self, log: Did, url: str, before: Checkpoint | None, record: Any) -> tuple[dict[str, Any], Checkpoint]:
        """Fetch a log's checkpoint with the proof that it extends one seen before, and check it."""
        told = self.node.http.get_json(f"{url}?since={before.size if before else 0}", seconds=_SECONDS)
        after = Checkpoint.read(log, told, lambda data, text: self.node.resolver.vouches(log, data, text))
        if before is not None and (why := grown(before, after, told.get("consistency") or [])):
            body = {**(record.body if record else {"seen": None, "statement": "", "at": ""}), "alarm": why}
            body["conflict"] = [before.to_dict(), after.to_dict()]
            details = {"log": log, "reason": why, "seen": body["conflict"]}
            put = Put("witness", log, record.version if record else 0, body)
            self.node.log.commit(Event("witness.alarm", self.node.did, details), put)
            raise AuditBroken(f"{log}: {why}", remedy=_ACCEPT)
        return told, after

    def _seen_by_others(self, log: Did) -> list[Checkpoint]:
        """Return what the other witnesses of a log signed of it; who does not answer is left out."""
        found = []
        for other in witnesses(log, self.node.trust.members()):
            if other == self.node.did:
                continue
            with contextlib.suppress(IhdsError):
                answer = self.node.http.get_json(
                    f"{self.node.resolver.service(other, SERVICE)}/witnessed/{log}", seconds=_SECONDS
                )
                found.append(self.read(str(answer.get("statement", "")), log, other))
        return found

    def read(self, statement: str, log: str, witness: str) -> Checkpoint:
        """Return the checkpoint a witness saw; both signatures are checked.

        Raises:
            NotAuthenticated: the witness did not sign it.
            BadMessage: it is of another log, or the log's own signature is missing.

        """
        claims = self.node.resolver.verify(statement, "assertionMethod", witness)
        if claims.get("sub") != log:
            raise BadMessage(f"this is a statement on {claims.get('sub')!r}, not on {log}")
        return Checkpoint.read(log, claims, lambda data, text: self.node.resolver.vouches(log, data, text))

    def accept(self, did: str, reason: str) -> dict[str, Any]:
        """Accept a log as it stands after an alarm: a person looked into it, for example a lost disk.

        Raises:
            NotFound: there is no alarm.
            BadInput: no reason is given.

        """
        record = self.node.log.get("witness", Did.parse(did))
        if record is None or not record.body["alarm"]:
            raise NotFound(f"there is no alarm about {did}", remedy="ihds audit witnesses shows them")
        if not reason:
            raise BadInput("an accepted break of a log needs a reason", remedy="give --reason")
        details = {"log": did, "alarm": record.body["alarm"], "reason": reason}
        self.node.log.commit(
            Event("witness.accepted", self.node.did, details), Put("witness", record.id, record.version, None)
        )
        self._latest.pop(Did.parse(did), None)
        return {"log": did, "accepted": record.body["alarm"], "reason": reason}


_ACCEPT = "ask that institution; accept its log only with its explanation: ihds audit accept DID --reason"
