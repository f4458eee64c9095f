"""Sessions at a node: opened by an ID token for one key, short, renewed by the provider's word, closed at once."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ihds.audit.log import Event, Log
from ihds.errors import NotAuthenticated
from ihds.people.oidc import OpenIdProvider, Person
from ihds.people.proofs import b64_sha256
from ihds.store.store import Put, Record

#: How long a challenge waits for its sign-in, and how many wait at most.
_CHALLENGE_SECONDS, _MOST = 600.0, 10_000
#: How old the provider's word may be when a session is renewed.
_FRESH_SECONDS = 300


def nonce_of(challenge: str, key: str) -> str:
    """Return the nonce of a sign-in: an ID token with it opens a session for this challenge and this key only."""
    return b64_sha256(f"{challenge}.{key}")


@dataclass(frozen=True, slots=True)
class Session:
    """Who is signed in; ``roles`` are those the provider's claim carries, None where the node's own table counts."""

    id: str
    person: Person
    roles: tuple[str, ...] | None
    expires_at: datetime


@dataclass
class Sessions:
    """The sessions of one node over its log. A session lasts ``minutes`` and is renewed for at most ``hours``."""

    log: Log
    me: str
    provider: OpenIdProvider
    minutes: float = 15.0
    hours: float = 10.0
    roles_claim: str = ""
    admitted: Callable[[Person, tuple[str, ...] | None], object] = lambda _person, _roles: None
    _challenges: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def challenge(self) -> str:
        """Return a fresh challenge for one sign-in."""
        at = self.log.clock().timestamp()
        made = secrets.token_urlsafe(32)
        with self._lock:
            if len(self._challenges) >= _MOST:
                self._challenges = {c: t for c, t in self._challenges.items() if t > at - _CHALLENGE_SECONDS}
            while len(self._challenges) >= _MOST:
                self._challenges.pop(next(iter(self._challenges)))
            self._challenges[made] = at
        return made

    def open(self, challenge: str, id_token: str, key: str) -> tuple[str, Session]:
        """Open a session for the holder of a key; return its secret, once, and whose it is.

        Raises:
            NotAuthenticated: the challenge is unknown, used or old; the ID token is not for it and this key.
            Refused: the person has no account here.

        """
        at = self.log.clock()
        with self._lock:
            made = self._challenges.pop(challenge, None)
        if made is None or made < at.timestamp() - _CHALLENGE_SECONDS:
            raise NotAuthenticated("this sign-in was not begun here, or is over", remedy="ihds login")
        person, claims = self.provider.identify(id_token, nonce_of(challenge, key))
        roles = self._roles(claims)
        self.admitted(person, roles)
        secret = secrets.token_urlsafe(32)
        body = {
            "issuer": person.issuer,
            "subject": person.subject,
            "name": person.name,
            "roles": None if roles is None else list(roles),
            "key": key,
            "until": (at + timedelta(hours=self.hours)).isoformat(),
            "expires_at": (at + timedelta(minutes=self.minutes)).isoformat(),
        }
        identifier = hashlib.sha256(secret.encode()).hexdigest()
        self._write("session.opened", identifier, person, 0, body)
        return secret, self._read(Record("session", identifier, 1, body))

    def whose(self, secret: str, key: str) -> Session:
        """Return whose session it is.

        Raises:
            NotAuthenticated: there is none, it is over, or another key opened it.

        """
        return self._read(self._held(secret, key))

    def renew(self, secret: str, key: str, id_token: str) -> Session:
        """Let a session go on, by a fresh word of the provider about the same person.

        Raises:
            NotAuthenticated: the session cannot be renewed any more, or the word is old or about somebody else.

        """
        found = self._held(secret, key, renewing=True)
        person, claims = self.provider.identify(id_token)
        at = self.log.clock()
        if (person.issuer, person.subject) != (found.body["issuer"], found.body["subject"]):
            raise NotAuthenticated("the ID token is about somebody else")
        if not isinstance(claims.get("iat"), (int, float)) or claims["iat"] < at.timestamp() - _FRESH_SECONDS:
            raise NotAuthenticated("the provider's word is old", remedy="ihds login")
        roles = self._roles(claims)
        self.admitted(person, roles)
        until = datetime.fromisoformat(found.body["until"])
        body = {
            **found.body,
            "roles": None if roles is None else list(roles),
            "expires_at": min(at + timedelta(minutes=self.minutes), until).isoformat(),
        }
        self._write("session.renewed", found.id, person, found.version, body)
        return self._read(Record("session", found.id, found.version + 1, body))

    def close(self, secret: str, key: str) -> None:
        """End a session at once. Raises NotAuthenticated."""
        found = self._held(secret, key, renewing=True)
        person = Person(found.body["issuer"], found.body["subject"])
        self._write("session.closed", found.id, person, found.version, None)

    def _held(self, secret: str, key: str, *, renewing: bool = False) -> Record:
        found = self.log.get("session", hashlib.sha256(secret.encode()).hexdigest()) if secret else None
        ends = datetime.fromisoformat(found.body["until" if renewing else "expires_at"]) if found else None
        if found is None or ends is None or ends <= self.log.clock():
            raise NotAuthenticated("nobody is signed in by this session", remedy="ihds login")
        if not secrets.compare_digest(str(found.body["key"]), key):
            raise NotAuthenticated("another key opened this session", remedy="ihds login")
        return found

    def _read(self, record: Record) -> Session:
        body = record.body
        roles = None if body["roles"] is None else tuple(body["roles"])
        person = Person(body["issuer"], body["subject"], body["name"])
        return Session(record.id, person, roles, datetime.fromisoformat(body["expires_at"]))

    def _roles(self, claims: dict[str, Any]) -> tuple[str, ...] | None:
        if not self.roles_claim:
            return None
        found = claims.get(self.roles_claim)
        return tuple(r for r in found if isinstance(r, str)) if isinstance(found, list) else ()

    def _write(self, kind: str, identifier: str, person: Person, version: int, body: dict[str, Any] | None) -> None:
        details = {"session": identifier[:16], "issuer": person.issuer, "subject": person.subject}
        self.log.commit(Event(kind, self.me, details), Put("session", identifier, version, body))
