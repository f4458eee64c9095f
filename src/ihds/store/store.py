"""The store: six methods over SQL, SQLite by default and PostgreSQL where replicas share state.

A record is a JSON value under (kind, id) with a version. ``transact`` writes records and appends
one log entry together, or does nothing; that is the whole of crash safety. Only ``audit.log``
calls it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

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
    """Serialisable, durable once ``transact`` returns, shared by processes through the database.

    Statements are written once with SQLAlchemy and compiled once for the database at hand; they run
    on the driver's own connections, every one in autocommit, so a transaction is said in words.
    """

    def __init__(self, url: str) -> None:
        """Open or create the database.

        Raises:
            SetupFailed: it cannot be reached.
        """
        options: dict[str, Any] = {"pool_reset_on_return": None}
        self._writing = threading.Lock()
        if url.startswith("sqlite"):
            options["paramstyle"] = "named"
        if url in ("sqlite://", "sqlite:///:memory:"):
            options |= {"poolclass": sa.StaticPool, "connect_args": {"check_same_thread": False}}
        if url.startswith("postgresql://"):
            url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        try:
            self._engine = sa.create_engine(url, **options)
            lite = self._engine.dialect.name == "sqlite"
            self._begin = "BEGIN IMMEDIATE" if lite else "BEGIN"
            sa.event.listen(self._engine, "connect", _careful if lite else _autocommit)
            with self._engine.connect() as connection:
                connection.exec_driver_sql(self._begin)
                if not lite:  # two replicas may start at once
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(71)"))
                _meta.create_all(connection)
                if connection.execute(sa.select(_head)).first() is None:
                    connection.execute(_head.insert().values(one=1, body=""))
                connection.exec_driver_sql("COMMIT")
        except (OperationalError, ModuleNotFoundError) as error:
            raise SetupFailed(
                f"the store {_safe(url)} cannot be opened: {str(error).splitlines()[0]}",
                remedy="check the path or the server; SQLite needs a local disk",
            ) from error
        self._sql = {name: str(s.compile(dialect=self._engine.dialect)) for name, s in _STATEMENTS.items()}

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = self._engine.raw_connection()
        try:
            yield connection.cursor()
        finally:
            connection.close()  # back to the pool

    def _run(self, cursor: Any, name: str, **values: Any) -> Any:
        cursor.execute(self._sql[name], values)
        return cursor

    def get(self, kind: str, id: str) -> Record | None:  # noqa: A002
        """Return one record, or None."""
        with self._cursor() as cursor:
            row = self._run(cursor, "get", kind=kind, id=id).fetchone()
        return _record(row) if row else None

    def list(self, kind: str) -> Sequence[Record]:
        """Return all records of a kind, by id."""
        with self._cursor() as cursor:
            return [_record(row) for row in self._run(cursor, "list", kind=kind)]

    def page(
        self, kind: str, where: Mapping[str, str] | None = None, *, after: str = "", limit: int = 1_000_000
    ) -> Sequence[Record]:
        """Return records of a kind by id, beginning after one, whose top-level fields hold these texts."""
        lite = self._engine.dialect.name == "sqlite"
        query = sa.select(_records).where(_records.c.kind == _bind("kind"), _records.c.id > _bind("after"))
        values: dict[str, Any] = {"kind": kind, "after": after, "limit": limit}
        for number, (name, value) in enumerate((where or {}).items()):
            field = _bind(f"name{number}")
            pick = sa.cast(_records.c.body, sa.JSON).op("->>", return_type=sa.Text())
            held = sa.func.json_extract(_records.c.body, field) if lite else pick(sa.cast(field, sa.Text))
            query = query.where(held == _bind(f"value{number}"))
            values |= {f"name{number}": f"$.{name}" if lite else name, f"value{number}": value}
        dialect = self._engine.dialect
        text = query.order_by(_records.c.id).limit(_bind("limit")).compile(dialect=dialect)
        with self._cursor() as cursor:
            cursor.execute(str(text), {**text.params, **values})
            return [_record(row) for row in cursor]

    def transact(self, puts: Sequence[Put], append: Append) -> None:
        """Write records and append one log entry: both or neither.

        ``append`` receives the head's text inside the transaction and returns the entry and the
        new head.

        Raises:
            Conflict: a record's version is not the one named.
        """
        with self._writing, self._cursor() as cursor:  # writers of one process wait in line, not in SQLite's sleep
            cursor.execute(self._begin)
            try:
                before = self._run(cursor, "lock").fetchone()[0]
                for put in puts:
                    self._write(cursor, put)
                entry, after = append(before)
                position = json.loads(after)["size"] - 1
                self._run(cursor, "append", position=position, entry=entry)
                self._run(cursor, "head", body=after)
                cursor.execute("COMMIT")
            except BaseException as error:
                cursor.execute("ROLLBACK")
                if isinstance(error, self._engine.dialect.loaded_dbapi.IntegrityError):
                    raise Conflict("the record exists already", remedy="read it again and retry") from error
                raise

    def _write(self, cursor: Any, put: Put) -> None:
        key = {"kind": put.kind, "id": put.id}
        if put.body is None:
            changed = self._run(cursor, "delete", **key, old=put.version).rowcount
        elif put.version == 0:
            changed = self._run(cursor, "insert", **key, version=1, body=json.dumps(put.body)).rowcount
        else:
            body = json.dumps(put.body)
            changed = self._run(cursor, "replace", **key, old=put.version, version=put.version + 1, body=body).rowcount
        if changed != 1:
            raise Conflict(f"{put.kind} {put.id} was changed meanwhile", remedy="read it again and retry")

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """Yield log entries in order."""
        with self._cursor() as cursor:
            for row in self._run(cursor, "read", start=start, stop=2**31 - 1 if stop is None else stop):
                yield row[0]

    def head(self) -> str:
        """Return the text of the log's head."""
        with self._cursor() as cursor:
            return str(self._run(cursor, "peek").fetchone()[0])

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _bind(name: str) -> Any:
    return sa.bindparam(name)


_KEY = (_records.c.kind == _bind("kind")) & (_records.c.id == _bind("id"))
_HELD = _KEY & (_records.c.version == _bind("old"))
_STATEMENTS: dict[str, Any] = {
    "get": sa.select(_records).where(_KEY),
    "list": sa.select(_records).where(_records.c.kind == _bind("kind")).order_by(_records.c.id),
    "insert": _records.insert(),
    "replace": sa.update(_records).where(_HELD).values(version=_bind("version"), body=_bind("body")),
    "delete": sa.delete(_records).where(_HELD),
    "lock": sa.select(_head.c.body).with_for_update(),
    "peek": sa.select(_head.c.body),
    "head": sa.update(_head).values(body=_bind("body")),
    "append": _log.insert(),
    "read": sa.select(_log.c.entry)
    .where(_log.c.position >= _bind("start"), _log.c.position < _bind("stop"))
    .order_by(_log.c.position),
}


def _careful(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # autocommit: nothing begins a transaction but ``transact``
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _autocommit(connection: Any, _record: Any) -> None:
    connection.autocommit = True


def _record(row: Any) -> Record:
    kind, identifier, version, body = row
    return Record(kind, identifier, version, json.loads(body))


def _safe(url: str) -> str:
    return sa.engine.make_url(url).render_as_string(hide_password=True)


def sqlite_url(folder: Path) -> str:
    """Return the default store of a node's folder."""
    return f"sqlite:///{folder / 'store.sqlite'}"
