"""Folders of what runs: each has a settings file, keys, and a log that begins with its making."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from ihds.audit.log import Event, Log
from ihds.errors import SetupFailed
from ihds.ids import Did
from ihds.store.store import Store, sqlite_url
from ihds.wire.keys import Keyring


def empty(folder: Path, file: str) -> None:
    """Make a folder that only its owner reads.

    Raises:
        SetupFailed: something is set up there already.

    """
    if (folder / file).exists():
        raise SetupFailed(f"{folder} holds one already", remedy="choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def write(path: Path, settings: Any) -> None:
    """Write a dataclass of settings as TOML."""
    body = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(settings).items()}
    path.write_text(tomli_w.dumps(body), encoding="utf-8")


def begin_log(folder: Path, did: Did, ring: Keyring, details: dict[str, Any], url: str = "") -> None:
    """Write the first entry of a log; without it no log is proved."""
    store = Store(url or sqlite_url(folder))
    Log(store, did, ring).commit(Event("node.created", did, details))
    store.close()


def entries(folder: Path) -> list[dict[str, Any]]:
    """Return the entries of a folder's log, as they stand there."""
    store = Store(whose(folder)[1])
    try:
        return [json.loads(text) for text in store.read()]
    finally:
        store.close()


def whose(folder: Path) -> tuple[Did, str]:
    """Return the DID and store of a node, data plane or worker."""
    from ihds.roles import dataplane, worker
    from ihds.roles.config import NodeConfig

    for file, kind in ((dataplane.FILE, dataplane.DataPlaneConfig), (worker.FILE, worker.WorkerConfig)):
        if (folder / file).exists():
            return Did.parse(kind.read(folder).did), sqlite_url(folder)
    config = NodeConfig.read(folder)
    return config.did, config.store_url(folder)
