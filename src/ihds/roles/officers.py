"""The people of an access body: accounts with duties, and the keys they sign in with.

Trust: whoever holds the node's management key administers accounts and says in whose name a command is
given; an officer's own key gives commands in that officer's name only and administers nothing.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ihds.audit.log import Event, Log
from ihds.errors import BadInput, NotAuthenticated, Refused
from ihds.governance.duties import Actor, Role
from ihds.store.store import Put

if TYPE_CHECKING:
    from ihds.roles.node import Command

#: Duties an account may be given; applicants, holders and parties act from their own nodes.
DUTIES = (Role.ASSESSOR, Role.OFFICER, Role.PREPARER, Role.ENVIRONMENT, Role.REVIEWER, Role.APPEAL_BODY)


@dataclass
class Officers:
    """Accounts in the node's store; a key is shown once and kept as its hash."""

    log: Log
    me: str

    def commands(self) -> dict[str, Command]:
        """Return the administrator's commands; an officer's key does not give them."""
        return {
            "officer.add": lambda a: self.add(str(a["name"]), tuple(map(str, a["roles"]))),
            "officer.remove": lambda a: self.remove(str(a["name"])),
        }

    def list(self) -> list[dict[str, Any]]:
        """Return every account with its duties."""
        return [{"name": r.id, "roles": r.body["roles"]} for r in self.log.store.list("officer")]

    def add(self, name: str, roles: tuple[str, ...]) -> dict[str, Any]:
        """Make an account, or give it other duties and a new key; the key is shown this once.

        Raises:
            BadInput: a duty is unknown, or the name is empty.

        """
        duties = {str(role): role for role in DUTIES}
        unknown = [r for r in roles if r not in duties]
        if unknown or not roles or not name.strip() or len(name) > 200:
            raise BadInput(
                f"an account has a name and duties; unknown: {unknown}", remedy=f"duties are: {', '.join(duties)}"
            )
        key = secrets.token_urlsafe(32)
        found = self.log.get("officer", name)
        body = {"roles": sorted(set(roles)), "key": hashlib.sha256(key.encode()).hexdigest()}
        event = Event("officer.changed", self.me, {"name": name, "roles": body["roles"]})
        self.log.commit(event, Put("officer", name, found.version if found else 0, body))
        return {"name": name, "roles": body["roles"], "key": key}

    def remove(self, name: str) -> dict[str, Any]:
        """Close an account; what it did stays in the log."""
        found = self.log.get("officer", name)
        if found is None:
            raise BadInput(f"there is no account {name!r}", remedy="ihds officer list")
        event = Event("officer.changed", self.me, {"name": name, "roles": []})
        self.log.commit(event, Put("officer", name, found.version, None))
        return {"name": name, "roles": []}

    def actor(self, name: str) -> Actor:
        """Return who acts under a name.

        Raises:
            BadInput: no name was given.
            Refused: there is no such account.

        """
        if not name:
            raise BadInput("who does this? every step has its actor", remedy="give --by NAME, see: ihds officer list")
        found = self.log.get("officer", name)
        if found is None:
            raise Refused(
                f"{name!r} has no account here",
                reasons=("EHDS 55(3): who acts, and in which duty, is known before",),
                remedy="ihds officer add NAME --role assessor",
            )
        return Actor(name, frozenset(Role(r) for r in found.body["roles"]))

    def account(self, key: str) -> str:
        """Return whose key it is.

        Raises:
            NotAuthenticated: nobody's.

        """
        given = hashlib.sha256(key.encode()).hexdigest()
        for record in self.log.store.list("officer"):
            if secrets.compare_digest(record.body["key"], given):
                return record.id
        raise NotAuthenticated("this is no management key and no officer's", remedy="run it on the node's folder")
