"""The people of an institution: accounts with duties, and who each of them is.

Trust: whoever holds the node's management key administers accounts. Where a provider signs people in, an account is
one person's, by the provider's subject, and nobody else acts in its name, the management key neither. Where none does,
the key says in whose name a command is given, and an account may have a key of its own.
"""

from __future__ import annotations

import hashlib
import secrets
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, NotAuthenticated, Refused
from ihds.governance.duties import Actor, Role
from ihds.store.store import Put, Record

if TYPE_CHECKING:
    from ihds.people.oidc import Person
    from ihds.roles.node import Command

#: Who gives the present command, where a person signed in for it.
acting: ContextVar[Actor | None] = ContextVar("actor", default=None)


@dataclass
class Officers:
    """Accounts in the node's store; a key is shown once and kept as its hash.

    ``duties`` are those of this institution; ``issuer`` is the provider that signs people in, or empty.
    """

    log: Log
    me: str
    duties: tuple[Role, ...]
    issuer: str = ""

    def commands(self) -> dict[str, Command]:
        """Return the administrator's commands, and the list that everybody here sees."""
        return {
            "officer.list": lambda _a: self.list(),
            "officer.add": lambda a: self.add(str(a["name"]), tuple(map(str, a["roles"])), str(a.get("subject") or "")),
            "officer.remove": lambda a: self.remove(str(a["name"])),
        }

    def list(self) -> list[dict[str, Any]]:
        """Return every account with its duties."""
        rows = self.log.store.list("officer")
        return [{"name": r.id, "roles": r.body["roles"], "subject": r.body.get("subject", "")} for r in rows]

    def add(self, name: str, roles: tuple[str, ...], subject: str = "") -> dict[str, Any]:
        """Make an account, or give it other duties; its key is shown this once, where no provider signs people in.

        Raises:
            BadInput: a duty is unknown, the name is empty, or the subject is missing or another account's.

        """
        duties = {str(role): role for role in self.duties}
        unknown = [r for r in roles if r not in duties]
        if unknown or not roles or not name.strip() or len(name) > 200:
            raise BadInput(
                f"an account has a name and duties; unknown: {unknown}", remedy=f"duties are: {', '.join(duties)}"
            )
        if bool(subject) != bool(self.issuer):
            asks = f"{self.issuer or 'no provider'} signs people in here"
            raise BadInput(f"{asks}: an account {'needs' if self.issuer else 'has no'} subject", remedy="--subject")
        found = self.log.get("officer", name)
        key = "" if subject else secrets.token_urlsafe(32)
        body = {
            "roles": sorted(set(roles)),
            "subject": subject,
            "key": hashlib.sha256(key.encode()).hexdigest() if key else "",
        }
        told = {"name": name, "roles": body["roles"], "subject": subject}
        put = Put("officer", name, found.version if found else 0, body)
        self.log.commit(Event("officer.changed", self.me, told), put, *self._bound(name, found, subject))
        return {**told, "key": key}

    def _bound(self, name: str, found: Record | None, subject: str) -> tuple[Put, ...]:
        """Return the writes by which one person has one account, whoever adds at the same time."""
        puts = []
        before = str(found.body.get("subject", "")) if found else ""
        if before and before != subject and (old := self.log.get("officer.subject", self._id(before))):
            puts.append(Put("officer.subject", old.id, old.version, None))
        if subject and subject != before:
            taken = self.log.get("officer.subject", self._id(subject))
            if taken is not None:
                raise BadInput(f"this person has an account: {taken.body['name']!r}", remedy="ihds officer list")
            puts.append(Put("officer.subject", self._id(subject), 0, {"name": name}))
        return tuple(puts)

    def _id(self, subject: str) -> str:
        return hashlib.sha256(f"{self.issuer}#{subject}".encode()).hexdigest()

    def remove(self, name: str) -> dict[str, Any]:
        """Close an account; what it did stays in the log, and its person keeps its duties in projects."""
        found = self.log.get("officer", name)
        if found is None:
            raise BadInput(f"there is no account {name!r}", remedy="ihds officer list")
        event = Event("officer.changed", self.me, {"name": name, "roles": []})
        self.log.commit(event, Put("officer", name, found.version, None), *self._bound(name, found, ""))
        return {"name": name, "roles": []}

    def actor(self, name: str) -> Actor:
        """Return who acts under a name.

        Raises:
            BadInput: no name was given.
            Refused: there is no such account.

        """
        present = acting.get()
        if present is not None and present.name == name:
            return present
        if not name:
            raise BadInput("who does this? every step has its actor", remedy="give --by NAME, see: ihds officer list")
        found = self.log.get("officer", name)
        if found is None:
            raise Refused(
                f"{name!r} has no account here",
                reasons=("EHDS 55(3): who acts, and in which duty, is known before",),
                remedy="ihds officer add NAME --role assessor",
            )
        return self._read(found)

    def signed_in(self, person: Person, roles: tuple[str, ...] | None) -> Actor:
        """Return who a person is here: by the table of accounts, or by the duties that the provider's claim carries.

        Raises:
            Refused: nobody.

        """
        if roles is None:
            bound = self.log.get("officer.subject", self._id(person.subject)) if person.issuer == self.issuer else None
            found = self.log.get("officer", str(bound.body["name"])) if bound else None
            if found is not None:
                return self._read(found)
        elif duties := frozenset(role for role in self.duties if role in roles):
            return Actor(person.subject, duties, person.id)  # a name could be chosen by its bearer
        raise Refused(
            f"{person.name or person.subject} has no account here",
            reasons=("EHDS 55(3): who acts, and in which duty, is known before",),
            remedy=f"the administrator: ihds officer add NAME --role DUTY --subject {person.subject}",
        )

    def _read(self, record: Record) -> Actor:
        known = {str(role) for role in Role}
        subject = str(record.body.get("subject", ""))
        roles = frozenset(Role(r) for r in record.body["roles"] if r in known)
        return Actor(record.id, roles, f"{self.issuer}#{subject}" if subject else "")

    def account(self, key: str) -> Actor:
        """Return whose key it is.

        Raises:
            NotAuthenticated: nobody's; or a provider signs people in, and keys alone are believed no more.

        """
        given = hashlib.sha256(key.encode()).hexdigest()
        for record in self.log.store.list("officer") if key and not self.issuer else ():
            if secrets.compare_digest(record.body["key"], given):
                return self._read(record)
        raise NotAuthenticated("this is no management key and no officer's", remedy="run it on the node's folder")
