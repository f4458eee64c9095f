"""A witness keeps every look: a log that says nothing in it is worth a signature is compared all the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ihds.audit.log import Event, Log
from ihds.errors import AuditBroken
from ihds.ids import Did
from ihds.roles import witness as witnessing
from ihds.roles.witness import Witness
from ihds.store.store import Store
from ihds.wire.jose import SigningKey, verify_bytes

WATCHED, WATCHER = Did("did:web:watched"), Did("did:web:watcher")


class Shown:
    """The watched node: its log, which it may rewrite, and what it says that is worth witnessing."""

    def __init__(self) -> None:
        self.key = SigningKey.new(f"{WATCHED}#k")
        self.worth: int | None = None
        self.rewrite(0)

    def rewrite(self, kept: int, word: str = "a") -> None:
        """Begin the log anew: ``kept`` entries cannot be the same, for each has a salt of its own."""
        self.log = Log(Store("sqlite://"), WATCHED, self.key)
        self.add(kept, word)

    def add(self, number: int, word: str = "a") -> None:
        for n in range(number):
            self.log.commit(Event("study.round", WATCHED, {"n": n, "word": word}))

    def get_json(self, url: str, **_more) -> dict:
        told = self.log.prove(int(url.rpartition("=")[2]))
        return told if self.worth is None else {**told, "worth": self.worth}


@pytest.fixture
def looking():
    shown, key = Shown(), SigningKey.new(f"{WATCHER}#k")
    jwk = shown.key.public_jwk()
    log = Log(Store("sqlite://"), WATCHER, key)
    resolver = SimpleNamespace(
        service=lambda *_: "http://watched", vouches=lambda _log, data, text: verify_bytes(data, text, jwk)
    )
    node = SimpleNamespace(
        did=WATCHER,
        log=log,
        store=log.store,
        http=shown,
        resolver=resolver,
        identity=SimpleNamespace(key=key),
        trust=SimpleNamespace(members=lambda: {WATCHED: "LU", WATCHER: "KR"}),
    )
    return shown, Witness(node)


def kinds(witness: Witness) -> list[str]:
    return [e["kind"] for e in witness.node.log.entries()]


def test_what_a_log_says_of_its_worth_does_not_hide_a_rewritten_one(looking):
    shown, witness = looking
    shown.add(5)
    witness.look(WATCHED)
    shown.worth = 0  # a lie: nothing since is worth witnessing
    shown.add(20)
    assert witness.look(WATCHED)
    assert kinds(witness).count("witness.signed") == 1
    shown.rewrite(8, "forged")
    shown.worth = None
    with pytest.raises(AuditBroken, match="rolled back"):
        witness.look(WATCHED)
    assert kinds(witness)[-1] == "witness.alarm"


def test_a_log_that_claims_to_rest_is_signed_for_again_after_a_while(looking, monkeypatch):
    monkeypatch.setattr(witnessing, "_RESTS", 10)
    shown, witness = looking
    shown.add(5)
    witness.look(WATCHED)
    shown.worth = 0
    shown.add(10)
    witness.look(WATCHED)
    assert kinds(witness).count("witness.signed") == 1
    shown.add(1)
    witness.look(WATCHED)
    assert kinds(witness).count("witness.signed") == 2
