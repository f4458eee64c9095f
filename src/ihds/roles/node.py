"""A node: keys, store, log, connector and credential service, with one institution on top.

Trust: the folder holds the private key and the management key; whoever reads it is the node.
The management API listens on the same port, is meant for loopback, and asks for that key.
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import logging
import os
import platform
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.routing import Route

from ihds.audit import log as audit
from ihds.audit.log import Event, Log
from ihds.connector import dcp
from ihds.connector.dcp import Identity, TokenGate, Verifier
from ihds.connector.dsp.binding import Connector, Decisions
from ihds.data.source import data_file
from ihds.data.sources import tabular
from ihds.errors import AuditBroken, BadInput, Conflict, IhdsError, NotAuthenticated, SetupFailed
from ihds.ids import Did
from ihds.roles.config import NodeConfig
from ihds.store.store import Put, Store
from ihds.wire import did as dids
from ihds.wire.did import Resolver
from ihds.wire.http import Answer, Call, Http, endpoint
from ihds.wire.jose import SigningKey, verify_bytes, verify_jwt

if TYPE_CHECKING:
    import pandas as pd

    from ihds.data.codebook import Codebook

_log = logging.getLogger("ihds.node")

KEY_FILE = "key.pem"
API_KEY_FILE = "api.key"

Command = Callable[[dict[str, Any]], Any]


class Institution(Decisions, Protocol):
    """What a role adds to a node."""

    def routes(self) -> list[Route]:
        """Return the role's own endpoints."""
        ...

    def commands(self) -> dict[str, Command]:
        """Return the management commands, by name."""
        ...

    def started(self) -> None:
        """Go on with what a crash interrupted."""
        ...

    def stopped(self) -> None:
        """End threads."""
        ...


@dataclass(frozen=True)
class KeySignatures:
    """Signs with a node's key and checks others through their DID documents."""

    identity: Identity
    resolver: Resolver

    def sign(self, claims: dict[str, Any]) -> str:
        """Return claims signed by this node."""
        return self.identity.key.sign_jwt({**claims, "iss": self.identity.did})

    def verify(self, token: str, signer: str) -> dict[str, Any]:
        """Return the claims a signer signed."""
        return self.resolver.verify(token, "assertionMethod", signer)


class Node:
    """Everything an institution needs to take part in the data space."""

    def __init__(self, folder: Path) -> None:
        """Open a node's folder.

        Raises:
            SetupFailed: configuration, key or store is not ready.

        """
        self.folder = folder
        self.config = NodeConfig.read(folder)
        self.did: Did = self.config.did
        self.identity = Identity(self.did, SigningKey.read(folder / KEY_FILE, f"{self.did}#key-1"))
        self.http = Http()
        self.resolver = Resolver(self.http, {self.did: self.document()})
        self.tokens = TokenGate(self.did, self.resolver)
        self.store = Store(self.config.store_url(folder))
        self.log = Log(self.store, self.did, self.identity.key)
        self.signatures = KeySignatures(self.identity, self.resolver)
        trusted = {
            "MembershipCredential": frozenset({self.config.authority}),
            "DataPermitCredential": frozenset(self.config.access_bodies),
        }
        self.verifier = Verifier(self.identity, self.resolver, self.http, trusted, self.config.permit_status_seconds)
        self._stopping = threading.Event()
        self.institution = self._institution()
        self.connector = Connector(
            self.identity,
            self.tokens,
            self.http,
            self.log,
            self.config.base_url,
            self.institution,
            self.config.token_seconds,
        )

    def _institution(self) -> Institution:
        from ihds.roles.access_body import AccessBody
        from ihds.roles.authority import Authority
        from ihds.roles.holder import Holder
        from ihds.roles.user import User

        kinds: dict[str, Callable[[Node], Institution]] = {
            "holder": Holder,
            "access_body": AccessBody,
            "authority": Authority,
            "user": User,
        }
        return kinds[self.config.role](self)

    def document(self) -> dict[str, Any]:
        """Return the node's DID document."""
        base = self.config.base_url
        services = {
            "CredentialService": f"{base}/dcp",
            "DataService": f"{base}/.well-known/dspace-version",
            "CatalogService": f"{base}/dsp/2025-1/catalog",
        }
        if self.config.role == "access_body":
            services["AccessBody"] = f"{base}/access"
        if self.config.role == "authority":
            services["Membership"] = f"{base}/members"
        return dids.document(self.did, self.identity.key, services)

    # -- the application -------------------------------------------------------------------------

    def app(self) -> Starlette:
        """Return the node's web application."""
        worker = threading.Thread(target=self.connector.outbox.work, name="outbox", daemon=True)

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            worker.start()
            threading.Thread(target=self._keep_joining, name="membership", daemon=True).start()
            self.institution.started()
            yield
            self._stopping.set()
            self.connector.outbox.stop()
            self.institution.stopped()
            self.http.close()

        routes = [
            Route("/.well-known/did.json", endpoint(lambda _c: Answer(self.document())), methods=["GET"]),
            Route("/health", endpoint(self._health), methods=["GET"]),
            Route("/checkpoint", endpoint(lambda _c: Answer(self.log.checkpoint())), methods=["GET"]),
            Route("/dcp/presentations/query", endpoint(self._present), methods=["POST"]),
            Route("/api/{command}", endpoint(self._command), methods=["POST"]),
            *self.connector.routes(),
            *self.institution.routes(),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    def _health(self, _call: Call) -> Answer:
        return Answer({"name": self.config.name, "role": self.config.role, "did": self.did})

    def _present(self, call: Call) -> Answer:
        claims = self.tokens.check(call.bearer)
        verifier = str(claims["iss"])
        access = verify_jwt(str(claims.get("token") or ""), self.identity.key.public_jwk())
        if access.get("sub") != verifier or access.get("use") != "presentation":
            raise NotAuthenticated("the access token was given to somebody else")
        if access.get("exp", 0) < audit.now().timestamp():
            raise NotAuthenticated("the access token has expired")
        found = dcp.wanted(call.json(), self.credentials())
        presentation = [dcp.present(self.identity, verifier, [c["token"] for c in found])] if found else []
        return Answer(
            {
                "@context": [dcp.CONTEXT],
                "type": "PresentationResponseMessage",
                "presentation": presentation,
            }
        )

    def _command(self, call: Call) -> Answer:
        key = (self.folder / API_KEY_FILE).read_text().strip()
        if not hmac.compare_digest(call.bearer.encode(), key.encode()):
            raise NotAuthenticated("the management key is wrong", remedy="run the command on the node's folder")
        name = call.path["command"]
        commands = {**self.institution.commands(), "status": self._status}
        if name not in commands:
            raise BadInput(
                f"a {self.config.role} has no command {name!r}", remedy=f"it has: {', '.join(sorted(commands))}"
            )
        return Answer(commands[name](call.json()))

    def _status(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {**self.log.checkpoint(), "name": self.config.name, "did": self.did, "url": self.config.base_url}

    # -- credentials -----------------------------------------------------------------------------

    def credentials(self) -> list[dict[str, Any]]:
        """Return the credentials this node holds: id, type, token."""
        return [r.body for r in self.store.list("credential")]

    def keep_credential(self, kind: str, identifier: str, token: str, event: str) -> None:
        """Store a credential under an identifier, once."""
        found = self.log.get("credential", identifier)
        body = {"id": identifier, "type": kind, "token": token}
        if found is None or found.body != body:
            details = {"permit" if kind == "DataPermitCredential" else "credential": identifier, "type": kind}
            put = Put("credential", identifier, found.version if found else 0, body)
            with contextlib.suppress(Conflict):  # another thread was faster; it is the same credential
                self.log.commit(Event(event, self.did, details), put)

    def _keep_joining(self) -> None:
        """Try to become a member until it works; the authority may start after this node."""
        pause = 0.2
        while not self._stopping.wait(pause):
            try:
                self.join()
            except IhdsError as error:
                _log.info("no membership yet: %s", error.message)
                pause = min(pause * 2, 60.0)
            else:
                return

    def join(self) -> None:
        """Ask the authority for a membership credential, unless one is held.

        Raises:
            Refused: the authority does not list this node.

        """
        if self.config.authority in ("", self.did) or self.log.get("credential", "membership"):
            return
        service = self.resolver.service(self.config.authority, "Membership")
        body = {"name": self.config.name, "role": self.config.role, "country": self.config.country}
        answer = self.http.call("POST", service, body, self.identity.token(self.config.authority))
        token = str(answer["credential"])
        self.verifier.credential(token, self.did)
        self.keep_credential("MembershipCredential", "membership", token, "credential.received")

    def access_token(self, verifier: str) -> str:
        """Return a self-issued token for a verifier with access to this node's credentials."""
        return self.identity.token(verifier, self.connector.credential_access(verifier))


def create(folder: Path, config: NodeConfig) -> None:
    """Make a node: folder, configuration, keys and the first entry of its log.

    Raises:
        SetupFailed: there is a node already.

    """
    if (folder / KEY_FILE).exists():
        raise SetupFailed(f"{folder} holds a node already", remedy="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    SigningKey.new(f"{config.did}#key-1").write(folder / KEY_FILE)
    handle = os.open(folder / API_KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_urlsafe(32))
    config.write(folder)
    key = SigningKey.read(folder / KEY_FILE, f"{config.did}#key-1")
    store = Store(config.store_url(folder))
    Log(store, config.did, key).commit(
        Event("node.created", config.did, {"role": config.role, "country": config.country})
    )
    store.close()


def load_dataset(folder: Path, dataset: str, table: pd.DataFrame, book: Codebook) -> int:
    """Load a table into a holder's data file and say so in its log; return the number of rows.

    Raises:
        BadTable: the table does not fit the codebook; nothing is changed.

    """
    config = NodeConfig.read(folder)
    rows = tabular.load(data_file(folder), dataset, table, book, config.name)
    key = SigningKey.read(folder / KEY_FILE, f"{config.did}#key-1")
    store = Store(config.store_url(folder))
    details = {"dataset": dataset, "rows": rows, "variables": sorted(book.variables)}
    Log(store, config.did, key).commit(Event("dataset.loaded", config.did, details))
    store.close()
    return rows


def verify_folder(folder: Path) -> dict[str, Any]:
    """Prove the log of a node's folder; return origin and size.

    Raises:
        AuditBroken: the log does not prove itself.

    """
    config = NodeConfig.read(folder)
    key = SigningKey.read(folder / KEY_FILE, f"{config.did}#key-1")
    store = Store(config.store_url(folder))
    try:
        jwk = key.public_jwk()
        size = audit.verify(store, config.did, lambda data, text: verify_bytes(data, text, jwk))
        first = next(iter(store.read(0, 1)), "")
        if '"kind":"node.created"' not in first:
            raise AuditBroken(
                f"{config.did}: the log does not begin with the making of the node",
                remedy="compare with a back-up and with the checkpoints other nodes hold",
            )
    finally:
        store.close()
    return {"node": config.name, "did": config.did, "entries": size, "proved": True}


def wait_months(start: Any, months: int) -> Any:
    """Return the instant some months later, at the same time of day; short months end early."""
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    last = (start.replace(year=year + (month == 11), month=(month + 1) % 12 + 1, day=1) - timedelta(days=1)).day
    return start.replace(year=year, month=month + 1, day=min(start.day, last))


def keep_freed_memory() -> None:
    """Let the C library reuse freed memory up to 512 MiB instead of handing every large array back.

    A round's arrays come and go; fetching fresh pages for them costs more than the sums they hold.
    Only glibc has these settings (mallopt(3)); elsewhere nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for setting, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, 1 << 25), (_M_TRIM_THRESHOLD, 1 << 29)):
            libc.mallopt(setting, value)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
