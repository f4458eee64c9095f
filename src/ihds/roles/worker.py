"""The inner half of a holder in two zones: rows, gate and log behind a firewall, with no port open.

The worker opens every connection itself, to its own connector only. It verifies permit, membership
and status with keys it pinned when it was made, so the outer half cannot forge what is allowed.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import tomllib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pandas as pd

from ihds.analysis.method import methods
from ihds.audit.log import Log
from ihds.connector.dcp.credentials import MEMBERSHIP, PERMISSIONS
from ihds.connector.dcp.presentation import Verifier
from ihds.connector.dcp.status import StatusLists
from ihds.connector.dcp.tokens import Identity
from ihds.data.codebook import Codebook
from ihds.data.source import Scope
from ihds.data.sources import tabular
from ihds.data.sources.tabular import TabularSource
from ihds.data.table import Opened
from ihds.errors import BadInput, IhdsError, PeerFailed, Refused, SetupFailed
from ihds.federation.engine import engine_of
from ihds.federation.gate import Gate, Grant
from ihds.governance.permit import PermitState
from ihds.ids import Did
from ihds.privacy.accountant import Promise
from ihds.privacy.disclosure import Thresholds
from ihds.roles import choices, folders
from ihds.roles.config import data_file
from ihds.roles.proofs import Proofs
from ihds.roles.relay import frame, unframe
from ihds.roles.signatures import KeySignatures
from ihds.store.store import Store, sqlite_url
from ihds.wire.did import Resolver
from ihds.wire.guard import Guard
from ihds.wire.http import MAX_ANSWER, Http, Line
from ihds.wire.keys import Keyring, write_secret

_log = logging.getLogger("ihds.worker")

FILE = "worker.toml"
KEY_FILE = "worker.key"
#: What the ticket brought for opt-outs: registry, columns and keys. It is as secret as the worker's key.
OPT_OUTS_FILE = "opt_outs.key"
_THREADS = 2


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One worker. ``connector`` is its outer half; ``pinned`` holds the DID documents it does not ask others for.

    ``evidence`` is what the holder vouches for under the law, for every dataset that lies here, and
    ``thresholds`` are its own: the node's file is to name the same, for users learn them there.
    ``environment_required`` answers no study outside a secure processing environment.
    ``privacy_epsilon`` and ``privacy_delta`` bound what noisy studies of all permits together may tell of a person.
    """

    did: str
    connector: str
    country: str
    authority: str
    access_bodies: tuple[str, ...]
    pinned: dict[str, dict[str, Any]]
    passphrase_file: str = ""
    engine: str = ""
    evidence: tuple[str, ...] = ()
    opt_out_registry: str = ""
    environment_required: bool = False
    privacy_epsilon: float = 10.0
    privacy_delta: float = 1e-6
    thresholds: dict[str, Any] = field(default_factory=dict)

    @property
    def limits(self) -> Thresholds | None:
        """The holder's own thresholds, if it has any. Raises BadInput."""
        return Thresholds.of(self.thresholds) if self.thresholds else None

    @classmethod
    def read(cls, folder: Path) -> WorkerConfig:
        """Read the file of a worker's folder.

        Raises:
            SetupFailed: it is absent or wrong.

        """
        try:
            body: dict[str, Any] = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
            lists = {"access_bodies": tuple(body["access_bodies"]), "evidence": tuple(body.get("evidence", ()))}
            config = cls(**{**body, **lists})
            config.limits  # noqa: B018 - thresholds that cannot be read fail here
            return config
        except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError, BadInput) as error:
            raise SetupFailed(f"{folder / FILE}: {error!r}", remedy="make one: ihds worker init") from error


@dataclass
class Tunnel(Http):
    """Reaches the connector directly, and public documents of others through it."""

    connector: str = ""
    key: str = ""

    def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        seconds: float | None = None,
        limit: int = MAX_ANSWER,
    ) -> httpx.Response:
        """Send a request; whatever is not for the connector goes through it, and is only fetched."""
        if url.startswith(f"{self.connector}/"):
            return super().send(method, url, body=body, headers=headers, seconds=seconds, limit=limit)
        if method != "GET":
            raise PeerFailed(f"a worker sends nothing to {url}")
        asked = httpx.Request("POST", f"{self.connector}/worker/fetch", json={"url": url})
        return super().send(
            "POST",
            str(asked.url),
            body=asked.content,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"},
        )


def create(
    folder: Path,
    key: str,
    connector: str,
    body: dict[str, Any],
    tables: Mapping[str, tuple[pd.DataFrame | Opened, Codebook]],
) -> WorkerConfig:
    """Make a worker: folder, keys, pinned documents and data.

    ``body`` are the settings of ``WorkerConfig`` beside ``connector``.

    Raises:
        SetupFailed: there is a worker already.
        BadTable: a table does not fit its codebook.

    """
    folders.empty(folder, FILE)
    opt_outs = body.get("opt_outs") or {}
    settings = {k: v for k, v in body.items() if k != "opt_outs"}
    config = WorkerConfig(
        connector=connector.rstrip("/"), opt_out_registry=str(opt_outs.get("registry", "")), **settings
    )
    for name, (table, book) in tables.items():
        tabular.load(data_file(folder), name, table, book, name)
    write_secret(folder / KEY_FILE, key.encode())
    write_secret(folder / OPT_OUTS_FILE, json.dumps(opt_outs).encode())
    folders.write(folder / FILE, config)
    did = Did.parse(config.did)
    ring = Keyring.create(folder, did, config.passphrase_file, prefix="worker")
    folders.begin_log(folder, did, ring, {"role": "worker"})
    return config


class Worker:
    """A running worker."""

    def __init__(self, folder: Path) -> None:
        """Open a worker's folder.

        Raises:
            SetupFailed: configuration, key or data is not ready.

        """
        self.config = config = WorkerConfig.read(folder)
        did = Did.parse(config.did)
        self.key = (folder / KEY_FILE).read_text(encoding="utf-8").strip()
        host = urlsplit(config.connector).hostname or ""
        self.http = Tunnel(allowed=_only(host), connector=config.connector, key=self.key)
        keys = Keyring(folder, did, config.passphrase_file, prefix="worker")
        self.keys, self.log = keys, Log(Store(sqlite_url(folder)), did, keys)
        pinned = {name: (lambda d=document: d) for name, document in config.pinned.items()}
        resolver = Resolver(self.http, pinned)
        identity = Identity(did, keys)
        trusted = {MEMBERSHIP: frozenset({config.authority})}
        trusted |= dict.fromkeys(PERMISSIONS, frozenset(config.access_bodies))
        verifier = Verifier(
            identity, resolver, self.http, lambda kind: trusted.get(kind, frozenset()), StatusLists(resolver, self.http)
        )
        self.proofs = Proofs(verifier, self.log)
        self.source = TabularSource(data_file(folder))
        signatures = KeySignatures(identity, resolver, keys.sealing)
        self.engine = engine_of(config.engine)
        here = self.source.datasets()
        promise = Promise.of({"epsilon": config.privacy_epsilon, "delta": config.privacy_delta})
        told = _opt_outs(folder, config)
        opt_outs = choices.of_worker(told, self.source, self.log, config.country, self._page, signatures.verify)
        self.gate = Gate(
            did,
            config.country,
            self.source,
            self.log,
            self,
            signatures,
            engine=self.engine,
            opt_outs=opt_outs,
            in_environment=frozenset(here if config.environment_required else ()),
            attested=dict.fromkeys(here, config.evidence),
            promises=dict.fromkeys(here, promise),
            own=dict.fromkeys(here, config.limits) if config.limits else {},
        )
        self._life = uuid.uuid4().hex
        self._stopping = threading.Event()
        methods()

    def in_force(self, transfer: str) -> Grant:
        """Return the grant of a transfer from the proofs its connector shows.

        Raises:
            Refused: the transfer is not started, or a proof does not hold.

        """
        said = self.http.get_json(f"{self.config.connector}/worker/grants/{transfer}", self.key)
        if said.get("state") != "STARTED":
            raise Refused(f"the transfer is {said.get('state')}", reasons=tuple(said.get("reasons", [])))
        permit, state = self.proofs.check(str(said["token"]), str(said["membership"]), str(said["user"]))
        if state is PermitState.REVOKED:
            raise Refused("the permit was revoked", reasons=(f"EHDS 63(3), 68(10): the permit {permit.id} is REVOKED",))
        return Grant(permit, state, str(said["dataset"]), str(said["agreement"]))

    def _page(self, dataset: str, after: int) -> str:
        url = f"{self.config.connector}/worker/opt-outs?{urlencode({'dataset': dataset, 'after': after})}"
        return str(self.http.get_json(url, self.key).get("list", ""))

    def run(self) -> None:
        """Fetch questions and answer them until ``stop``."""
        self._hello()
        threads = [threading.Thread(target=self._work, name=f"worker-{n}", daemon=True) for n in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """End the threads after their present question, and leave the cluster if there is one."""
        self._stopping.set()
        self.engine.close()

    def _hello(self) -> None:
        """Tell the connector this worker's keys and datasets, until it hears."""
        datasets = {}
        for name in self.source.datasets():
            book = self.source.codebook(name)
            persons = self.source.open(Scope(name, frozenset(book.variables))).persons
            datasets[name] = {"codebook": book.to_dict(), "persons": persons // 10 * 10}
        keys = [[kid, jwk] for kid, jwk, _ in self.keys.methods()]
        body = {"keys": keys, "datasets": datasets, "life": self._life}
        pause = 0.1
        while not self._stopping.is_set():
            try:
                self.http.call("PUT", f"{self.config.connector}/worker/hello", body, self.key)
            except IhdsError as error:
                _log.info("the connector does not hear: %s", error.message)
                self._stopping.wait(pause)
                pause = min(5.0, pause * 2)
            else:
                return

    def _work(self) -> None:
        line = Line(self.config.connector, Guard.of(_only(urlsplit(self.config.connector).hostname or "")))
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/octet-stream"}
        while not self._stopping.is_set():
            try:
                status, data = line.post("/worker/next", json.dumps({"life": self._life}).encode(), headers)
                if status == 204:
                    continue
                if status != 200:
                    raise PeerFailed(f"the connector answered {status}")
                meta, body = unframe(data)
                line.post("/worker/answers", self._answer(meta, body), headers)
            except IhdsError as error:
                _log.info("%s", error.message)
                self._stopping.wait(1.0)
        line.close()

    def _answer(self, meta: dict[str, Any], body: bytes) -> bytes:
        """Put a question to the gate."""
        identifier, transfer, study = meta["id"], str(meta["transfer"]), str(meta.get("study", ""))
        began = time.monotonic()
        try:
            match meta["verb"]:
                case "open":
                    return frame({"id": identifier, "announcement": self.gate.open(str(meta["signed"]), transfer)})
                case "join":
                    return frame({"id": identifier}, self.gate.join(study, transfer, dict(meta["announcements"])))
                case "answer":
                    return frame({"id": identifier}, self.gate.answer(study, transfer, body))
                case "step":
                    return frame({"id": identifier}, self.gate.step(study, transfer, str(meta["name"]), body))
                case "close":
                    self.gate.close(study, transfer)
                case "close_transfer":
                    self.gate.close_transfer(transfer)
            return frame({"id": identifier})
        except IhdsError as error:
            return frame({"id": identifier, "error": error.to_dict()})
        except Exception:  # noqa: BLE001 - the other side learns nothing of our bug; the operator reads the log
            _log.exception("a question failed after %.1f s", time.monotonic() - began)
            return frame({"id": identifier, "error": IhdsError("this worker failed").to_dict()})


def _opt_outs(folder: Path, config: WorkerConfig) -> dict[str, Any]:
    """Return what the ticket brought for opt-outs.

    Raises:
        SetupFailed: it is gone, though the worker was made with it.

    """
    if not config.opt_out_registry:
        return {}
    try:
        return dict(json.loads((folder / OPT_OUTS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise SetupFailed(f"{folder / OPT_OUTS_FILE}: {error}", remedy="make the worker anew, with a ticket") from error


def _only(host: str) -> tuple[str, ...]:
    """Return the networks of one host: a worker calls its connector, nobody else."""
    import socket

    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    return tuple(f"{ip}/{128 if ':' in ip else 32}" for ip in sorted(found))
