"""The registry of opt-outs (EHDS Art. 71): people's choices under pseudonyms, with their whole history.

No name or identifier is kept. An officer takes a choice at the counter; the person keeps a code with which
alone the choice can be looked at or reversed. Each holder gets the choices under pseudonyms of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np
from starlette.routing import Route

from ihds.audit.log import Event, now
from ihds.canonical import digest
from ihds.catalogue import citizens
from ihds.errors import BadInput, NotFound, Refused
from ihds.federation import ledger
from ihds.federation.opt_outs import Page
from ihds.governance.opt_out import SCOPES, Choice, Entry, as_of
from ihds.ids import Did
from ihds.privacy.opt_outs import ENTRY, subject, told
from ihds.store.store import Put, Record
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ihds.roles.node import Command, Node

#: Entries a page of the list holds at most: with both its encodings about one megabyte.
PAGE = 20_000
#: Letters of a receipt's code (Crockford's base 32); 20 of them are 100 bits, more than anybody can guess.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH = 20

_HEAD, _ENTRY, _SUBJECT, _RECEIPT, _PAIR = (f"opt_out.{k}" for k in ("head", "entry", "subject", "receipt", "pair"))
_SCOPES = tuple(scope.id for scope in SCOPES)


class Registry:
    """A service of an access body's node, or of another authority's."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        self._lock = threading.Lock()
        self._entries: list[tuple[Entry, str]] = []

    def routes(self) -> list[Route]:
        """Return the person's endpoints and the holders'."""
        return [
            Route("/opt-outs", endpoint(self._page_for_people), methods=["GET"]),
            Route("/opt-outs/receipts", endpoint(self._look), methods=["POST"]),
            Route("/opt-outs/reversals", endpoint(self._reverse), methods=["POST"]),
            Route("/opt-outs/keys", endpoint(self._keys), methods=["POST"]),
            Route("/opt-outs/list", endpoint(self._list), methods=["GET"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the commands of the officer at the counter."""
        return {
            "citizen.opt_out": lambda a: self.record(Choice.OPTED_OUT, a),
            "citizen.reverse": lambda a: self.record(Choice.REVERSED, a),
            "citizen.status": self.status,
        }

    # -- at the counter --------------------------------------------------------------------------

    def record(self, choice: Choice, arguments: dict[str, Any]) -> dict[str, Any]:
        """Record a choice for the person at the counter; return the receipt in the person's language.

        ``declared_at`` is when the person chose, if that was before now. A choice that stands already is not
        recorded again; the person gets a new receipt.

        Raises:
            BadInput: no identifier, an unknown scope, or a time that is to come.
            NotFound: the reversal of an opt-out that there is not.

        """
        scope = str(arguments.get("scope") or "all")
        if scope not in _SCOPES:
            raise BadInput(f"there is no scope {scope!r}", remedy=f"give one of: {', '.join(_SCOPES)}")
        named = self._subject(arguments)
        declared = str(arguments.get("declared_at") or "")
        try:
            at = datetime.fromisoformat(declared) if declared else now()
        except ValueError as error:
            raise BadInput(f"{declared!r} is no time", remedy="write for example 2029-04-01T10:30:00+02:00") from error
        if at.tzinfo is None or at > now():
            raise BadInput("a choice is declared at a time that has been, with its time zone", remedy="leave it out")
        body = self._enter(named, scope, choice, at, f"counter {arguments.get('by') or ''}".strip())
        return self._receipt(named, scope, body, str(arguments.get("language") or "en"))

    def _enter(self, named: str, scope: str, choice: Choice, at: datetime, source: str, *more: Put) -> Entry:
        """Record a choice of a person, unless it stands already: nothing is overwritten."""
        with self._lock:
            entries = self._known()
            found = self.node.log.get(_SUBJECT, named)
            before: list[int] = found.body["versions"] if found else []
            of_scope = [entries[v - 1][0] for v in before if entries[v - 1][0].scope == scope]
            stands = as_of(of_scope, now(), now())
            if choice is Choice.REVERSED and stands is None:
                raise NotFound("no opt-out of this person is recorded in this scope", remedy="ihds citizen status")
            if choice is stands and not more:
                return max(of_scope, key=lambda e: (e.holds_from, e.version))
            last = entries[-1] if entries else None
            recorded = max(now(), last[0].recorded_at) if last else now()  # a clock set back reorders nothing
            since = at.astimezone(UTC).replace(microsecond=0)  # as permits are: in whole seconds
            entry = Entry(len(entries) + 1, named, scope, choice, since, recorded, source)
            chain = digest([last[1] if last else "", entry.to_dict()])
            head = self.node.log.get(_HEAD, "head")
            versions = [*before, entry.version]
            details = {"version": entry.version, "scope": scope, "choice": str(choice), "source": source}
            self.node.log.commit(
                Event("opt_out.recorded", self.node.did, {**details, "chain": chain}),
                Put(_ENTRY, f"{entry.version:012d}", 0, {**entry.to_dict(), "chain": chain}),
                Put(_SUBJECT, named, found.version if found else 0, {"versions": versions}),
                Put(_HEAD, "head", head.version if head else 0, {"version": entry.version, "chain": chain}),
                *more,
            )
            self._entries.append((entry, chain))
            return entry

    def _receipt(self, named: str, scope: str, entry: Entry, language: str) -> dict[str, Any]:
        code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        shown = "-".join(code[i : i + 5] for i in range(0, _LENGTH, 5))
        body = {"subject": named, "scope": scope, "issued_at": now().isoformat(), "used": False}
        event = Event("opt_out.receipt", self.node.did, {"version": entry.version})
        self.node.log.commit(event, Put(_RECEIPT, _hashed(code), 0, body))
        url = f"{self.node.config.base_url}/opt-outs"
        return {
            "choice": str(entry.choice),
            "scope": scope,
            "holds_from": entry.holds_from.isoformat(timespec="seconds"),
            "code": shown,
            "receipt": citizens.receipt(language, str(entry.choice), scope, entry.holds_from, shown, url),
        }

    def status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a person's choices: now, or as of a time as known at another; by identifier or by code."""
        code = str(arguments.get("code") or "")
        named = str(self._of_code(code).body["subject"]) if code else self._subject(arguments)
        try:
            valid, known = (
                datetime.fromisoformat(str(arguments.get(n) or now().isoformat())) for n in ("valid", "known")
            )
        except ValueError as error:
            raise BadInput(f"this is no time: {error}", remedy="write for example 2029-04-01T10:30:00+02:00") from error
        if valid.tzinfo is None or known.tzinfo is None:
            raise BadInput("a time needs its zone", remedy="write for example 2029-04-01T10:30:00+02:00")
        mine = self._of_subject(named)
        choices = {s: as_of([e for e in mine if e.scope == s], valid, known) for s in _SCOPES}
        history = [{k: v for k, v in e.to_dict().items() if k != "subject"} for e in mine if e.recorded_at <= known]
        return {"choices": {s: str(c) for s, c in choices.items() if c}, "history": history}

    def _of_subject(self, named: str) -> list[Entry]:
        found = self.node.log.get(_SUBJECT, named)
        versions = found.body["versions"] if found else []
        with self._lock:
            entries = self._known()
        return [entries[v - 1][0] for v in versions]

    def _subject(self, arguments: dict[str, Any]) -> str:
        identifier = str(arguments.get("id") or "").strip()
        if not any(c.isalnum() for c in identifier):
            raise BadInput("whose choice is it?", remedy="give the national identifier, or the receipt's code")
        country = str(arguments.get("country") or self.node.config.country)
        return subject(self._first(), country, identifier)

    # -- for a person with a receipt ---------------------------------------------------------------

    def _page_for_people(self, call: Call) -> Answer:
        return self._shown(call, None)

    def _look(self, call: Call) -> Answer:
        """Return what stands in the scope of a receipt, and whether its code was used to reverse it."""
        return self._said(call, self._standing)

    def _reverse(self, call: Call) -> Answer:
        """Reverse the opt-out of a receipt (Art. 71(2)), once; the same call again gets the same answer."""

        def reversed_(record: Record) -> dict[str, Any]:
            body = record.body
            if not body["used"]:
                spent = Put(_RECEIPT, record.id, record.version, {**body, "used": True})
                self._enter(body["subject"], body["scope"], Choice.REVERSED, now(), "receipt", spent)
            return self._standing(self._of_code_hash(record.id))

        return self._said(call, reversed_)

    def _standing(self, record: Record) -> dict[str, Any]:
        scope = str(record.body["scope"])
        mine = [e for e in self._of_subject(str(record.body["subject"])) if e.scope == scope]
        return {"scope": scope, "choice": as_of(mine, now(), now()), "used": record.body["used"]}

    def _said(self, call: Call, act: Callable[[Record], dict[str, Any]]) -> Answer:
        """Answer a program in JSON, and a form with the page."""
        if not call.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return Answer(act(self._of_code(str(call.json().get("code", "")))))
        code = dict(parse_qsl(call.body.decode(errors="replace"))).get("code", "")
        try:
            return self._shown(call, act(self._of_code(code)))
        except NotFound:
            return self._shown(call, {"choice": None}, 404)

    def _shown(self, call: Call, answer: dict[str, Any] | None, status: int = 200) -> Answer:
        language = citizens.chosen(call.query.get("lang", ""), call.headers.get("accept-language", ""))
        page = citizens.registry_page(language, self.node.config.name, self.node.config.base_url, answer)
        return Answer(raw=page.encode(), media_type="text/html; charset=utf-8", status=status)

    def _of_code(self, code: str) -> Record:
        return self._of_code_hash(_hashed(code))

    def _of_code_hash(self, hashed: str) -> Record:
        record = self.node.log.get(_RECEIPT, hashed)
        if record is None:
            raise NotFound("there is no such receipt", remedy="read the code again; it has 20 letters and digits")
        return record

    # -- for holders -----------------------------------------------------------------------------

    def _holder(self, call: Call, dataset: str) -> str:
        """Return the holder that asks, and note the pair of holder and dataset when it is seen first."""
        who = str(self.node.members.check(call.headers.get("authorization", ""))["iss"])
        if self.node.members.role(who) != "holder":
            raise Refused("only holders learn of opt-outs", reasons=("EHDS 71: nobody else may use the registry",))
        if not 0 < len(dataset) <= 200:
            raise BadInput("which dataset?", remedy="name it")
        pair = digest([who, dataset])
        if self.node.log.get(_PAIR, pair) is None:
            details = {"holder": who, "dataset": dataset}
            self.node.log.commit(Event("opt_out.paired", who, details), Put(_PAIR, pair, 0, details))
        return who

    def _keys(self, call: Call) -> Answer:
        dataset = str(call.json().get("dataset", ""))
        return Answer({"keys": [key.hex() for key in self.keys(self._holder(call, dataset), dataset)]})

    def keys(self, holder: str, dataset: str) -> tuple[bytes, bytes]:
        """Return the keys of the pseudonyms of one holder's dataset; the first is the same for all."""
        return self._first(), self._second(holder, dataset)

    def _list(self, call: Call) -> Answer:
        """Return, signed, what was recorded after a version, under the pseudonyms of one holder's dataset."""
        dataset, after = call.query.get("dataset", ""), call.query.get("after", "0")
        holder = self._holder(call, dataset)
        if not after.isdecimal() or len(after) > 15:
            raise BadInput("after which version?", remedy="send a number")
        claims = self.page(holder, dataset, int(after)).claims()
        return Answer({"list": self.node.identity.key.sign_jwt({**claims, "iss": self.node.did})})

    def page(self, holder: str, dataset: str, after: int) -> Page:
        """Return what was recorded after a version, for one holder's dataset.

        Raises:
            NotFound: there are fewer entries: a holder saw some that are gone.

        """
        with self._lock:  # whoever records waits, so all that was recorded until now is in the list
            entries, at = self._known(), now()
        if after > len(entries):
            raise NotFound(f"the registry holds {len(entries)} entries, not {after}", remedy="ask its operator")
        part = entries[after : after + PAGE]
        return Page(
            holder=holder,
            dataset=dataset,
            after=after,
            before=entries[after - 1][1] if after else "",
            chain=entries[after + len(part) - 1][1] if entries else "",
            last=after + len(part) == len(entries),
            as_of=at,
            scopes=_SCOPES,
            entries=self._packed([e for e, _ in part], self._second(holder, dataset)),
        )

    def _packed(self, entries: Sequence[Entry], key: bytes) -> Any:
        packed = np.zeros(len(entries), dtype=ENTRY)
        packed["token"] = told(key, [e.subject for e in entries])
        packed["scope"] = [_SCOPES.index(e.scope) for e in entries]
        packed["out"] = [e.choice is Choice.OPTED_OUT for e in entries]
        packed["holds_from"] = [int(e.holds_from.timestamp()) for e in entries]
        packed["recorded_at"] = [int(e.recorded_at.timestamp()) for e in entries]
        return packed

    # -- keys and entries ------------------------------------------------------------------------

    def _master(self) -> bytes:
        return ledger.secret(self.node.log, self.node.signatures, self.node.did, "opt_out.secret", "opt_out.begun")

    def _first(self) -> bytes:
        return hmac.digest(self._master(), b"subjects", "sha256")

    def _second(self, holder: str, dataset: str) -> bytes:
        return hmac.digest(self._master(), f"pair {Did.parse(holder)} {dataset}".encode(), "sha256")

    def _known(self) -> list[tuple[Entry, str]]:
        """Return all entries with the chain after each; kept in memory, read on from the store where it grew."""
        head = self.node.log.get(_HEAD, "head")
        version = int(head.body["version"]) if head else 0
        if not self._entries and version:
            self._entries = [(Entry.from_dict(r.body), str(r.body["chain"])) for r in self.node.store.list(_ENTRY)]
        while len(self._entries) < version:  # another process of this registry recorded them
            record = self.node.log.get(_ENTRY, f"{len(self._entries) + 1:012d}")
            assert record is not None
            self._entries.append((Entry.from_dict(record.body), str(record.body["chain"])))
        return self._entries


def _hashed(code: str) -> str:
    plain = "".join(c for c in code.upper() if c.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()
