"""A node's place in the data space: becoming and staying a member, and whom the authority vouches for."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ihds.audit.log import Log, now
from ihds.canonical import digest
from ihds.connector.dcp.credentials import MEMBERSHIP, PERMISSIONS, PERMIT, ROLE
from ihds.connector.dcp.wallet import CredentialService
from ihds.data.codebook import Codebook
from ihds.errors import CannotVerify, IhdsError, PeerFailed, Refused
from ihds.governance.bodies import Matter, unapproved
from ihds.governance.jurisdiction import version
from ihds.roles.config import NodeConfig
from ihds.wire.did import Resolver
from ihds.wire.http import Http
from ihds.wire.jose import Signer

_log = logging.getLogger("ihds.membership")

#: The property of a credential request in which an applicant says, signed, who it is.
REGISTRATION = "ihds:registration"
_TRUST_SECONDS = 30.0
_AGAIN_SECONDS = 1.0
_RENEW_DAYS = 30.0


@dataclass
class Membership:
    """Asks the authority for membership and keeps it fresh."""

    config: NodeConfig
    key: Signer
    wallet: CredentialService
    log: Log
    _stopping: threading.Event = field(default_factory=threading.Event)
    _joining: threading.Lock = field(default_factory=threading.Lock)

    def keep(self) -> None:
        """Become and stay a member in the background; the authority may start after this node."""
        threading.Thread(target=self._keep, name="membership", daemon=True).start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()

    def _keep(self) -> None:
        pause = 0.2
        while not self._stopping.wait(pause):
            try:
                self.join(1.0)
            except IhdsError as error:
                _log.info("no membership yet: %s", error.message)
                pause = min(pause * 2, 60.0)
            else:
                pause = 3600.0
                if self.config.authority not in ("", self.config.did) and not self.wallet.membership(_RENEW_DAYS):
                    with contextlib.suppress(IhdsError):
                        self._ask_membership()  # it nears its end

    def show(self) -> dict[str, Any]:
        """Return whether this node is a member and what became of its last request."""
        asked = [r.body for r in self.log.store.list("my.issuance") if r.body["issuer"] == self.config.authority]
        last = asked[-1] if asked else {"status": "NONE", "reason": ""}
        return {
            "authority": self.config.authority,
            "member": self.wallet.membership() is not None,
            "request": last["status"],
            "reason": last["reason"],
        }

    def join(self, seconds: float = 10.0) -> dict[str, Any]:
        """Ask the authority for membership unless it is held or asked for; wait for the answer.

        Raises:
            PeerFailed: the authority does not answer.
            Refused: it rejected the request, or nobody decided within ``seconds``.

        """
        if self.config.authority in ("", self.config.did) or self.wallet.membership():
            return self.show()
        with self._joining:
            self._ask()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.wallet.membership():
                return self.show()
            if self.show()["request"] == "REJECTED":
                break
            time.sleep(0.02)
        said = self.show()
        raise Refused(
            f"{self.config.name} is not a member yet: the request is {said['request']}",
            reasons=(said["reason"],) if said["reason"] else (),
            remedy="ask the authority to decide: ihds member admit DID",
        )

    def _ask(self) -> None:
        """Ask for membership, or send the open request again: it may have been lost on its way."""
        self.wallet.send_open()
        waiting = any(
            r.body["issuer"] == self.config.authority and r.body["status"] == "RECEIVED"
            for r in self.log.store.list("my.issuance")
        )
        if not waiting and not self.wallet.membership():
            self._ask_membership()

    def _ask_membership(self) -> None:
        claims = {
            "iss": self.config.did,
            "aud": self.config.authority,
            "name": self.config.name,
            "role": self.config.role,
            "country": self.config.country,
        }
        signed = self.key.sign_jwt({**claims, "iat": int(now().timestamp())})
        kinds = [MEMBERSHIP, ROLE]
        self.wallet.request(self.config.authority, kinds, self.config.credential_profile, **{REGISTRATION: signed})


@dataclass
class TrustList:
    """Whose word counts for which credential: the authority's signed list, or what the configuration names."""

    config: NodeConfig
    resolver: Resolver
    http: Http
    _kept: tuple[float, dict[str, Any]] = (0.0, {})

    def issuers(self, kind: str) -> frozenset[str]:
        """Return the DIDs trusted to issue a credential type; not knowing means nobody."""
        if kind in (MEMBERSHIP, ROLE):
            return frozenset({self.config.authority} - {""})
        if kind in PERMISSIONS:  # who may issue the one may issue the other
            kind = PERMIT
        if kind == PERMIT and self.config.access_bodies:
            return frozenset(self.config.access_bodies)
        return frozenset(map(str, self._claims().get("issuers", {}).get(kind, ())))

    def members(self) -> dict[str, str]:
        """Return the DIDs of all members with their countries, and of the authority itself; not knowing means nobody.

        The authority's own country is not in its list.
        """
        found = {str(m["did"]): str(m["country"]) for m in self._claims().get("members", ())}
        return {**found, self.config.authority: found.get(self.config.authority, "")} if found else {}

    def unapproved(self, book: Callable[[], Codebook]) -> tuple[str, ...]:
        """Return why codebook or rules in use here are not to be used: the data space requires approval and gave none.

        Raises:
            CannotVerify: the list cannot be read now: not knowing means no.

        """
        claims = self._claims()
        if not claims and self.config.authority:
            raise CannotVerify("the list of approved versions cannot be read", remedy="wait for the authority")
        required = claims.get("required", ())
        if not required:
            return ()
        used = {str(Matter.CODEBOOK): digest(book().to_dict()), str(Matter.RULES): version()}
        return unapproved(required, claims.get("approved", ()), used)

    def signed(self) -> str:
        """Return the list as the authority signed it; empty if it cannot be had."""
        return str(self._claims().get("token", ""))

    def _claims(self) -> dict[str, Any]:
        until, kept = self._kept
        if until < time.monotonic():
            kept = self._fetch()
            self._kept = (time.monotonic() + (_TRUST_SECONDS if kept else _AGAIN_SECONDS), kept)
        return kept

    def _fetch(self) -> dict[str, Any]:
        if not self.config.authority:
            return {}
        try:
            answer = self.http.get_json(self.resolver.service(self.config.authority, "TrustList"))
            claims = self.resolver.verify(str(answer.get("trust", "")), "assertionMethod", self.config.authority)
            if claims.get("exp", 0) < time.time():
                raise PeerFailed("it is an old list")
        except IhdsError as error:
            _log.warning("the trust list of %s cannot be read: %s", self.config.authority, error.message)
            return {}
        return {**claims, "token": str(answer["trust"])}
