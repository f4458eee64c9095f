"""What was believed of one member says nothing of another who shows the same credential."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ihds.errors import NotAuthenticated
from ihds.roles.proofs import Proofs


class Verifier:
    """Believes a credential of its holder only."""

    def credential(self, token: str, user: str, kind: str) -> SimpleNamespace:
        if token != f"{kind} of {user}":
            raise NotAuthenticated(f"{token} is not of {user}")
        return SimpleNamespace(holder=user, valid_until=None)

    def standing(self, credential: SimpleNamespace) -> None:
        self.asked = credential.holder


def test_the_kept_membership_of_one_is_not_taken_for_anothers():
    proofs = Proofs(Verifier(), None)
    token = "MembershipCredential of did:web:good"
    assert proofs.standing(token, "did:web:good").holder == "did:web:good"
    with pytest.raises(NotAuthenticated):
        proofs.standing(token, "did:web:suspended")
