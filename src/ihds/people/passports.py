"""Visas of GA4GH (Passport 1.2; AAI Profile 1.2): those that come are evidence, those that go say what is granted.

Trust: a visa is believed if an issuer that the configuration lists signed it with a key at the address listed with it;
an address that the visa itself names (``jku``) opens nothing. No visa grants anything here. A visa that goes out lasts
an hour and never longer than its permit; whoever relies on it fetches it anew, and gets none once the permit has ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

from ihds.errors import BadInput, IhdsError, NotAuthenticated
from ihds.governance.permit import Permit
from ihds.people.oidc import LEEWAY_SECONDS, KeyShelf, guarded
from ihds.wire.http import Http
from ihds.wire.jose import Signer, read_unverified

CLAIM, PASSPORT = "ga4gh_visa_v1", "ga4gh_passport_v1"
GRANTS, LINKED = "ControlledAccessGrants", "LinkedIdentities"
#: The standard types, with what they are evidence of.
TYPES = {
    "AffiliationAndRole": "a role at an institution",
    "AcceptedTermsAndPolicies": "terms that were accepted",
    "ResearcherStatus": "being a bona fide researcher",
    GRANTS: "access that somebody granted to a dataset",
    LINKED: "identities that are one person",
}
_BY = ("self", "peer", "system", "so", "dac")
_LASTS = timedelta(hours=1)
_MOST, _TEXT = 50, 2000


@dataclass(frozen=True, slots=True)
class Visa:
    """One assertion of a trusted issuer about a person; times in seconds since 1970."""

    type: str
    value: str
    source: str
    by: str
    asserted: int
    issuer: str
    subject: str
    expires: int
    conditions: bool

    @classmethod
    def of(cls, claims: dict[str, Any]) -> Visa:
        """Read the claims of a visa. Raises NotAuthenticated."""
        body = claims.get(CLAIM)
        if not isinstance(body, dict):
            raise NotAuthenticated(f"this is no visa: no {CLAIM}")
        words = [body.get("type"), body.get("value"), body.get("source"), claims.get("iss"), claims.get("sub")]
        if not all(isinstance(w, str) and 0 < len(w) <= _TEXT for w in words):
            raise NotAuthenticated("this is no visa: type, value, source, iss and sub are texts")
        times = (body.get("asserted"), claims.get("exp"))
        if not all(isinstance(t, (int, float)) and not isinstance(t, bool) for t in times):
            raise NotAuthenticated("this is no visa: asserted and exp are times")
        by = str(body.get("by") or "")
        if by and by not in _BY:
            raise NotAuthenticated(f"nobody asserts as {by[:50]!r}")
        kind, value, source, issuer, subject = map(str, words)
        asserted, expires = (int(t) for t in times if isinstance(t, (int, float)))
        return cls(kind, value, source, by, asserted, issuer, subject, expires, bool(body.get("conditions")))


class VisaDesk:
    """Checks visas of listed issuers; ``issuers`` gives the address of each one's keys."""

    def __init__(self, issuers: Mapping[str, str], http: Http, clock: Callable[[], float] = time.time) -> None:
        """Trust some issuers. Raises SetupFailed if an address is not safe."""
        self.clock = clock
        self._shelves = {issuer: (keys, self._shelf(issuer, keys, http)) for issuer, keys in issuers.items()}

    def _shelf(self, issuer: str, keys: str, http: Http) -> KeyShelf:
        url = guarded(keys, f"the address of the keys of {issuer}")
        return KeyShelf(lambda: url, http, self.clock)

    def read(self, token: str) -> Visa:
        """Return a visa that is believed.

        Raises:
            NotAuthenticated: its issuer is not listed, its keys are said to lie elsewhere, it is forged or over.
            CannotVerify: the issuer's keys cannot be learnt now.

        """
        header, unread = read_unverified(token)
        known = self._shelves.get(str(unread.get("iss")))
        if known is None:
            raise NotAuthenticated(f"{str(unread.get('iss'))[:200]} is no issuer of visas that is trusted here")
        keys, shelf = known
        if header.get("jku", keys) != keys:
            raise NotAuthenticated("the visa says that its keys lie elsewhere than the issuer's")
        visa, at = Visa.of(shelf.verify(token)[1]), self.clock()
        if visa.expires < at - LEEWAY_SECONDS:
            raise NotAuthenticated("the visa is over")
        if visa.asserted > at + LEEWAY_SECONDS:
            raise NotAuthenticated("the visa asserts something of the future")
        return visa

    def evidence(self, tokens: Iterable[str]) -> list[dict[str, Any]]:
        """Return what each token is evidence of, or why it is none; nothing is refused by that."""
        shown: list[dict[str, Any]] = []
        for token in tokens:
            try:
                visa = self.read(token)
            except IhdsError as error:
                shown.append({"believed": False, "why": error.message})
                continue
            told = {"believed": True, **asdict(visa), "means": TYPES.get(visa.type, "a type of its issuer's own")}
            why = "it holds under conditions, which are not judged here" if visa.conditions else ""
            shown.append({**told, "why": why})
        return shown


def tokens_of(body: object) -> tuple[str, ...]:
    """Return the visas of a list, or of a passport as a userinfo endpoint gives it. Raises BadInput."""
    found = body.get(PASSPORT) if isinstance(body, dict) else body
    if not isinstance(found, list) or len(found) > _MOST or not all(isinstance(t, str) for t in found):
        raise BadInput(f"visas are a list of at most {_MOST} tokens, or an object with {PASSPORT}")
    return tuple(found)


def one_person(shown: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether believed visas are about one person, as LinkedIdentities among them say."""
    believed = [v for v in shown if v["believed"]]
    group = {(str(v["subject"]), str(v["issuer"])) for v in believed}
    links = [
        {(str(v["subject"]), str(v["issuer"])), *_linked(str(v["value"]))} for v in believed if v["type"] == LINKED
    ]
    if len(group) < 2:
        return True
    reached = {next(iter(sorted(group)))}
    for _ in links:
        for link in links:
            if link & reached:
                reached |= link
    return group <= reached


def _linked(value: str) -> set[tuple[str, str]]:
    pairs = (part.split(",") for part in value.split(";"))
    return {(unquote(pair[0]), unquote(pair[1])) for pair in pairs if len(pair) == 2}


def visas_of(
    permit: Permit, key: Signer, issuer: str, keys: str, subject: str, at: datetime, same: Mapping[str, str] | None
) -> list[str]:
    """Return the visas of a permit in force for one of its persons: one a dataset, and one that links identities.

    ``issuer`` is the access body's address, ``keys`` that of its keys, ``subject`` what it calls the person; ``same``
    is who signed in at the person's institution, by issuer and subject.
    """
    ends = min(at + _LASTS, permit.expires_at)
    head = {"iss": issuer, "sub": subject, "iat": int(at.timestamp()), "exp": int(ends.timestamp())}

    def visa(kind: str, value: str, source: str, by: str) -> str:
        told = {"type": kind, "asserted": int(permit.issued_at.timestamp()), "value": value, "source": source, "by": by}
        return key.sign_jwt({**head, "jti": secrets.token_urlsafe(16), CLAIM: told}, jku=keys)

    made = [visa(GRANTS, f"{holder}#{dataset}", issuer, "dac") for holder, dataset in permit.datasets]
    if same:
        value = f"{quote(same['subject'], safe='')},{quote(same['issuer'], safe='')}"
        made.append(visa(LINKED, value, permit.user, "so"))
    return made
