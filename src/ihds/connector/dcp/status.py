"""Status lists: one bit per credential, in both published forms (StatusList2021, BitstringStatusList 1.0)."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ihds.connector.dcp.credentials import VC11, VC20, Profile, issue, read
from ihds.connector.dcp.tokens import LEEWAY, Identity
from ihds.errors import CannotVerify, IhdsError, NotAuthenticated, PeerFailed, Refused
from ihds.wire.did import Resolver
from ihds.wire.http import Http

_BITS = 131_072
#: A list that unpacks to more is refused: 2^27 credentials are enough for one list.
_MAX_BYTES = 1 << 24
_ENTRY = {VC11: "StatusList2021Entry", VC20: "BitstringStatusListEntry"}
_LIST = {VC11: "StatusList2021", VC20: "BitstringStatusList"}


def entry(list_url: str, index: int, profile: Profile = VC11, purpose: str = "revocation") -> dict[str, Any]:
    """Return the credentialStatus that points at a bit."""
    return {
        "id": f"{list_url}#{index}",
        "type": _ENTRY[profile],
        "statusPurpose": purpose,
        "statusListIndex": str(index),
        "statusListCredential": list_url,
    }


def encode_bits(set_bits: set[int], profile: Profile = VC11) -> str:
    """Return an ``encodedList`` with some bits set; bit 0 is the most significant."""
    size = max(_BITS, (max(set_bits, default=0) // 8 + 1) * 8)
    bits = bytearray(size // 8)
    for index in set_bits:
        bits[index // 8] |= 0x80 >> index % 8
    packer = zlib.compressobj(wbits=31)  # gzip without a time stamp: equal lists give equal texts
    packed = packer.compress(bytes(bits)) + packer.flush()
    return ("u" if profile == VC20 else "") + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_bit(encoded: str, index: int, width: int = 1) -> bool:
    """Return whether a status is set in an ``encodedList`` of either form; beyond the list counts as set.

    Raises:
        Refused: the list cannot be read.

    """
    text = encoded.removeprefix("u") if encoded.startswith("uH4sI") else encoded
    try:
        unpacker = zlib.decompressobj(wbits=31)
        bits = unpacker.decompress(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), _MAX_BYTES)
    except (ValueError, zlib.error) as error:
        raise Refused(f"the status list cannot be read: {error}") from error
    wanted = range(index * width, (index + 1) * width)
    if index < 0 or wanted.stop > len(bits) * 8:
        return True
    return any(bits[i // 8] & 0x80 >> i % 8 for i in wanted)


def status_list(
    identity: Identity,
    url: str,
    revoked: set[int],
    expires: datetime,
    profile: Profile = VC11,
    purpose: str = "revocation",
) -> str:
    """Return the signed status list credential."""
    kind = _LIST[profile]
    claims = {"type": kind, "statusPurpose": purpose, "encodedList": encode_bits(revoked, profile)}
    return issue(identity, url, f"{kind}Credential", claims, expires, profile=profile)


@dataclass
class StatusLists:
    """Fetches the lists others publish and keeps each for a few seconds; not knowing means no."""

    resolver: Resolver
    http: Http
    seconds: float = 5.0
    _lists: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)

    def is_set(self, status: Mapping[str, Any], issuer: str) -> bool:
        """Return whether the bit of a credential's status is set.

        Raises:
            CannotVerify: the list cannot be fetched now.
            Refused: it does not verify or cannot be read.

        """
        try:
            url, index = str(status["statusListCredential"]), int(status["statusListIndex"])
            width = int(status.get("statusSize", 1))
        except (KeyError, ValueError, TypeError) as error:
            raise Refused(f"the credential's status cannot be read: {error!r}") from error
        if status.get("type") not in _ENTRY.values():
            raise Refused(f"the status type {status.get('type')!r} is unknown: not knowing means no")
        cached = self._lists.get(url)
        if cached is None or time.monotonic() - cached[0] > self.seconds:
            cached = (time.monotonic(), self._fetch(url, issuer))
            self._lists[url] = cached
        if cached[1].get("statusPurpose") not in (status.get("statusPurpose"), None):
            raise Refused(f"the list {url} is for {cached[1].get('statusPurpose')!r}")
        return read_bit(str(cached[1].get("encodedList", "")), index, width)

    def forget(self) -> None:
        """Drop what is kept, when an issuer says that a list changed."""
        self._lists.clear()

    def _fetch(self, url: str, issuer: str) -> dict[str, Any]:
        try:
            answer = self.http.send("GET", url, headers={"Accept": "application/vc+jwt, application/json"})
            if answer.status_code != 200:
                raise PeerFailed(f"it was answered {answer.status_code}")
            token = _token(answer.text)
            self.resolver.verify(token, "assertionMethod", issuer)
            found = read(token)
            at = time.time()
            if found.id != url and found.subject.get("id") not in (url, f"{url}#list"):
                raise NotAuthenticated("it is another list")
            if found.valid_until is not None and found.valid_until.timestamp() < at - LEEWAY:
                raise NotAuthenticated("it is an old list")
        except (CannotVerify, PeerFailed) as error:
            raise CannotVerify(
                f"the status list {url} cannot be fetched: {error}",
                reasons=("status unknown: not knowing means no",),
                remedy="wait until its issuer answers again",
            ) from error
        except IhdsError as error:
            raise Refused(f"the status list {url} does not verify: {error}") from error
        return dict(found.subject)


def _token(text: str) -> str:
    """Return the JWT in an answer: bare, as a JSON string, or in the ``credential`` of an object."""
    if text.lstrip()[:1] not in ('"', "{"):
        return text.strip()
    try:
        body = json.loads(text)
    except ValueError as error:
        raise NotAuthenticated("it is neither a JWT nor JSON") from error
    return str(body.get("credential", "") if isinstance(body, dict) else body)
