"""A node: keys, store, log, connector and credential service, with one institution on top.

Trust: the folder holds the private key and the management key; whoever reads it is the node.
The management API listens on the same port, is meant for loopback, and asks for that key.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import anyio.to_thread
from starlette.applications import Starlette
from starlette.routing import Route

from ihds.audit import log as audit
from ihds.audit.log import Event, Log
from ihds.connector.dataplane.http import HttpPlane
from ihds.connector.dataplane.plane import Flow, Planes, TokenPlane, Tokens
from ihds.connector.dataplane.signaling import ControlSide
from ihds.connector.dcp.presentation import MemberGate, Verifier
from ihds.connector.dcp.status import StatusLists
from ihds.connector.dcp.tokens import Identity, TokenGate
from ihds.connector.dcp.wallet import CredentialService
from ihds.connector.dsp.binding import Binding
from ihds.connector.dsp.connector import Connector, Decisions
from ihds.connector.dsp.transfer import ENDPOINT_TYPE, STUDY_FORMAT, Transfer
from ihds.connector.openapi import description
from ihds.errors import AuditBroken, BadInput, Refused, SetupFailed
from ihds.governance.policy import vocabulary
from ihds.ids import Did
from ihds.roles import agreements, folders
from ihds.roles.config import NodeConfig, data_file
from ihds.roles.conversations import conversations
from ihds.roles.evidence import Evidence
from ihds.roles.gaiax import GaiaX
from ihds.roles.membership import Membership, TrustList
from ihds.roles.people import People
from ihds.roles.processing import Processing
from ihds.roles.relay import WORKER_KEY_FILE
from ihds.roles.seat import Seat
from ihds.roles.signatures import KeySignatures
from ihds.roles.witness import SERVICE, Witness
from ihds.store.store import Store
from ihds.wire import did as dids
from ihds.wire import keys
from ihds.wire.did import Method, Resolver
from ihds.wire.http import Http
from ihds.wire.jose import verify_bytes
from ihds.wire.keys import Keyring
from ihds.wire.serve import Answer, Call, endpoint

if TYPE_CHECKING:
    import pandas as pd

    from ihds.connector.outbox import Outbox
    from ihds.data.codebook import Codebook
    from ihds.data.sources.tabular import Beside
    from ihds.data.table import Opened

_log = logging.getLogger("ihds.node")

#: Requests served at once; those that wait for a stranger are bounded to fewer (``wire.did``).
_THREADS = 128
API_KEY_FILE = "api.key"
PLANE_KEY_FILE = "dataplane.key"

Command = Callable[[dict[str, Any]], Any]


class Institution(Decisions, Protocol):
    """What a role adds to a node."""

    def routes(self) -> list[Route]:
        """Return the role's own endpoints."""
        ...

    def commands(self) -> dict[str, Command]:
        """Return the management commands, by name."""
        ...

    def refresh(self) -> None:
        """Describe anew what is offered."""
        ...

    def proofs(self, transfer: str) -> dict[str, Any]:
        """Return what is in force for a transfer, with its signed proofs. Raises NotFound."""
        ...

    def methods(self) -> list[Method]:
        """Return further keys of the DID document."""
        ...

    def origin(self, dataset: str) -> Path | str:
        """Return where the bytes of an offered file lie. Raises NotFound."""
        ...

    def admit(self, flow: Flow) -> None:
        """Check that the receiver of a flow may have more of it. Raises Refused."""
        ...

    def started(self) -> None:
        """Go on with what a crash interrupted."""
        ...

    def stopped(self) -> None:
        """End threads."""
        ...


_ROLES = {
    "holder": ("holder", "Holder"),
    "access_body": ("access_body", "AccessBody"),
    "authority": ("authority", "Authority"),
    "user": ("user", "User"),
    "environment": ("environment", "SecureEnvironment"),
}

#: The services, with their paths, at which members reach an institution of a role.
_DESKS = {
    "access_body": {"AccessBody": "access", "OptOutRegistry": "opt-outs"},
    "authority": {"IssuerService": "issuer", "TrustList": "members/trust", "Committee": "committee"},
    "environment": {"SecureEnvironment": "environment"},
}


class Node:
    """Everything an institution needs to take part in the data space."""

    def __init__(self, folder: Path) -> None:
        """Open a node's folder.

        Raises:
            SetupFailed: configuration, key or store is not ready.

        """
        self.folder = folder
        self.config = config = NodeConfig.read(folder)
        self.did: Did = config.did
        self.keys = Keyring(folder, self.did, config.passphrase_file)
        self.identity = Identity(self.did, self.keys)
        self.http = Http(allowed=config.networks)
        self.resolver = Resolver(self.http, {self.did: self.document})
        self.tokens = TokenGate(self.did, self.resolver)
        self.store = Store(config.store_url(folder))
        self.log = Log(self.store, self.did, self.keys)
        self.signatures = KeySignatures(self.identity, self.resolver, self.keys.sealing)
        self.trust = TrustList(config, self.resolver, self.http)
        lists = StatusLists(self.resolver, self.http, config.permit_status_seconds)
        self.verifier = Verifier(self.identity, self.resolver, self.http, self.trust.issuers, lists)
        self.wallet = CredentialService(self.identity, self.tokens, self.resolver, self.http, self.log, self.verifier)
        self.membership = Membership(config, self.keys, self.wallet, self.log)
        self.members = MemberGate(self.tokens, self.verifier, config.membership_seconds)
        self.outboxes: list[Outbox] = []
        self.studies = Tokens(self.log, "transfer.token", config.token_seconds)
        riding = TokenPlane(frozenset({STUDY_FORMAT}), f"{config.base_url}/data", ENDPOINT_TYPE, self.studies)
        self.planes = Planes([riding])
        self.people = People(self)
        self.institution = self._institution()
        self.plane = HttpPlane(
            self.log,
            self.did,
            f"{config.base_url}/public",
            self.institution.origin,
            folder / "inbox",
            self.http,
            Tokens(self.log, "flow.token", config.token_seconds),
            lambda flow, failure: self.connector.flow_ended(flow, failure),
            self._admit,
            config.bytes_per_second,
        )
        self.planes.planes.append(self.plane)
        self.connector = Connector(
            self.identity,
            lambda counterparty: f"Bearer {self.wallet.token(counterparty)}",
            self.resolver,
            self.http,
            self.log,
            config.base_url,
            self.institution,
            self.planes,
        )
        self.binding = Binding(self.connector, self.members)
        self.signaling = ControlSide(
            self.planes,
            self.log,
            self.did,
            (folder / PLANE_KEY_FILE).read_text().strip(),
            self.http,
            self._agreement_of,
            self.connector.flow_ended,
        )
        self.signaling.load()
        self.gaiax = GaiaX(self)
        self.witness = Witness(self)
        self.parts = (self.gaiax, self.witness, Evidence(self), Seat(self), Processing(self), self.people)
        self.outboxes.append(self.connector.outbox)

    def _institution(self) -> Institution:
        """Return the institution of this node's role; only what it needs is loaded."""
        module, name = _ROLES[self.config.role]
        made: Institution = getattr(importlib.import_module(f"ihds.roles.{module}"), name)(self)
        return made

    def _agreement_of(self, pid: str) -> dict[str, Any]:
        """Return the agreement a data plane moves bytes under, if its receiver may have more."""
        process, _ = self.connector.by_pid("transfer", pid)
        assert isinstance(process, Transfer)
        self._admit(self.connector.flow(process))
        return dict(self.connector.agreement(process.agreement_id)["policy"])

    def _admit(self, flow: Flow) -> None:
        """Check that bytes of a flow may move now: its transfer is started, its receiver may have more.

        Raises:
            Refused: they may not.

        """
        process, _ = self.connector.by_pid("transfer", flow.id)
        begun = ("STARTED",) if process.role == "provider" else ("REQUESTED", "STARTED")
        if process.state not in begun:
            raise Refused(f"the transfer is {process.state}", reasons=process.reason)
        if process.role == "provider":
            self.institution.admit(flow)

    def document(self) -> dict[str, Any]:
        """Return the node's DID document."""
        base = self.config.base_url
        services = {
            "CredentialService": f"{base}/dcp",
            "DataService": f"{base}/.well-known/dspace-version",
            "CatalogService": f"{base}/dsp/2025-1/catalog",
            SERVICE: f"{base}/checkpoint",
        }
        services |= {name: f"{base}/{path}" for name, path in _DESKS.get(self.config.role, {}).items()}
        own = [
            (kid, self.gaiax.chained(jwk) if kid == self.keys.kid else jwk, fresh)
            for kid, jwk, fresh in self.keys.methods()
        ]
        return dids.document(self.did, [*own, *self.institution.methods()], services)

    # -- the application -------------------------------------------------------------------------

    def app(self) -> Starlette:
        """Return the node's web application."""

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
            for outbox in self.outboxes:
                threading.Thread(target=outbox.work, name=outbox.queue, daemon=True).start()
            self.membership.keep()
            self.witness.keep()
            self.plane.resume()
            self.institution.started()
            yield
            self.membership.stop()
            self.witness.stop()
            for outbox in self.outboxes:
                outbox.stop()
            self.institution.stopped()
            self.http.close()

        routes = [
            Route("/.well-known/did.json", endpoint(lambda _c: Answer(self.document())), methods=["GET"]),
            Route("/health", endpoint(self._health), methods=["GET"]),
            Route("/openapi.json", endpoint(lambda _c: Answer(description(self.config.base_url))), methods=["GET"]),
            Route("/policy/vocabulary", endpoint(lambda _c: Answer(vocabulary())), methods=["GET"]),
            Route("/api/{command}", endpoint(self._command), methods=["POST"]),
            *self.wallet.routes(),
            *self.binding.routes(),
            *self.signaling.routes(),
            *self.plane.routes(),
            *(route for part in self.parts for route in part.routes()),
            *self.institution.routes(),
        ]
        return Starlette(routes=routes, lifespan=lifespan)

    def _health(self, _call: Call) -> Answer:
        return Answer({"name": self.config.name, "role": self.config.role, "did": self.did})

    def _command(self, call: Call) -> Answer:
        name, given = call.path["command"], self.people.given(call, (self.folder / API_KEY_FILE).read_text().strip())
        commands = {**self.institution.commands(), **self._own_commands()}
        if name not in commands:
            raise BadInput(
                f"a {self.config.role} has no command {name!r}", remedy=f"it has: {', '.join(sorted(commands))}"
            )
        return Answer(commands[name](given))

    def _own_commands(self) -> dict[str, Command]:
        return {
            "status": self._status,
            "member.join": lambda a: self.membership.join(float(a.get("seconds", 10.0))),
            "member.show": lambda _a: self.membership.show(),
            **conversations(self.connector),
            **{name: command for part in self.parts for name, command in part.commands().items()},
            "joint.sign": lambda a: agreements.sign(self, str(a["id"]), str(a.get("body", ""))),
            "key.rotate": lambda a: self.rotate_key(str(a.get("signer", "file")), dict(a.get("options", {}))),
            "key.retire": lambda a: self.retire_key(str(a["key"])),
            "key.list": lambda _a: [
                {"key": kid, "signs": kid == self.keys.kid, "vouches": fresh} for kid, _, fresh in self.keys.methods()
            ],
        }

    def _status(self, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {**self.log.checkpoint(), "name": self.config.name, "did": self.did, "url": self.config.base_url}

    # -- keys ------------------------------------------------------------------------------------

    def rotate_key(self, signer: str, options: dict[str, Any]) -> dict[str, Any]:
        """Sign with a new key from now on; what older keys signed stays good until they are retired."""
        before = self.keys.kid
        kid = self.keys.rotate(signer, options)
        self.log.commit(Event("key.rotated", self.did, {"key": kid, "before": before, "signer": signer}))
        return {"key": kid, "before": before}

    def retire_key(self, key: str) -> dict[str, Any]:
        """Take a former key out of the DID document; what it signed is no longer believed."""
        self.keys.retire(key)
        self.log.commit(Event("key.retired", self.did, {"key": key}))
        return {"key": key, "retired": True}


def create(folder: Path, config: NodeConfig) -> None:
    """Make a node: folder, configuration, keys and the first entry of its log.

    Raises:
        SetupFailed: there is a node already.

    """
    if (folder / keys.FILE).exists():
        raise SetupFailed(f"{folder} holds a node already", remedy="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    ring = Keyring.create(folder, config.did, config.passphrase_file, config.signer, config.signer_options)
    for name in (API_KEY_FILE, PLANE_KEY_FILE, *([WORKER_KEY_FILE] if config.worker else [])):
        keys.write_secret(folder / name, secrets.token_urlsafe(32).encode())
    config.write(folder)
    details = {"role": config.role, "country": config.country}
    folders.begin_log(folder, config.did, ring, details, config.store_url(folder))


def load_dataset(
    folder: Path, dataset: str, table: pd.DataFrame | Opened, book: Codebook, beside: Beside | None = None
) -> int:
    """Load a table into a holder's data file and say so in its log; return the number of rows.

    Genotypes ``beside`` it stay where they lie.

    Raises:
        BadTable: the table does not fit the codebook, or the genotypes not the table; nothing is changed.

    """
    from ihds.data.sources import tabular

    config = NodeConfig.read(folder)
    rows = tabular.load(data_file(folder), dataset, table, book, config.name, beside)
    ring = Keyring(folder, config.did, config.passphrase_file)
    store = Store(config.store_url(folder))
    details = {"dataset": dataset, "rows": rows, "variables": sorted(book.variables)}
    Log(store, config.did, ring).commit(Event("dataset.loaded", config.did, details))
    store.close()
    return rows


def verify_folder(folder: Path) -> dict[str, Any]:
    """Prove the log of a node's folder; return origin and size.

    Raises:
        AuditBroken: the log does not prove itself.

    """
    did, url = folders.whose(folder)
    jwks = keys.public_keys(folder)
    store = Store(url)
    try:
        size = audit.verify(store, did, lambda data, text: any(verify_bytes(data, text, jwk) for jwk in jwks))
        first = next(iter(store.read(0, 1)), "")
        if '"kind":"node.created"' not in first:
            raise AuditBroken(
                f"{did}: the log does not begin with the making of the node",
                remedy="compare with a back-up and with the checkpoints other nodes hold",
            )
    finally:
        store.close()
    return {"node": folder.name, "did": did, "entries": size, "proved": True}
