"""The store: five methods over SQL, SQLite by default and PostgreSQL where replicas share state.

A record is a JSON value under (kind, id) with a version. ``transact`` writes records and appends
one log entry together, or does nothing; that is the whole of crash safety. Only ``audit.log``
calls it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from ihds.errors import Conflict, SetupFailed

_meta = sa.MetaData()
_records = sa.Table(
    "records",
    _meta,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("id", sa.String(512), primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
_log = sa.Table(
    "log",
    _meta,
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.Text, nullable=False),
)
_head = sa.Table(
    "head",
    _meta,
    sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Record:
    """One stored value and the version to name when replacing it."""

    kind: str
    id: str
    version: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Put:
    """A write: ``version`` is the one read before, 0 for a new record; ``body`` None deletes."""

    kind: str
    id: str
    version: int
    body: dict[str, Any] | None


Append = Callable[[str], tuple[str, str]]


class Store:
    """Serialisable, durable once ``transact`` returns, shared by processes through the database."""

    def __init__(self, url: str) -> None:
        """Open or create the database.

        Raises:
            SetupFailed: it cannot be reached.

        """
        shared: dict[str, Any] = {}
        if url in ("sqlite://", "sqlite:///:memory:"):
            shared = {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
        if url.startswith("postgresql://"):
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            self._engine = sa.create_engine(url, **shared)
            self._sqlite = self._engine.dialect.name == "sqlite"
            if self._sqlite:
                sa.event.listen(self._engine, "connect", _careful)
                sa.event.listen(self._engine, "begin", _begin_immediate)
            with self._engine.begin() as connection:
                if not self._sqlite:  # two replicas may start at once
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(71)"))
                _meta.create_all(connection)
                if connection.execute(sa.select(_head)).first() is None:
                    connection.execute(_head.insert().values(one=1, body=""))
            self._reader = self._engine.execution_options(reading=True)
        except (OperationalError, ModuleNotFoundError) as error:
            raise SetupFailed(
                f"the store {_safe(url)} cannot be opened: {str(error).splitlines()[0]}",
                remedy="check the path or the server; SQLite needs a local disk",
            ) from error

    def get(self, kind: str, id: str) -> Record | None:  # noqa: A002
        """Return one record, or None."""
        query = sa.select(_records).where(_records.c.kind == kind, _records.c.id == id)
        with self._reader.connect() as connection:
            row = connection.execute(query).first()
        return _record(row) if row else None

    def list(self, kind: str) -> Sequence[Record]:
        """Return all records of a kind, by id."""
        query = sa.select(_records).where(_records.c.kind == kind).order_by(_records.c.id)
        with self._reader.connect() as connection:
            return [_record(row) for row in connection.execute(query)]

    def transact(self, puts: Sequence[Put], append: Append) -> None:
        """Write records and append one log entry: both or neither.

        ``append`` receives the head's text inside the transaction and returns the entry and the
        new head.

        Raises:
            Conflict: a record's version is not the one named.

        """
        try:
            with self._engine.begin() as connection:
                lock = sa.select(_head.c.body).with_for_update()
                before = connection.execute(lock).scalar_one()
                for put in puts:
                    _write(connection, put)
                entry, after = append(before)
                position = json.loads(after)["size"] - 1
                connection.execute(_log.insert().values(position=position, entry=entry))
                connection.execute(_head.update().values(body=after))
        except IntegrityError as error:
            raise Conflict("the record exists already", remedy="read it again and retry") from error

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield log entries in order."""
        query = sa.select(_log.c.entry).where(_log.c.position >= start).order_by(_log.c.position)
        if stop is not None:
            query = query.where(_log.c.position < stop)
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                yield row[0]

    def head(self) -> str:
        """Return the text of the log's head."""
        with self._reader.connect() as connection:
            return str(connection.execute(sa.select(_head.c.body)).scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _careful(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy says BEGIN itself, below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_immediate(connection: Any) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _write(connection: sa.Connection, put: Put) -> None:
    key = (_records.c.kind == put.kind) & (_records.c.id == put.id)
    if put.body is None:
        held = key & (_records.c.version == put.version)
        changed = connection.execute(_records.delete().where(held)).rowcount
    elif put.version == 0:
        connection.execute(_records.insert().values(kind=put.kind, id=put.id, version=1, body=json.dumps(put.body)))
        return
    else:
        guarded = _records.update().where(key & (_records.c.version == put.version))
        changed = connection.execute(guarded.values(version=put.version + 1, body=json.dumps(put.body))).rowcount
    if changed != 1:
        raise Conflict(f"{put.kind} {put.id} was changed meanwhile", remedy="read it again and retry")


def _record(row: Any) -> Record:
    return Record(row.kind, row.id, row.version, json.loads(row.body))


def _safe(url: str) -> str:
    return sa.engine.make_url(url).render_as_string(hide_password=True)


def sqlite_url(folder: Path) -> str:
    """Return the default store of a node's folder."""
    return f"sqlite:///{folder / 'store.sqlite'}"
