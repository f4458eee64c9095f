"""A node's keys: encrypted at rest, rotated without a pause, or kept in a token that never gives them out.

Trust: the key files alone are of no use; whoever has them and the passphrase is the node. The
passphrase comes from the environment (IHDS_PASSPHRASE), from the file the configuration names, or
from a file outside the node's folder that ``ihds node init`` made.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import importlib.metadata
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ihds.errors import IllegalTransition, SetupFailed
from ihds.ids import Did
from ihds.wire.jose import Signer, SigningKey

FILE = "keys.json"
#: How long a former key still vouches for tokens: longer than any token or cached DID document lives.
OVERLAP_SECONDS = 3600.0

#: Makes a signer from its options and verification method id: the entry-point group ``ihds.signers``.
Factory = Callable[[Mapping[str, Any], str], Signer]


@dataclass(slots=True)
class Entry:
    """One key of a node. ``until`` is when it stopped signing; a retired key vouches for nothing more."""

    name: str
    jwk: dict[str, Any]
    since: float
    until: float | None = None
    retired: bool = False
    signer: str = "file"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sealing:
    """Encrypts small secrets under one key: AES-256-GCM with a fresh nonce each time."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def seal(self, data: bytes) -> str:
        """Return bytes encrypted for this node only."""
        nonce = secrets.token_bytes(12)
        return base64.b64encode(nonce + AESGCM(self.key).encrypt(nonce, data, None)).decode()

    def unseal(self, text: str) -> bytes:
        """Return what ``seal`` encrypted."""
        raw = base64.b64decode(text)
        return AESGCM(self.key).decrypt(raw[:12], raw[12:], None)


class Keyring:
    """All keys of a node; signs with the newest and says which older ones still count."""

    def __init__(self, folder: Path, did: Did, passphrase_file: str = "", prefix: str = "key") -> None:
        """Open the keys of a node's folder.

        Raises:
            SetupFailed: there are none, or the newest cannot be opened.

        """
        self.folder, self.did, self._passphrase_file, self._prefix = folder, did, passphrase_file, prefix
        self.entries = _read(folder)
        self._current = self._open(self.entries[-1])

    @classmethod
    def create(
        cls,
        folder: Path,
        did: Did,
        passphrase_file: str = "",
        signer: str = "file",
        options: Any = None,
        prefix: str = "key",
    ) -> Keyring:
        """Make the first key of a node and its passphrase; ``prefix`` begins the names of its keys.

        Raises:
            SetupFailed: the folder has keys already.

        """
        if (folder / FILE).exists():
            raise SetupFailed(f"{folder} holds a node already", remedy="choose another folder")
        passphrase(folder, did, passphrase_file, make=True)
        entry = _make(folder, did, f"{prefix}-1", signer, dict(options or {}), passphrase(folder, did, passphrase_file))
        _write(folder, [entry])
        return cls(folder, did, passphrase_file, prefix)

    # -- as a signer -----------------------------------------------------------------------------

    @property
    def kid(self) -> str:
        """The verification method id of the key in use."""
        return self._current.kid

    def public_jwk(self) -> dict[str, Any]:
        """Return the public JWK of the key in use."""
        return dict(self.entries[-1].jwk)

    def sign(self, data: bytes) -> str:
        """Return a base64 ES256 signature of bytes."""
        return self._current.sign(data)

    def sign_jwt(self, claims: dict[str, Any], typ: str = "JWT", **header: Any) -> str:
        """Return a compact JWT of claims."""
        return self._current.sign_jwt(claims, typ, **header)

    # -- life ------------------------------------------------------------------------------------

    def rotate(self, signer: str = "file", options: Any = None) -> str:
        """Make a new key and sign with it from now on; return its id. Older keys still verify."""
        name = f"{self._prefix}-{len(self.entries) + 1}"
        word = passphrase(self.folder, self.did, self._passphrase_file)
        entry = _make(self.folder, self.did, name, signer, dict(options or {}), word)
        fresh = self._open(entry)
        self.entries[-1].until = time.time()
        self.entries.append(entry)
        _write(self.folder, self.entries)
        self._current = fresh
        return fresh.kid

    def retire(self, name: str) -> None:
        """Stop a former key from vouching for anything, also for credentials it signed.

        Raises:
            IllegalTransition: it is unknown, or the one in use.

        """
        former = [e for e in self.entries[:-1] if name in (e.name, self._id(e))]
        if not former:
            raise IllegalTransition(f"{name!r} is not a former key", remedy="rotate first: ihds node key rotate")
        former[0].retired = True
        _write(self.folder, self.entries)
        (self.folder / f"{former[0].name}.pem").unlink(missing_ok=True)

    def methods(self) -> list[tuple[str, dict[str, Any], bool]]:
        """Return the keys a DID document lists: id, JWK, and whether it still vouches for fresh tokens."""
        at = time.time()
        return [
            (self._id(e), dict(e.jwk), e.until is None or at - e.until < OVERLAP_SECONDS)
            for e in self.entries
            if not e.retired
        ]

    def history(self) -> list[dict[str, Any]]:
        """Return all keys this node ever signed with, retired ones too: id, JWK, since when, until when."""
        return [
            {"key": self._id(e), "jwk": dict(e.jwk), "since": e.since, "until": e.until, "retired": e.retired}
            for e in self.entries
        ]

    @functools.cached_property
    def sealing(self) -> Sealing:
        """What encrypts the secrets that must lie in this node's database."""
        word = passphrase(self.folder, self.did, self._passphrase_file)
        return Sealing(hashlib.scrypt(word, salt=self.did.encode(), n=2**14, r=8, p=1, dklen=32))

    def _id(self, entry: Entry) -> str:
        return f"{self.did}#{entry.name}"

    def _open(self, entry: Entry) -> Signer:
        if entry.signer != "file":
            return plugin(entry.signer)(entry.options, self._id(entry))
        try:
            pem = (self.folder / f"{entry.name}.pem").read_bytes()
        except OSError as error:
            raise SetupFailed(f"the key {self._id(entry)} is gone: {error}", remedy="restore it") from error
        return SigningKey.from_pem(pem, self._id(entry), passphrase(self.folder, self.did, self._passphrase_file))


def public_keys(folder: Path) -> list[dict[str, Any]]:
    """Return the public JWKs of a node's keys that are not retired; needs no passphrase.

    Raises:
        SetupFailed: there are none.

    """
    return [dict(e.jwk) for e in _read(folder) if not e.retired]


def _read(folder: Path) -> list[Entry]:
    try:
        return [Entry(**entry) for entry in json.loads((folder / FILE).read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise SetupFailed(f"{folder / FILE} cannot be read: {error}", remedy="ihds node init") from error


def _make(folder: Path, did: Did, name: str, signer: str, options: dict[str, Any], word: bytes) -> Entry:
    if signer != "file":
        jwk = plugin(signer)(options, f"{did}#{name}").public_jwk()
        return Entry(name, jwk, time.time(), signer=signer, options=options)
    key = SigningKey.new(f"{did}#{name}")
    (folder / f"{name}.pem").unlink(missing_ok=True)  # no entry names it: a crash left it before it was used
    write_secret(folder / f"{name}.pem", key.to_pem(word))
    return Entry(name, key.public_jwk(), time.time())


def _write(folder: Path, entries: list[Entry]) -> None:
    fresh = folder / f"{FILE}.new"
    fresh.write_text(json.dumps([asdict(e) for e in entries], indent=1))
    fresh.replace(folder / FILE)  # all or nothing


def plugin(name: str) -> Factory:
    """Return the signer factory a package registered under ``ihds.signers``.

    Raises:
        SetupFailed: there is none of that name.

    """
    found = {point.name: point for point in importlib.metadata.entry_points(group="ihds.signers")}
    if name not in found:
        raise SetupFailed(f"no signer {name!r} is installed", remedy=f"there are: file, {', '.join(sorted(found))}")
    factory: Factory = found[name].load()
    return factory


def passphrase(folder: Path, did: Did, file: str = "", *, make: bool = False) -> bytes:
    """Return the passphrase of a node's keys; with ``make`` write one where none is.

    Raises:
        SetupFailed: there is none.

    """
    if given := os.environ.get("IHDS_PASSPHRASE"):
        return given.encode()
    path = Path(file) if file else secrets_folder() / f"{hashlib.sha256(did.encode()).hexdigest()[:32]}.passphrase"
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(path, secrets.token_urlsafe(32).encode())
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise SetupFailed(
            f"the passphrase of {folder} cannot be read: {error}",
            remedy="set IHDS_PASSPHRASE, or passphrase_file in node.toml",
        ) from error


def secrets_folder() -> Path:
    """Return where passphrases lie by default: outside every node's folder, so a copied folder is no node."""
    given = os.environ.get("IHDS_SECRETS")
    base = os.environ.get("XDG_CONFIG_HOME")
    return Path(given) if given else (Path(base) if base else Path.home() / ".config") / "ihds" / "secrets"


def write_secret(path: Path, data: bytes) -> None:
    """Write a fresh file that only its owner can read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
