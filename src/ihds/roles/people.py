"""Who gives a command to a node: the holder of its management key, or a person, in a duty, by one table.

Trust: with a provider configured (``[people]`` in node.toml) whatever somebody answers for is done by a person who
signed in; the management key administers and reads. Without one, the key says in whose name it acts.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

from starlette.routing import Route

from ihds.audit import log as audit
from ihds.errors import NotAuthenticated, Refused
from ihds.governance.duties import Actor
from ihds.governance.policy import Refused as No
from ihds.governance.rights import COMMANDS, DUTIES, allows
from ihds.people.oidc import OpenIdProvider
from ihds.people.proofs import ProofGate
from ihds.people.sessions import Session, Sessions
from ihds.roles import officers
from ihds.roles.officers import Officers
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    from ihds.roles.node import Command, Node

_REMEDY = "docs/law/roles.md has the table; ihds officer list the duties"


class People:
    """The people of one institution: their accounts, and their sessions where a provider signs them in."""

    def __init__(self, node: Node) -> None:
        """Work on a node."""
        self.node = node
        given = node.config.sign_in
        self.officers = Officers(node.log, node.did, DUTIES[node.config.role], given.issuer if given else "")
        self.sessions: Sessions | None = None
        self.proofs = ProofGate(lambda: node.log.clock().timestamp())
        self.scope = given.scope if given else ""
        if given:
            provider = OpenIdProvider(given.issuer, given.client_id, node.http)
            self.sessions = Sessions(
                node.log,
                node.did,
                provider,
                given.session_minutes,
                given.session_hours,
                given.roles_claim,
                self.officers.signed_in,
            )

    def routes(self) -> list[Route]:
        """Return where people sign in."""
        return [
            Route("/people", endpoint(self._told), methods=["GET"]),
            Route("/people/challenge", endpoint(self._challenge), methods=["POST"]),
            Route("/people/session", endpoint(self._open), methods=["POST"]),
            Route("/people/session", endpoint(self._close), methods=["DELETE"]),
            Route("/people/session", endpoint(self._whoami), methods=["GET"]),
            Route("/people/session/renew", endpoint(self._renew), methods=["POST"]),
        ]

    def commands(self) -> dict[str, Command]:
        """Return the commands about accounts."""
        return self.officers.commands()

    # -- signing in ------------------------------------------------------------------------------

    def _sessions(self) -> Sessions:
        if self.sessions is None:
            raise NotAuthenticated("nobody signs in here", remedy="set [people] in node.toml")
        return self.sessions

    def _told(self, _call: Call) -> Answer:
        config, found = self.node.config, self.sessions.provider if self.sessions else None
        about = {"name": config.name, "role": config.role, "country": config.country, "did": self.node.did}
        signing = {"issuer": found.issuer, "client_id": found.client_id, "scope": self.scope} if found else {}
        return Answer({**about, **signing})

    def _challenge(self, _call: Call) -> Answer:
        return Answer({"challenge": self._sessions().challenge()})

    def _proved(self, call: Call, path: str, secret: str = "") -> str:
        url = f"{self.node.config.base_url}{path}"
        return self.proofs.check(call.headers.get("dpop", ""), call.method, url, secret)

    def _open(self, call: Call) -> Answer:
        sessions, given = self._sessions(), call.json()
        key = self._proved(call, "/people/session")
        secret, session = sessions.open(str(given.get("challenge", "")), str(given.get("id_token", "")), key)
        return Answer({"session": secret, **self._described(session)}, status=201)

    def _renew(self, call: Call) -> Answer:
        secret = _secret(call)
        key = self._proved(call, "/people/session/renew", secret)
        return Answer(self._described(self._sessions().renew(secret, key, str(call.json().get("id_token", "")))))

    def _close(self, call: Call) -> Answer:
        secret = _secret(call)
        self._sessions().close(secret, self._proved(call, "/people/session", secret))
        return Answer({})

    def _whoami(self, call: Call) -> Answer:
        secret = _secret(call)
        return Answer(self._described(self._sessions().whose(secret, self._proved(call, "/people/session", secret))))

    def _described(self, session: Session) -> dict[str, Any]:
        actor = self.officers.signed_in(session.person, session.roles)
        return {
            "name": actor.name,
            "roles": sorted(actor.roles),
            "issuer": session.person.issuer,
            "subject": session.person.subject,
            "node": self.node.did,
            "expires_at": session.expires_at.isoformat(),
            "expires": session.expires_at.timestamp(),
        }

    # -- giving commands -------------------------------------------------------------------------

    def given(self, call: Call, key: str) -> dict[str, Any]:
        """Return the arguments of a command that may be given; a person's name stands where the command says who acts.

        Raises:
            NotAuthenticated: neither the node's key, nor a session with its proof, nor an officer's key.
            Refused: it is not for this person's duties, or needs a person and the node's key was shown.

        """
        name, given = call.path["command"], call.json()
        if secret := _secret(call):
            session = self._sessions().whose(secret, self._proved(call, f"/api/{name}", secret))
            actor = self.officers.signed_in(session.person, session.roles)
            audit.acting.set({"issuer": session.person.issuer, "subject": session.person.subject})
            return self._in_the_name_of(actor, name, given)
        if hmac.compare_digest(call.bearer.encode(), key.encode()):
            command = COMMANDS.get(name)
            if self.sessions and command and not command.reads:
                raise Refused(
                    f"{name} is done by a person who signed in, not by the node's key",
                    reasons=(f"{name} is for the {' or '.join(sorted(command.roles))}",),
                    remedy=f"ihds login {self.node.config.base_url}",
                )
            if command and command.named == "by" and given.get("by"):
                self._judge(self.officers.actor(str(given["by"])), name)
            return given
        return self._in_the_name_of(self.officers.account(call.bearer), name, given)

    def _in_the_name_of(self, actor: Actor, name: str, given: dict[str, Any]) -> dict[str, Any]:
        self._judge(actor, name)
        officers.acting.set(actor)
        given.pop("by", None)  # nobody says for another who acts
        named = COMMANDS[name].named
        return {**given, named: actor.name} if named else given

    def _judge(self, actor: Actor, name: str) -> None:
        verdict = allows(actor.roles, name)
        if isinstance(verdict, No):
            duties = " and ".join(sorted(actor.roles))
            raise Refused(f"{actor.name}, {duties}, may not {name}", reasons=verdict.reasons, remedy=_REMEDY)


def _secret(call: Call) -> str:
    kind, _, secret = call.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "dpop" else ""
