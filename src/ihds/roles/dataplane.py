"""A data plane in a process of its own: the same plane as inside a node, driven by Data Plane Signaling.

Trust: it sees the bytes it moves and holds the signaling key; it has no voice in the data space. Its
log is its own and is proved like a node's.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
import tomllib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from ihds.audit.log import Log
from ihds.connector.dataplane.http import PULL, PUSH, HttpPlane
from ihds.connector.dataplane.plane import Flow, Tokens
from ihds.connector.dataplane.signaling import PlaneSide, report_to
from ihds.errors import IhdsError, NotFound, SetupFailed
from ihds.ids import Did
from ihds.roles import folders
from ihds.roles.config import NodeConfig
from ihds.store.store import Store, sqlite_url
from ihds.wire.guard import LOOPBACK
from ihds.wire.http import Http
from ihds.wire.keys import Keyring

_log = logging.getLogger("ihds.dataplane")

FILE = "dataplane.toml"
KEY_FILE = "dataplane.key"
_ADMIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DataPlaneConfig:
    """One data plane. ``control`` is its connector's address, ``files`` maps dataset ids to paths or URLs."""

    did: str
    control: str
    url: str
    port: int
    host: str = "127.0.0.1"
    bytes_per_second: float = 0.0
    token_seconds: float = 900.0
    passphrase_file: str = ""
    allowed_networks: tuple[str, ...] = LOOPBACK
    files: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> DataPlaneConfig:
        """Read the file of a data plane's folder.

        Raises:
            SetupFailed: it is absent or wrong.

        """
        try:
            body: dict[str, Any] = tomllib.loads((folder / FILE).read_text(encoding="utf-8"))
            found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}
            return cls(**found)
        except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
            raise SetupFailed(f"{folder / FILE}: {error}", remedy="make one: ihds dataplane init") from error


def create(folder: Path, node_folder: Path, url: str, port: int) -> DataPlaneConfig:
    """Make a data plane for a node that lies on this machine; it takes over the node's files.

    Raises:
        SetupFailed: there is no node, or a data plane already.

    """
    node = NodeConfig.read(node_folder)
    folders.empty(folder, FILE)
    files = {
        d.id: d.file if d.file.startswith(("http://", "https://")) else str((node_folder / d.file).resolve())
        for d in node.datasets
        if d.file
    }
    config = DataPlaneConfig(
        did=node.did,
        control=node.base_url,
        url=url.rstrip("/"),
        port=port,
        bytes_per_second=node.bytes_per_second,
        token_seconds=node.token_seconds,
        passphrase_file=node.passphrase_file,
        allowed_networks=node.networks,
        files=files,
    )
    folders.write(folder / FILE, config)
    shutil.copy2(node_folder / KEY_FILE, folder / KEY_FILE)
    ring = Keyring.create(folder, node.did, node.passphrase_file)
    folders.begin_log(folder, node.did, ring, {"role": "dataplane"})
    return config


class DataPlane:
    """A running data plane."""

    def __init__(self, folder: Path) -> None:
        """Open a data plane's folder.

        Raises:
            SetupFailed: configuration, key or store is not ready.

        """
        self.config = config = DataPlaneConfig.read(folder)
        did = Did.parse(config.did)
        self.key = (folder / KEY_FILE).read_text(encoding="utf-8").strip()
        self.http = Http(allowed=config.allowed_networks)
        self.log = Log(Store(sqlite_url(folder)), did, Keyring(folder, did, config.passphrase_file))
        self._admitted: dict[str, float] = {}
        self.plane = HttpPlane(
            self.log,
            did,
            f"{config.url}/public",
            self._origin,
            folder / "inbox",
            self.http,
            Tokens(self.log, "flow.token", config.token_seconds),
            report_to(config.control, self.key, self.http),
            self._admit,
            config.bytes_per_second,
        )
        self.side = PlaneSide(self.plane, self.log, did, self.key)
        self._stopping = threading.Event()

    def _origin(self, dataset: str) -> Path | str:
        found = self.config.files.get(dataset)
        if found is None:
            raise NotFound(f"no file {dataset!r} is offered here")
        return found if found.startswith(("http://", "https://")) else Path(found)

    def _admit(self, flow: Flow) -> None:
        """Ask the connector whether the receiver may have more; its word is good for a few seconds."""
        if self._admitted.get(flow.id, 0.0) > time.monotonic():
            return
        self.http.get_json(f"{self.config.control}/signaling/transfers/{flow.id}/agreement", self.key)
        self._admitted[flow.id] = time.monotonic() + _ADMIT_SECONDS

    def app(self) -> Starlette:
        """Return the data plane's web application; it registers with its connector while it runs."""

        @contextlib.asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[None]:
            threading.Thread(target=self._register, name="register", daemon=True).start()
            self.plane.resume()
            yield
            self._stopping.set()
            self.http.close()

        return Starlette(routes=[*self.side.routes(), *self.plane.routes()], lifespan=lifespan)

    def _register(self) -> None:
        """Register until it works, and again now and then: the connector may be made anew."""
        pause = 0.1
        body = {"dataplaneId": self.config.url, "endpoint": self.config.url, "profiles": [PULL, PUSH]}
        while not self._stopping.is_set():
            try:
                self.http.call("PUT", f"{self.config.control}/signaling/dataplanes", body, self.key)
                pause = 30.0
            except IhdsError as error:
                _log.info("not registered yet: %s", error.message)
                pause = min(5.0, pause * 2)
            self._stopping.wait(pause)
