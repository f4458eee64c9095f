"""The signed proofs a study rides on: permit and membership, verified once, their status at every use."""

from __future__ import annotations

from dataclasses import dataclass, field

from ihds.audit.log import Event, Log, now
from ihds.connector.dcp.credentials import (
    MEMBERSHIP,
    PERMISSIONS,
    Credential,
    permission,
    permission_type,
    read,
)
from ihds.connector.dcp.presentation import Verifier
from ihds.errors import NotAuthenticated, Refused
from ihds.governance.jurisdiction import SIMULATION
from ihds.governance.permit import Permit, PermitState
from ihds.store.store import Put


@dataclass
class Proofs:
    """Believes kept credentials: each is verified when first seen, its end and status are looked up each time."""

    verifier: Verifier
    log: Log
    _believed: dict[tuple[str, str, str], Credential] = field(default_factory=dict)

    def keep(self, permit: str, credential: Credential, membership: Credential) -> None:
        """Keep the signed permit and membership for later use; signatures and status are checked each time."""
        found = self.log.get("held.permit", permit)
        body = {"token": credential.token, "membership": membership.token, "user": credential.holder}
        if found is None or found.body != body:
            event = Event("permit.received", self.log.origin, {"permit": permit})
            self.log.commit(event, Put("held.permit", permit, found.version if found else 0, body))

    def kept(self, permit: str) -> dict[str, str]:
        """Return a permit that was shown here: its token, the membership beside it, its user.

        Raises:
            Refused: it never was.

        """
        found = self.log.get("held.permit", permit)
        if found is None:
            raise Refused(f"the permit {permit} was never shown here", remedy="negotiate a new agreement")
        return {name: str(value) for name, value in found.body.items()}

    def environment(self, permit: str) -> str | None:
        """Return the environment that a kept permit names. Raises Refused."""
        found = read(self.kept(permit)["token"]).subject["permit"].get("environment")
        return str(found) if found else None

    def ask(self, counterparty: str, access: str) -> tuple[Credential, list[Credential]]:
        """Return the membership of a counterparty in good standing and the permits it shows.

        Raises:
            NotAuthenticated: it shows no membership, or something does not verify.
            CannotVerify: a status cannot be learnt now.
            Refused: it is suspended.
            PeerFailed: it does not answer now.

        """
        found = self.verifier.ask(counterparty, access, [MEMBERSHIP, *PERMISSIONS])
        if len(found[MEMBERSHIP]) != 1:
            raise NotAuthenticated("membership: no membership credential was presented")
        self.verifier.standing(found[MEMBERSHIP][0])
        return found[MEMBERSHIP][0], [c for kind in PERMISSIONS for c in found[kind]]

    def check(self, permit: str, membership: str, user: str) -> tuple[Permit, PermitState]:
        """Return the permit of a member in good standing, and its present state.

        Raises:
            NotAuthenticated: a credential does not verify.
            CannotVerify: a status cannot be learnt now.
            Refused: the membership is suspended or over.

        """
        self.standing(membership, user)
        return self.read(self._believe(permit, user, permission(permit)))

    def standing(self, membership: str, user: str) -> Credential:
        """Return a kept membership that still holds.

        Raises:
            CannotVerify: a status cannot be learnt now.
            Refused: it is suspended or over.

        """
        member = self._believe(membership, user, MEMBERSHIP)
        if member.valid_until is not None and member.valid_until <= now():
            raise Refused(f"the membership of {user} has ended", remedy="negotiate a new agreement")
        self.verifier.standing(member)
        return member

    def read(self, credential: Credential) -> tuple[Permit, PermitState]:
        """Return the permit in a verified credential and its present state.

        Raises:
            CannotVerify: a status cannot be learnt now.
            Refused: it was not issued by the body it names.

        """
        permit = Permit.from_dict(credential.subject.get("permit", {}))
        if permit.access_body != credential.issuer or permit.legal_regime == SIMULATION:
            raise Refused("the permit was not issued by the body it names")
        if permission_type(permit.legal_regime) not in credential.types:
            raise Refused(
                "this credential is of another kind than what it grants",
                reasons=("EHDS 1(8): what is granted under an agreement is no data permit, nor the reverse",),
            )
        revoked = self.verifier.revoked(credential)
        return permit, PermitState.REVOKED if revoked else PermitState.GRANTED

    def _believe(self, token: str, user: str, kind: str) -> Credential:
        about = (token, user, kind)  # a token that was believed of one member says nothing of another
        if about not in self._believed:
            self._believed[about] = self.verifier.credential(token, user, kind)
        return self._believed[about]
