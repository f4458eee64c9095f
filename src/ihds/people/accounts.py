"""The accounts of the built-in provider: names, scrypt hashes, and what is handed out to be used once."""

from __future__ import annotations

import base64
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, NotAuthenticated
from ihds.store.store import Put

#: OWASP's weakest recommended cost for scrypt: 16 MiB and five passes.
_COST = {"n": 2**14, "r": 8, "p": 5, "maxmem": 2**26, "dklen": 32}
_SHORTEST = 12
_WRONG, _REST_SECONDS = 5, 60.0
_ROOM = 1000


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, **_COST)


def _key(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass
class Accounts:
    """Persons and single-use grants in a store, each write with its event; no secret is kept in the clear."""

    log: Log
    me: str
    _wrong: dict[str, tuple[int, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, user: str, password: str, name: str = "") -> dict[str, str]:
        """Make an account, or give it another password; the subject, once made, never changes.

        Raises:
            BadInput: the name is empty or the password is short.

        """
        if not user.strip() or len(user) > 100 or len(password) < _SHORTEST:
            raise BadInput(f"an account has a name and a password of {_SHORTEST} characters", remedy="choose a longer")
        found = self.log.get("person", user)
        salt = secrets.token_bytes(16)
        body = {
            "subject": found.body["subject"] if found else secrets.token_urlsafe(16),
            "name": name or (found.body["name"] if found else user),
            "salt": base64.b64encode(salt).decode(),
            "hash": base64.b64encode(_hash(password, salt)).decode(),
        }
        told = {"user": user, "subject": body["subject"], "name": body["name"]}
        event = Event("provider.changed", self.me, {k: told[k] for k in ("user", "subject")})
        self.log.commit(event, Put("person", user, found.version if found else 0, body))
        return told

    def remove(self, user: str) -> dict[str, str]:
        """Close an account: it signs in no more, and nothing of it is renewed. Raises BadInput."""
        found = self.log.get("person", user)
        if found is None:
            raise BadInput(f"there is no person {user!r}", remedy="ihds person list")
        told = {"user": user, "subject": str(found.body["subject"])}
        self.log.commit(Event("provider.changed", self.me, told), Put("person", user, found.version, None))
        return told

    def list(self) -> list[dict[str, str]]:
        """Return all accounts."""
        return [{"user": r.id, **{k: r.body[k] for k in ("subject", "name")}} for r in self.log.store.list("person")]

    def check(self, user: str, password: str) -> None:
        """Check a password.

        Raises:
            NotAuthenticated: it is wrong, or was too often; who asks does not learn whether the account exists.

        """
        user = user[:100]
        with self._lock:
            count, since = self._wrong.get(user, (0, 0.0))
            if count >= _WRONG and time.monotonic() < since + _REST_SECONDS:
                raise NotAuthenticated("too many wrong passwords", remedy=f"wait {_REST_SECONDS:g} seconds")
        found = self.log.get("person", user)
        salt, kept = (base64.b64decode(found.body[k]) for k in ("salt", "hash")) if found else (b"-" * 16, b"")
        right = secrets.compare_digest(_hash(password[:1000], salt), kept)  # as slow for a name that nobody has
        with self._lock:
            if right:
                self._wrong.pop(user, None)
                return
            if len(self._wrong) > 10_000:
                self._wrong.clear()
            self._wrong[user] = (count + 1 if count < _WRONG else 1, time.monotonic())
        raise NotAuthenticated("name or password is wrong", remedy="try again")

    def standing(self, user: str) -> dict[str, str] | None:
        """Return subject and name of an account that is open, None where it was closed."""
        found = self.log.get("person", user)
        return {k: str(found.body[k]) for k in ("subject", "name")} if found else None

    # -- what is used once -----------------------------------------------------------------------
    # Only somebody who showed a password makes a record; what strangers ask for waits in ``devices``.

    def hand_out(self, kind: str, body: dict[str, Any], seconds: float) -> str:
        """Return a fresh secret that stands for ``body`` until it is taken, or its time is over."""
        secret = secrets.token_urlsafe(32)
        ends = (self.log.clock() + timedelta(seconds=seconds)).isoformat()
        details = {"grant": kind, "user": body.get("user", ""), "client": body.get("client_id", "")}
        put = Put(f"grant.{kind}", _key(secret), 0, {**body, "ends": ends})
        self.log.commit(Event("provider.granted", self.me, details), put)
        return secret

    def held(self, kind: str, secret: str) -> dict[str, Any] | None:
        """Return what a secret stands for, None where there is none or its time is over."""
        found = self.log.get(f"grant.{kind}", _key(secret))
        alive = found is not None and found.body["ends"] > self.log.clock().isoformat()
        return {**found.body, "version": found.version} if found and alive else None

    def use_up(self, kind: str, secret: str, held: dict[str, Any]) -> None:
        """Use a secret up. Raises Conflict if somebody else was faster."""
        details = {"grant": kind, "user": held.get("user", ""), "client": held.get("client_id", "")}
        put = Put(f"grant.{kind}", _key(secret), int(held["version"]), None)
        self.log.commit(Event("provider.exchanged", self.me, details), put)


@dataclass
class Devices:
    """Device codes that wait to be typed, in memory: anybody may ask for one, so there is room for so many only."""

    seconds: float
    _waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, body: dict[str, Any], typed: str) -> str:
        """Return a fresh device code, to be typed as ``typed``."""
        device, at = secrets.token_urlsafe(32), time.monotonic()
        with self._lock:
            self._waiting = {k: v for k, v in self._waiting.items() if v["ends"] > at}
            while len(self._waiting) >= _ROOM:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[_key(device)] = {**body, "typed": _key(typed), "user": "", "ends": at + self.seconds}
        return device

    def approve(self, typed: str, user: str) -> bool:
        """Let a person answer a code, once; return whether it waited."""
        with self._lock:
            for body in self._waiting.values():
                if body["typed"] == _key(typed) and body["ends"] > time.monotonic():
                    body["user"], body["typed"] = user, ""
                    return True
        return False

    def held(self, device: str) -> dict[str, Any] | None:
        """Return what a device code stands for, None where there is none or its time is over."""
        with self._lock:
            found = self._waiting.get(_key(device))
            return dict(found) if found and found["ends"] > time.monotonic() else None

    def take(self, device: str) -> dict[str, Any] | None:
        """Use up a device code that was answered; None where somebody was faster."""
        with self._lock:
            found = self._waiting.get(_key(device))
            return self._waiting.pop(_key(device)) if found and found["user"] else None
