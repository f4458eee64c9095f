"""Decentralised identifiers: did:web documents made, published and resolved."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from ihds.errors import BadMessage, CannotVerify, NotAuthenticated, PeerFailed
from ihds.ids import Did
from ihds.wire.http import Http
from ihds.wire.jose import MAX_STATEMENT, MAX_TOKEN, read_unverified, verify_bytes, verify_jwt
from ihds.wire.strict import read_json

_log = logging.getLogger("ihds.did")

_CONTEXT = ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/suites/jws-2020/v1"]
_RELATIONS = {"authentication", "assertionMethod", "capabilityInvocation", "capabilityDelegation", "keyAgreement"}
_CACHE_SECONDS = 60.0
_RENEW_SECONDS = 1.0
_FETCH_SECONDS = 5.0
_WAIT_SECONDS = 1.0
_FAILED_SECONDS = 10.0
_SLOW_SECONDS = 1.0
_LARGEST = 1 << 18
_MOST = 2000


def did_of(base_url: str) -> Did:
    """Return the did:web of a node at a base URL; a port is written as %3A."""
    parts = urlsplit(base_url)
    host = parts.netloc.replace(":", "%3A")
    path = parts.path.strip("/").replace("/", ":")
    return Did.parse("did:web:" + host + (f":{path}" if path else ""))


def document_url(did: str) -> str:
    """Return where a did:web document lies; plain HTTP for loopback addresses only.

    Raises:
        NotAuthenticated: it is not a did:web.

    """
    if not did.startswith("did:web:"):
        raise NotAuthenticated(f"{did} is not a did:web", remedy="give a did:web")
    host, *path = did.removeprefix("did:web:").split(":")
    netloc = unquote(host)
    if any(c in unquote(part) for part in (host, *path) for c in "/?#@\\") or not re.fullmatch(r"[\w.:\[\]-]+", netloc):
        raise NotAuthenticated(f"{did} is not a did:web", remedy="give a did:web")
    loopback = netloc.split(":")[0] in ("127.0.0.1", "localhost") or netloc.startswith("[::1]")
    scheme = "http" if loopback else "https"
    tail = "/".join([*path, "did.json"]) if path else ".well-known/did.json"
    return f"{scheme}://{netloc}/{tail}"


Method = tuple[str, dict[str, Any], bool]


def document(did: str, methods: list[Method], services: dict[str, str]) -> dict[str, Any]:
    """Return the DID document of a node.

    ``methods`` are key id, JWK, and whether the key still vouches for fresh tokens; an older one
    only proves what it signed before. ``services`` maps type to endpoint.
    """
    fresh = [kid for kid, _, vouches in methods if vouches]
    return {
        "@context": _CONTEXT,
        "id": did,
        "verificationMethod": [
            {"id": kid, "type": "JsonWebKey2020", "controller": did, "publicKeyJwk": jwk} for kid, jwk, _ in methods
        ],
        "authentication": fresh,
        "assertionMethod": [kid for kid, _, _ in methods],
        "capabilityInvocation": fresh,
        "service": [
            {"id": f"{did}#{kind.lower()}", "type": kind, "serviceEndpoint": url} for kind, url in services.items()
        ],
    }


@dataclass
class Resolver:
    """Finds DID documents and the keys in them; keeps each for a minute."""

    http: Http
    known: Mapping[str, Callable[[], dict[str, Any]]] = field(default_factory=dict)
    _cache: dict[str, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    _renewals: dict[str, float] = field(default_factory=dict)
    _failed: dict[str, float] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _strangers: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(12))

    def resolve(self, did: str) -> dict[str, Any]:
        """Return a DID document.

        Raises:
            CannotVerify: it cannot be fetched now.
            NotAuthenticated: it is another's.

        """
        if did in self.known:
            return self.known[did]()
        cached = self._cache.get(did)
        if cached and time.monotonic() - cached[0] < _CACHE_SECONDS:
            return cached[1]
        lock = self._locks.setdefault(did, threading.Lock())  # callers of one stranger wait for one answer, not long
        if not lock.acquire(timeout=_WAIT_SECONDS):
            raise CannotVerify(f"the DID document of {did} cannot be fetched now", remedy="try again")
        try:
            cached = self._cache.get(did)
            if cached and time.monotonic() - cached[0] < _CACHE_SECONDS:
                return cached[1]
            if self._failed.get(did, 0.0) > time.monotonic():
                raise CannotVerify(f"the DID document of {did} cannot be fetched")
            return self._fetch(did)
        finally:
            lock.release()

    def _fetch(self, did: str) -> dict[str, Any]:
        """Fetch a document in bounded time; few strangers at once, so that they never hold all of a node's threads."""
        url = document_url(did)
        if not self._strangers.acquire(timeout=_WAIT_SECONDS):
            raise CannotVerify(f"the DID document of {did} cannot be fetched now", remedy="try again")
        began = time.monotonic()
        try:
            answer = self.http.send("GET", url, seconds=_FETCH_SECONDS, limit=_LARGEST)
            body = read_json(answer.content) if answer.status_code == 200 else None
            if not isinstance(body, dict):
                raise BadMessage(f"it was answered {answer.status_code}")
        except (PeerFailed, BadMessage) as error:
            _log.info("%s: %s", url, error.message)  # the stranger is not told what our network looks like
            if time.monotonic() - began > _SLOW_SECONDS:  # a tarpit is not waited for again at once
                self._failed[did] = time.monotonic() + _FAILED_SECONDS
            raise CannotVerify(f"the DID document of {did} cannot be fetched") from error
        finally:
            self._strangers.release()
            self._trim()
        if body.get("id") != did:
            raise NotAuthenticated(f"the DID document of {did} is another's")
        self._cache[did] = (time.monotonic(), body)
        return body

    def _trim(self) -> None:
        for kept in (self._cache, self._failed, self._renewals, self._locks):
            while len(kept) > _MOST:
                kept.pop(next(iter(kept)), None)

    def fresh(self, did: str) -> dict[str, Any]:
        """Return a DID document as it is now, not as it was a minute ago. Raises NotAuthenticated."""
        self._cache.pop(did, None)
        return self.resolve(did)

    def key(self, did: str, kid: str | None, relation: str) -> dict[str, Any]:
        """Return the public JWK of a DID for a verification relationship.

        Raises:
            NotAuthenticated: there is no such key there.

        """
        found = self._find(did, kid, relation)
        if found is None and self._renewed(did):  # it may have rotated its keys a moment ago
            found = self._find(did, kid, relation)
        if found is None:
            raise NotAuthenticated(f"{did} has no key {kid!r} for {relation}")
        return found

    def _find(self, did: str, kid: str | None, relation: str) -> dict[str, Any] | None:
        body = self.resolve(did)
        try:
            methods = {_absolute(did, m["id"]): m for m in body.get("verificationMethod", [])}
            if kid is None and len(methods) == 1:
                kid = next(iter(methods))
            # a document that says nothing of what its keys are for means all of them, for everything
            named = body.get(relation, []) if set(body) & _RELATIONS else methods
            related = [_absolute(did, r if isinstance(r, str) else r["id"]) for r in named]
            return dict(methods[kid]["publicKeyJwk"]) if kid in methods and kid in related else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotAuthenticated(f"the DID document of {did} cannot be read: {error!r}") from error

    def _renewed(self, did: str) -> bool:
        """Drop a kept document, at most once in a moment; return whether there was one."""
        at = time.monotonic()
        if did not in self._cache or at - self._renewals.get(did, 0.0) < _RENEW_SECONDS:
            return False
        self._renewals[did] = at
        self._cache.pop(did, None)
        return True

    def verify(self, token: str, relation: str, signer: str | None = None) -> dict[str, Any]:
        """Return the claims of a JWT after checking that its ``iss`` (or ``signer``) signed it.

        Raises:
            NotAuthenticated: the issuer or its signature does not fit.

        """
        longest = MAX_TOKEN if relation == "capabilityInvocation" else MAX_STATEMENT
        header, claims = read_unverified(token, longest)
        issuer = str(claims.get("iss") or _issuer(claims))
        if signer is not None and issuer != signer:
            raise NotAuthenticated(f"this was signed by {issuer!r}, not by {signer}")
        kid = header.get("kid")
        if isinstance(kid, str) and kid.startswith("#"):
            kid = issuer + kid
        if kid is not None and not str(kid).startswith(f"{issuer}#"):
            raise NotAuthenticated(f"the key {kid!r} is not one of {issuer}")
        return verify_jwt(token, self.key(issuer, kid, relation), longest)

    def vouches(self, did: str, data: bytes, signature: str) -> bool:
        """Return whether a key of a DID that still counts signed these bytes; the document is fetched anew if not."""
        jwks = statement_keys(self.resolve(did))
        if any(verify_bytes(data, signature, jwk) for jwk in jwks):
            return True
        return self._renewed(did) and any(verify_bytes(data, signature, j) for j in statement_keys(self.resolve(did)))

    def service(self, did: str, kind: str) -> str:
        """Return a service endpoint from a DID document.

        Raises:
            NotAuthenticated: the document names none.

        """
        services = self.resolve(did).get("service")
        for service in services if isinstance(services, list) else []:
            if (
                isinstance(service, dict)
                and service.get("type") == kind
                and isinstance(service.get("serviceEndpoint"), str)
            ):
                return str(service["serviceEndpoint"]).rstrip("/")
        raise NotAuthenticated(f"{did} names no {kind} in its DID document")


def statement_keys(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the public JWKs of a DID document that vouch for statements.

    Raises:
        NotAuthenticated: it cannot be read.

    """
    try:
        did = str(body["id"])
        named = {_absolute(did, r) for r in body.get("assertionMethod", []) if isinstance(r, str)}
        methods = body.get("verificationMethod", [])
        return [dict(m["publicKeyJwk"]) for m in methods if _absolute(did, m["id"]) in named]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotAuthenticated(f"the DID document cannot be read: {error!r}") from error


def _absolute(did: str, identifier: str) -> str:
    return did + identifier if identifier.startswith("#") else identifier


def _issuer(claims: dict[str, Any]) -> Any:
    """Return the issuer or holder that a VC 2.0 names where a JWT would have ``iss``."""
    named = claims.get("issuer") or claims.get("holder") or ""
    return named.get("id", "") if isinstance(named, dict) else named
