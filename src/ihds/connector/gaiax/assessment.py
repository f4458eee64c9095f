"""The check of a participant's Gaia-X presentation: signatures, anchors, shapes, rules; a labelled self-assessment.

It does what a clearing house does, for oneself and one's partners. Its label says so in words: only
an accredited clearing house states Gaia-X compliance.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from ihds.connector.dcp.credentials import Credential, presented_tokens, read
from ihds.connector.dcp.tokens import Identity
from ihds.connector.gaiax import chains
from ihds.connector.gaiax.statements import CONTEXT, REGISTRATIONS, TERMS_HASH, sign_vc
from ihds.errors import IhdsError, NotAuthenticated, SetupFailed
from ihds.governance.countries import COUNTRIES
from ihds.wire.did import Resolver
from ihds.wire.http import Http
from ihds.wire.jose import read_unverified

NOTICE = (
    "Self-assessment in the form of Gaia-X credentials, made by IHDS. It is not a statement of Gaia-X compliance: "
    "only an accredited Gaia-X Digital Clearing House issues those."
)
_GX = "https://w3id.org/gaia-x/development#"
_INLINE = {"gx": _GX, "id": "@id", "type": "@type", "odrl": "http://www.w3.org/ns/odrl/2/"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: which rule, whether it holds, what was found."""

    rule: str
    holds: bool
    found: str


@dataclass
class Assessment:
    """All checks of one presentation, and the credentials it held."""

    subject: str
    checks: list[Check] = field(default_factory=list)
    credentials: list[Credential] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.holds for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        checks = [{"rule": c.rule, "holds": c.holds, "found": c.found} for c in self.checks]
        return {"subject": self.subject, "passed": self.passed, "checks": checks, "notice": NOTICE}


@dataclass
class Assessor:
    """Checks presentations against anchors, notaries and shapes the operator trusts.

    ``shapes`` is a folder with SHACL files (``*.ttl``) and, if the credentials use short terms, a
    ``context.jsonld`` that explains them; without it shapes are not checked, and the result says so.
    """

    resolver: Resolver
    http: Http
    anchors: Sequence[x509.Certificate]
    notaries: frozenset[str]
    shapes: Path | None = None

    def assess(self, token: str) -> Assessment:
        """Check a presentation; the first failures are told, nothing is raised for a bad one."""
        header, claims = read_unverified(token)
        who = str(claims.get("issuer") or claims.get("holder") or header.get("iss") or "")
        result = Assessment(who)

        def check(rule: str, holds: Callable[[], Any]) -> Any:
            try:
                found = holds()
            except IhdsError as error:
                result.checks.append(Check(rule, False, error.message))
                return None
            result.checks.append(Check(rule, True, str(found)))
            return found

        check("the presentation is signed by its issuer", lambda: self._signed(token))
        for inner in presented_tokens(claims):
            credential = check("a credential can be read", lambda inner=inner: read(inner))  # type: ignore[misc]
            if not isinstance(credential, Credential):
                continue
            result.checks[-1] = Check(
                "a credential can be read", True, f"{', '.join(credential.types)} {credential.id}"
            )
            result.credentials.append(credential)
            name = ", ".join(credential.types)
            check(f"{name}: signed by its issuer, and valid", lambda c=credential: self._valid(c))  # type: ignore[misc]
        for issuer in sorted({who, *(c.issuer for c in result.credentials)} - {""}):
            check(f"{issuer}: its key leads to a trust anchor", lambda i=issuer: self._anchored(i, result))  # type: ignore[misc]
            check(f"{issuer}: accepts the Gaia-X terms", lambda i=issuer: self._accepts(i, result))  # type: ignore[misc]
        for rule, holds in _RULES.items():
            check(rule, lambda h=holds: h(self, result))  # type: ignore[misc]
        check("the credentials fit their shapes", lambda: self._shaped(result))
        return result

    def _signed(self, token: str) -> str:
        claims = self.resolver.verify(token, "assertionMethod")
        until = claims.get("validUntil")
        if until and datetime.fromisoformat(str(until)) < datetime.now(UTC):
            raise NotAuthenticated("the presentation is over")
        return str(read_unverified(token)[0].get("kid"))

    def _valid(self, credential: Credential) -> str:
        self.resolver.verify(credential.token, "assertionMethod", credential.issuer)
        at = datetime.now(UTC)
        if credential.valid_from and credential.valid_from > at:
            raise NotAuthenticated(f"valid from {credential.valid_from:%Y-%m-%d}")
        if credential.valid_until and credential.valid_until < at:
            raise NotAuthenticated(f"valid until {credential.valid_until:%Y-%m-%d}")
        return f"until {credential.valid_until:%Y-%m-%d}" if credential.valid_until else "without end"

    def _anchored(self, issuer: str, result: Assessment) -> str:
        kids = {str(read_unverified(c.token)[0].get("kid")) for c in result.credentials if c.issuer == issuer}
        document = self.resolver.fresh(issuer)
        methods = {m["id"]: m["publicKeyJwk"] for m in document.get("verificationMethod", [])}
        named = [methods[kid] for kid in kids if kid in methods] or list(methods.values())[-1:]
        names = set()
        for jwk in named:
            url = jwk.get("x5u")
            if not url:
                raise NotAuthenticated("its key names no certificate chain (x5u)")
            answer = self.http.send("GET", str(url))
            if answer.status_code != 200:
                raise NotAuthenticated(f"{url} was answered {answer.status_code}")
            names.add(chains.verify(chains.read(answer.content), self.anchors, jwk))
        return ", ".join(sorted(names))

    def _accepts(self, issuer: str, result: Assessment) -> str:
        if issuer in self.notaries:
            return "a trusted notary"
        for credential in result.credentials:
            if "gx:Issuer" in credential.types and credential.issuer == issuer:
                if credential.subject.get("gx:gaiaxTermsAndConditions") == TERMS_HASH:
                    return TERMS_HASH[:16]
                raise NotAuthenticated("it names other terms than Gaia-X's")
        raise NotAuthenticated("there is no gx:Issuer credential of it")

    def _registered(self, result: Assessment) -> str:
        persons = [c for c in result.credentials if "gx:LegalPerson" in c.types]
        if len(persons) != 1:
            raise NotAuthenticated(f"there are {len(persons)} legal persons, not one")
        wanted = persons[0].subject.get("gx:registrationNumber", {}).get("id")
        for credential in result.credentials:
            kinds = {f"gx:{kind}" for kind in REGISTRATIONS} & set(credential.types)
            if kinds and credential.subject.get("id") == wanted:
                if credential.issuer not in self.notaries:
                    raise NotAuthenticated(f"{credential.issuer} is not a notary trusted here")
                return f"{kinds.pop()} by {credential.issuer}"
        raise NotAuthenticated("the number the legal person names is not in the presentation")

    def _provided(self, result: Assessment) -> str:
        persons = {c.subject.get("id") for c in result.credentials if "gx:LegalPerson" in c.types}
        names = ("gx:providedBy", "gx:digitalServiceOfferingProvider")
        told = [c.subject[n].get("id") for c in result.credentials for n in names if isinstance(c.subject.get(n), dict)]
        strangers = [provider for provider in told if provider not in persons]
        if strangers:
            raise NotAuthenticated(f"{strangers[0]} is not the legal person of this presentation")
        return f"{len(told)} services"

    def _countries(self, result: Assessment) -> str:
        codes = re.findall(r'"gx:countryCode": "([^"]*)"', json.dumps([c.subject for c in result.credentials]))
        wrong = [code for code in codes if code.split("-")[0] not in COUNTRIES]
        if wrong or not codes:
            raise NotAuthenticated(f"{wrong[0]!r} is no country (ISO 3166-1)" if wrong else "no country is named")
        return ", ".join(sorted(set(codes)))

    def _distinct(self, result: Assessment) -> str:
        identifiers = [c.id for c in result.credentials] + [str(c.subject.get("id")) for c in result.credentials]
        if len(set(identifiers)) != len(identifiers):
            raise NotAuthenticated("two credentials or subjects have the same id")
        return f"{len(identifiers)} ids"

    def _shaped(self, result: Assessment) -> str:
        if self.shapes is None:
            return "not checked: no folder of shapes was given"
        try:
            import pyshacl
            import rdflib
        except ImportError as error:
            raise SetupFailed("shapes need an extra", remedy="pip install 'ihds[gaiax]'") from error
        files = sorted(self.shapes.glob("*.ttl"))
        if not files:
            raise SetupFailed(f"{self.shapes} holds no shapes (*.ttl)")
        rules = rdflib.Graph()
        for file in files:
            rules.parse(file, format="turtle")
        explained = self.shapes / "context.jsonld"
        context: list[Any] = [_INLINE]
        if explained.exists():
            context.append(json.loads(explained.read_text(encoding="utf-8"))["@context"])
        data = rdflib.Graph()
        for credential in result.credentials:  # contexts are the operator's: nothing is fetched
            data.parse(data=json.dumps({**credential.subject, "@context": context}), format="json-ld")
        fits, _, said = pyshacl.validate(data, shacl_graph=rules, advanced=False)
        if not fits:
            lines = re.findall(r"Message: (.+)|Result Path: (.+)", str(said))
            raise NotAuthenticated("; ".join(dict.fromkeys(a or b for a, b in lines))[:500] or "the shapes do not fit")
        return f"{len(data)} triples against {len(files)} files"


_RULES: dict[str, Callable[[Assessor, Assessment], str]] = {
    "the registration number is a trusted notary's, and the legal person's": Assessor._registered,
    "services are provided by the legal person": Assessor._provided,
    "countries are countries": Assessor._countries,
    "credentials and subjects have distinct ids": Assessor._distinct,
}


def label(identity: Identity, base: str, assessment: Assessment) -> str:
    """Return a signed label over an assessment that passed.

    Raises:
        NotAuthenticated: it did not pass.

    """
    if not assessment.passed:
        raise NotAuthenticated("a label is given only when every check holds")
    at = identity.clock()
    covered = [
        {"id": c.id, "type": list(c.types), "digestSRI": f"sha256-{hashlib.sha256(c.token.encode()).hexdigest()}"}
        for c in assessment.credentials
    ]
    body = {
        "@context": [CONTEXT[0], {"ihds": "https://w3id.org/ihds/policy#"}],
        "id": f"{base}/label/{hashlib.sha256(json.dumps(covered).encode()).hexdigest()[:32]}",
        "type": ["VerifiableCredential", "ihds:SelfAssessment"],
        "issuer": identity.did,
        "validFrom": at.isoformat(),
        "validUntil": (at + timedelta(days=90)).isoformat(),
        "credentialSubject": {
            "id": assessment.subject,
            "ihds:notice": NOTICE,
            "ihds:rules": [check.rule for check in assessment.checks],
            "ihds:assessedCredentials": covered,
        },
    }
    return sign_vc(identity, body, at)
