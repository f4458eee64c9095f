"""One suite for both databases."""

from __future__ import annotations

import json
import os
import threading

import pytest
import sqlalchemy as sa

from ihds.errors import Conflict, SetupFailed
from ihds.store.store import Put, Store
from tests.conftest import unavailable

POSTGRES = os.environ.get("IHDS_TEST_POSTGRES", "")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'store.sqlite'}"
    if not POSTGRES:
        unavailable("no PostgreSQL: set IHDS_TEST_POSTGRES=postgresql://… (make test starts one)")
    engine = sa.create_engine(POSTGRES.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for table in ("records", "log", "head"):
            connection.execute(sa.text(f"DROP TABLE IF EXISTS {table}"))
    engine.dispose()
    return POSTGRES


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def append(text):
    def build(before):
        size = json.loads(before)["size"] if before else 0
        return json.dumps({"n": size, "text": text}), json.dumps({"size": size + 1})

    return build


def test_records_and_entry_are_written_together(store):
    store.transact([Put("a", "1", 0, {"x": 1}), Put("a", "2", 0, {"x": 2})], append("one"))
    assert [r.body["x"] for r in store.list("a")] == [1, 2]
    assert store.get("a", "1").version == 1
    assert [json.loads(e)["text"] for e in store.read()] == ["one"]


def test_a_stale_version_writes_nothing_at_all(store):
    store.transact([Put("a", "1", 0, {"x": 1})], append("one"))
    with pytest.raises(Conflict):
        store.transact([Put("b", "9", 0, {}), Put("a", "1", 7, {"x": 2})], append("two"))
    assert store.get("b", "9") is None
    assert store.get("a", "1").body == {"x": 1}
    assert len(list(store.read())) == 1


def test_a_record_cannot_be_made_twice(store):
    store.transact([Put("a", "1", 0, {})], append("one"))
    with pytest.raises(Conflict):
        store.transact([Put("a", "1", 0, {})], append("two"))


def test_deleting_needs_the_version_too(store):
    store.transact([Put("a", "1", 0, {})], append("one"))
    with pytest.raises(Conflict):
        store.transact([Put("a", "1", 2, None)], append("two"))
    store.transact([Put("a", "1", 1, None)], append("three"))
    assert store.get("a", "1") is None


def test_what_was_written_survives_reopening(url):
    first = Store(url)
    first.transact([Put("a", "1", 0, {"x": "é"})], append("one"))
    first.close()
    second = Store(url)
    assert second.get("a", "1").body == {"x": "é"}
    assert json.loads(second.head()) == {"size": 1}
    second.close()


def test_many_writers_lose_nothing(url):
    stores = [Store(url) for _ in range(4)]

    def write(index):
        for n in range(20):
            stores[index].transact([Put("a", f"{index}-{n}", 0, {})], append(f"{index}-{n}"))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = [json.loads(e) for e in stores[0].read()]
    assert [e["n"] for e in entries] == list(range(80))
    assert len(stores[0].list("a")) == 80
    for opened in stores:
        opened.close()


def test_a_store_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(SetupFailed) as caught:
        Store(f"sqlite:///{tmp_path / 'absent' / 'store.sqlite'}")
    assert caught.value.remedy


def test_a_log_proves_itself_on_either_database(url):
    from ihds.audit.log import Event, Log, verify
    from ihds.wire.jose import SigningKey, verify_bytes

    key = SigningKey.new("did:web:n#k")
    opened = Store(url)
    log = Log(opened, "did:web:n", key)
    for n in range(5):
        log.commit(Event("study.round", "did:web:n", {"n": n, "name": "é"}), Put("a", str(n), 0, {"n": n}))
    jwk = key.public_jwk()
    assert verify(opened, "did:web:n", lambda data, text: verify_bytes(data, text, jwk)) == 5
    opened.close()


def test_a_page_holds_the_records_with_certain_fields_after_an_id(store):
    for n in range(6):
        body = {"stage": "A" if n % 2 else "B", "kind": "x'; DROP TABLE records;--"}
        store.transact([Put("a", str(n), 0, body)], append("one"))
    store.transact([Put("b", "1", 0, {"stage": "A"})], append("one"))
    assert [r.id for r in store.page("a", {"stage": "A"})] == ["1", "3", "5"]
    assert [r.id for r in store.page("a", {"stage": "A", "kind": "x'; DROP TABLE records;--"}, after="1", limit=1)] == [
        "3"
    ]
    assert [r.id for r in store.page("a", after="3")] == ["4", "5"]
    assert store.page("a", {"stage": "C"}) == store.page("a", {"nothing": ""}) == []
