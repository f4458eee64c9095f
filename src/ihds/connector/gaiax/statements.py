"""A participant's Gaia-X credentials in the Loire and Danube form: VC 2.0 as JWT, key chained to an anchor by x5u.

Terms are those of the Gaia-X ontology 25.11. What an accredited clearing house says of them is theirs
to say; IHDS only makes and checks the statements.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ihds.connector.dcp.tokens import Identity
from ihds.errors import SetupFailed

CONTEXT = ["https://www.w3.org/ns/credentials/v2", "https://w3id.org/gaia-x/development#"]
#: SHA-256 of the Gaia-X terms and conditions an issuer agrees to (Compliance Document 25.10).
TERMS_HASH = "4bd7554097444c960292b4726c2efa1373485e8a5565d94d41195214c5e0ceb3"
#: Registration numbers a notary vouches for, and the property that carries each.
REGISTRATIONS = {
    "VatID": "vatID",
    "LeiCode": "leiCode",
    "EORI": "eori",
    "EUID": "euid",
    "LocalRegistrationNumber": "local",
}
_DAYS = 90


@dataclass(frozen=True, slots=True)
class LegalPerson:
    """An institution as Gaia-X asks about it; ``registration`` is one of ``REGISTRATIONS`` and its number."""

    name: str
    country: str
    registration: tuple[str, str]
    terms_url: str

    @classmethod
    def read(cls, settings: dict[str, str], country: str) -> LegalPerson:
        """Read the ``gaiax`` table of a node's configuration.

        Raises:
            SetupFailed: something is missing; it is named.

        """
        missing = [
            k for k in ("legal_name", "registration_type", "registration_number", "terms_url") if k not in settings
        ]
        if missing or settings["registration_type"] not in REGISTRATIONS:
            raise SetupFailed(
                f"node.toml: [gaiax] lacks {', '.join(missing) or 'a known registration_type'}",
                remedy=f"set legal_name, registration_number, terms_url and a type: {', '.join(REGISTRATIONS)}",
            )
        registration = (settings["registration_type"], settings["registration_number"])
        return cls(settings["legal_name"], settings.get("country", country), registration, settings["terms_url"])


@dataclass(frozen=True, slots=True)
class Product:
    """A dataset as a Gaia-X data product."""

    id: str
    title: str
    description: str


@dataclass
class Statements:
    """Makes the credentials of one participant. ``base`` is where they are published."""

    identity: Identity
    base: str
    person: LegalPerson

    def sign(self, name: str, kind: str, subject: dict[str, Any], **more: Any) -> str:
        """Return a credential of a type about a subject, as a JWT."""
        at = self.identity.clock()
        body = {
            "@context": CONTEXT,
            "id": f"{self.base}/{name}",
            "type": ["VerifiableCredential", f"gx:{kind}"],
            "issuer": self.identity.did,
            "validFrom": at.isoformat(),
            "validUntil": (at + timedelta(days=_DAYS)).isoformat(),
            "credentialSubject": {"id": f"{self.base}/{name}#subject", "type": f"gx:{kind}", **subject},
            **more,
        }
        return sign_vc(self.identity, body, at)

    def issuer(self) -> str:
        """Say that this issuer accepts the Gaia-X terms and conditions."""
        return self.sign("issuer", "Issuer", {"gx:gaiaxTermsAndConditions": TERMS_HASH})

    def legal_person(self, registration_subject: str) -> str:
        """Say who this participant is; its number stands in the notary's credential."""
        address = {"type": "gx:Address", "gx:countryCode": self.person.country}
        return self.sign(
            "legal-person",
            "LegalPerson",
            {
                "gx:name": self.person.name,
                "gx:registrationNumber": {"id": registration_subject},
                "gx:headquartersAddress": address,
                "gx:legalAddress": address,
            },
        )

    @property
    def legal_person_id(self) -> str:
        """The id others refer to this participant by."""
        return f"{self.base}/legal-person#subject"

    def service_offering(self, policy: dict[str, Any], endpoint: str) -> str:
        """Describe the connector as a service."""
        return self.sign(
            "service-offering",
            "ServiceOffering",
            {
                "gx:name": f"IHDS connector of {self.person.name}",
                "gx:providedBy": {"id": self.legal_person_id},
                "gx:serviceOfferingTermsAndConditions": self._terms(),
                "gx:servicePolicy": policy,
                "gx:endpoint": {"type": "gx:Endpoint", "gx:endpointURL": endpoint},
            },
        )

    def data_product(self, product: Product, policy: dict[str, Any], launched: datetime) -> str:
        """Describe a dataset as a data product."""
        terms = self._terms()
        return self.sign(
            f"data-product/{product.id}",
            "DataProduct",
            {
                "gx:digitalServiceOfferingName": product.title,
                "gx:digitalServiceOfferingShortDescription": product.description or product.title,
                "gx:digitalServiceOfferingIdentifier": product.id,
                "gx:digitalServiceOfferingLaunchDate": launched.date().isoformat(),
                "gx:digitalServiceOfferingProvider": {"id": self.legal_person_id},
                "gx:digitalServiceOfferingTermsAndConditions": terms,
                "gx:digitalServiceUsageTermsAndConditions": terms,
                "gx:digitalServiceUsageDataPolicy": policy,
                "gx:digitalServiceLegalDocuments": [{"type": "gx:LegalDocument", "gx:url": self.person.terms_url}],
                "gx:dataProductDescription": product.description or product.title,
            },
        )

    def _terms(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.person.terms_url.encode()).hexdigest()
        return {"type": "gx:TermsAndConditions", "gx:url": self.person.terms_url, "gx:hash": digest}

    def presentation(self, tokens: Sequence[str]) -> str:
        """Return all credentials as one presentation, as a clearing house takes it."""
        at = self.identity.clock()
        body = {
            "@context": CONTEXT[:1],
            "id": f"{self.base}/participant",
            "type": ["VerifiablePresentation"],
            "issuer": self.identity.did,
            "validFrom": at.isoformat(),
            "validUntil": (at + timedelta(days=1)).isoformat(),
            "verifiableCredential": [
                {
                    "@context": CONTEXT[0],
                    "id": f"data:application/vc+jwt,{token}",
                    "type": "EnvelopedVerifiableCredential",
                }
                for token in tokens
            ],
        }
        return self.identity.key.sign_jwt(body, typ="vp+jwt", cty="vp", **_dates(self.identity, at, 1))


def registration_number(identity: Identity, base: str, holder: str, registration: tuple[str, str]) -> str:
    """Return a notary's word for a registration number that it has looked up, about a holder's subject id."""
    kind, number = registration
    at = identity.clock()
    body = {
        "@context": CONTEXT,
        "id": f"{base}/registration/{hashlib.sha256(f'{holder}|{kind}|{number}'.encode()).hexdigest()[:32]}",
        "type": ["VerifiableCredential", f"gx:{kind}"],
        "issuer": identity.did,
        "validFrom": at.isoformat(),
        "validUntil": (at + timedelta(days=_DAYS)).isoformat(),
        "credentialSubject": {
            "id": f"{holder}#registration",
            "type": f"gx:{kind}",
            f"gx:{REGISTRATIONS[kind]}": number,
        },
    }
    return sign_vc(identity, body, at)


def sign_vc(identity: Identity, body: dict[str, Any], at: datetime) -> str:
    """Return a VC 2.0 as JWT with the header Gaia-X's services read: issuer and dates stand there too."""
    return identity.key.sign_jwt(body, typ="vc+jwt", cty="vc", **_dates(identity, at, _DAYS))


def _dates(identity: Identity, at: datetime, days: int) -> dict[str, Any]:
    seconds = int(at.timestamp())
    return {"iss": identity.did, "iat": seconds, "exp": seconds + days * 86_400}
