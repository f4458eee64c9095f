from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.audit import merkle
from ihds.audit.log import Event, Log, verify
from ihds.errors import AuditBroken
from ihds.store.store import Store
from ihds.wire.jose import SigningKey, verify_bytes

ORIGIN = "did:web:node"


@pytest.fixture
def made(tmp_path):
    key = SigningKey.new(f"{ORIGIN}#k")
    url = f"sqlite:///{tmp_path / 's.sqlite'}"
    log = Log(Store(url), ORIGIN, key)
    for n in range(7):
        log.commit(Event("study.round", ORIGIN, {"n": n}))
    return log, key, sa.create_engine(url)


def prove(log, key):
    jwk = key.public_jwk()
    return verify(log.store, ORIGIN, lambda data, text: verify_bytes(data, text, jwk))


def test_an_honest_log_is_proved(made):
    log, key, _ = made
    assert prove(log, key) == 7


@pytest.mark.parametrize(
    "tamper",
    [
        "UPDATE log SET entry = replace(entry, '\"n\":3', '\"n\":4') WHERE position = 3",
        "UPDATE log SET entry = replace(entry, 'study.round', 'node.created') WHERE position = 0",
        "DELETE FROM log WHERE position = 6",
        "DELETE FROM log WHERE position = 2",
        "UPDATE log SET position = 99 WHERE position = 1; UPDATE log SET position = 1 WHERE position = 2; "
        "UPDATE log SET position = 2 WHERE position = 99",
        "INSERT INTO log SELECT 7, replace(entry, '\"position\":6', '\"position\":7') FROM log WHERE position = 6",
        "UPDATE head SET body = replace(body, '\"size\": 7', '\"size\": 6')",
        "DELETE FROM log WHERE position = 6; UPDATE head SET body = replace(body, '\"size\": 7', '\"size\": 6')",
    ],
)
def test_any_altered_removed_added_or_reordered_entry_is_found(made, tamper):
    log, key, engine = made
    with engine.begin() as connection:
        for statement in tamper.split("; "):
            assert connection.execute(sa.text(statement.replace(":", r"\:"))).rowcount == 1
    with pytest.raises(AuditBroken):
        prove(log, key)


def test_a_log_rebuilt_without_the_key_is_found(made, tmp_path):
    log, key, _ = made
    forger = Log(Store(f"sqlite:///{tmp_path / 'forged.sqlite'}"), ORIGIN, SigningKey.new(f"{ORIGIN}#k"))
    for entry in log.entries():
        forger.commit(Event(entry["kind"], entry["actor"], {"n": 0}))
    with pytest.raises(AuditBroken):
        prove(forger, key)


def test_an_event_of_an_unknown_kind_cannot_be_written():
    with pytest.raises(ValueError, match="not a kind"):
        Event("something.else", ORIGIN)


leaves = st.lists(st.binary(max_size=4).map(merkle.leaf_hash), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(leaves=leaves)
def test_the_incremental_root_is_the_root(leaves):
    frontier: list[bytes] = []
    for size, leaf in enumerate(leaves):
        frontier = merkle.extend(frontier, size, leaf)
        assert merkle.frontier_root(frontier) == merkle.root(leaves[: size + 1])


@settings(max_examples=60, deadline=None)
@given(leaves=leaves, data=st.data())
def test_every_leaf_has_an_inclusion_proof_and_every_prefix_a_consistency_proof(leaves, data):
    n = len(leaves)
    i = data.draw(st.integers(0, n - 1))
    tree = merkle.Tree()
    for leaf in leaves:
        tree.append(leaf)
    size = data.draw(st.integers(i + 1, n))
    assert [tree.root(size), len(tree)] == [merkle.root(leaves[:size]), n]
    assert merkle.verify_inclusion(leaves[i], i, size, tree.inclusion(i, size), tree.root(size))
    proof = tree.inclusion(i, n)
    assert merkle.verify_inclusion(leaves[i], i, n, proof, merkle.root(leaves))
    assert not merkle.verify_inclusion(b"x" * 32, i, n, proof, merkle.root(leaves))
    m = data.draw(st.integers(1, n))
    proof = tree.consistency(m, n)
    old, new = merkle.root(leaves[:m]), merkle.root(leaves)
    assert merkle.verify_consistency(m, n, old, new, proof)
    assert not merkle.verify_consistency(m, n, b"y" * 32, new, proof)


def test_equal_events_have_unequal_leaves_so_that_an_erased_one_cannot_be_guessed(made):
    log, _, _ = made
    salts = {entry["salt"] for entry in log.entries()}
    assert len(salts) == 7
    assert all(len(salt) == 32 for salt in salts)


def test_a_checkpoint_is_text_a_person_can_read(made):
    log, _, _ = made
    origin, size, root, end = log.checkpoint()["checkpoint"].split("\n")
    assert (origin, size, end) == (ORIGIN, "7", "")
    assert bytes.fromhex(root)
    assert json.loads(log.store.head())["size"] == 7
