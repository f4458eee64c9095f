"""The data permit: what was allowed to whom, on which data, for what, until when (EHDS Art. 68)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from ihds.errors import BadInput, BadMessage
from ihds.governance.aggregation import Aggregation
from ihds.governance.duties import GRANT_NEEDS, Role, Shown
from ihds.governance.jurisdictions.eu_ehds import eligible
from ihds.governance.lifecycle import Step, Steps, Table, plain
from ihds.governance.policy import Decision, Granted, Refused
from ihds.ids import ApplicationId, Did, PermitId
from ihds.privacy.accountant import Demand
from ihds.privacy.disclosure import Thresholds

#: Purposes for which data may be used (EHDS Art. 53(1)).
PURPOSES: dict[str, str] = {
    "public_health": "public interest in public or occupational health (53(1)(a))",
    "policy_making": "policy making and regulatory activities (53(1)(b))",
    "statistics": "official statistics (53(1)(c))",
    "education": "education or teaching in health or care (53(1)(d))",
    "scientific_research": "scientific research related to health or care (53(1)(e))",
    "improving_care": "improving care delivery from other persons' data (53(1)(f))",
}

#: Only public bodies or those acting for them may use these (EHDS Art. 53(2)).
RESERVED_PURPOSES = frozenset({"public_health", "policy_making", "statistics"})


class PermitState(StrEnum):
    """Where a permit stands."""

    GRANTED = "GRANTED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    SUPERSEDED = "SUPERSEDED"


class PermitEvent(StrEnum):
    """What can happen to a permit. An amendment is a new permit with a new id; it supersedes this one."""

    EXPIRE = "expire"
    REVOKE = "revoke"
    SUPERSEDE = "supersede"


_REVOKE = {PermitEvent.REVOKE: Step(PermitState.REVOKED, Role.OFFICER, frozenset({Shown.REASONS}))}

STEPS: Steps[PermitState, PermitEvent] = {
    PermitState.GRANTED: {
        PermitEvent.EXPIRE: Step(PermitState.EXPIRED, Role.CLOCK),
        PermitEvent.SUPERSEDE: Step(PermitState.SUPERSEDED, Role.OFFICER, GRANT_NEEDS),
        **_REVOKE,
    },
    PermitState.EXPIRED: _REVOKE,
    PermitState.REVOKED: {},
    PermitState.SUPERSEDED: {},
}

NEXT: Table[PermitState, PermitEvent] = plain(STEPS)


@dataclass(frozen=True, slots=True)
class Permit:
    """The content of a permit (EHDS Art. 68(10)); immutable.

    ``datasets`` are pairs of holder DID and dataset id; ``variables`` and ``methods`` list what
    may be used; ``max_rounds`` is the number of sums that may be opened at each holder;
    ``aggregation`` says how sums are opened; ``environment`` is the secure processing environment that
    runs the studies and releases their results (68(10), 73), or None where the user's own node does.
    With ``differential_privacy`` none is opened without noise, and what all together may tell of a
    person is bounded.
    ``opt_out_exception`` is the justification with which people who opted out are included (Art. 71(4),
    68(10)(c)); empty means they are not.
    """

    id: PermitId
    application: ApplicationId
    access_body: Did
    user: Did
    legal_regime: str
    purpose: str
    datasets: tuple[tuple[Did, str], ...]
    variables: frozenset[str]
    methods: frozenset[str]
    persons: tuple[str, ...]
    recipient_country: str
    thresholds: Thresholds
    max_rounds: int
    issued_at: datetime
    expires_at: datetime
    status_index: int
    opt_out_exception: str = ""
    aggregation: Aggregation = field(default_factory=Aggregation)
    environment: Did | None = None
    differential_privacy: Demand | None = None

    @property
    def asker(self) -> Did:
        """Who signs studies and rounds under this permit, and opens their totals."""
        return self.environment or self.user

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form carried in the permit credential."""
        body = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **body,
            "datasets": [[h, d] for h, d in self.datasets],
            "variables": sorted(self.variables),
            "methods": sorted(self.methods),
            "persons": list(self.persons),
            "thresholds": asdict(self.thresholds),
            "issued_at": self.issued_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
            "aggregation": self.aggregation.to_dict(),
            "differential_privacy": self.differential_privacy.to_dict() if self.differential_privacy else None,
        }

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> Permit:
        """Read the JSON form.

        Raises:
            BadMessage: a field is missing or wrong.

        """
        try:
            return cls(
                id=PermitId.parse(body["id"]),
                application=ApplicationId.parse(body["application"]),
                access_body=Did.parse(body["access_body"]),
                user=Did.parse(body["user"]),
                legal_regime=str(body["legal_regime"]),
                purpose=str(body["purpose"]),
                datasets=tuple((Did.parse(h), str(d)) for h, d in body["datasets"]),
                variables=frozenset(map(str, body["variables"])),
                methods=frozenset(map(str, body["methods"])),
                persons=tuple(map(str, body["persons"])),
                recipient_country=str(body["recipient_country"]),
                thresholds=Thresholds(**body["thresholds"]),
                max_rounds=int(body["max_rounds"]),
                issued_at=datetime.fromisoformat(body["issued_at"]),
                expires_at=datetime.fromisoformat(body["expires_at"]),
                status_index=int(body["status_index"]),
                opt_out_exception=str(body.get("opt_out_exception", "")),
                aggregation=Aggregation.from_dict(body.get("aggregation", {})),
                environment=Did.parse(body["environment"]) if body.get("environment") else None,
                differential_privacy=Demand.of(told) if (told := body.get("differential_privacy")) else None,
            )
        except (KeyError, TypeError, ValueError, BadInput) as error:
            raise BadMessage(f"this is not a data permit: {error!r}") from error

    def dataset_of(self, holder: str) -> str | None:
        """Return the dataset of one holder that the permit names, or None."""
        return next((d for h, d in self.datasets if h == holder), None)

    @property
    def noun(self) -> str:
        """What it is called: a grant beside the EHDS is never called a permit of it."""
        return "permit" if self.legal_regime == "ehds" else "authorisation"

    def by(self, article: str) -> str:
        """Return what a reason rests on: the article, or beside the EHDS the agreement."""
        return f"EHDS {article}" if self.legal_regime == "ehds" else "agreement"

    def evidence(self, on: date) -> frozenset[str]:
        """Return what the permit itself shows to the law, while it is in force."""
        shown = {"permit"}
        if self.purpose in ("scientific_research", "statistics"):
            shown.add("research_purpose")
        if eligible(self.recipient_country, on):
            shown.add("eligible_applicant")
        return frozenset(shown)

    def facts(self, state: PermitState) -> dict[str, str | tuple[str, ...]]:
        """Return what the permit makes known to a policy."""
        return {
            "permit": self.id,
            "permitStatus": str(state),
            "purpose": self.purpose,
            "method": tuple(sorted(self.methods)),
            "recipientCountry": self.recipient_country,
            "legalRegime": self.legal_regime,
            "minimumSitePersons": str(self.thresholds.min_site_persons),
            "minimumCell": str(self.thresholds.min_cell),
            "timeBin": f"{self.thresholds.min_time_bin:g}",
            "retentionDays": str((self.expires_at - self.issued_at).days),
        }


@dataclass(frozen=True, slots=True)
class Use:
    """What somebody wants to do under a permit: judged at negotiation, study start and each round."""

    user: str
    holder: str
    dataset: str
    purpose: str
    method: str
    variables: frozenset[str]
    holders: frozenset[str]
    person: str = ""


def decide(permit: Permit, state: PermitState, use: Use, on: datetime) -> Decision:
    """Judge a use against a permit, its state and the instant; every reason cites its rule."""
    noun, by = permit.noun, permit.by

    reasons = []
    if state is not PermitState.GRANTED:
        reasons.append(f"{by('68(10)')}: the {noun} is {state}")
    if on >= permit.expires_at:
        reasons.append(f"{by('68(12)')} R-73-OUT-OF-PERIOD: the {noun} expired at {permit.expires_at:%Y-%m-%d}")
    if on < permit.issued_at:
        reasons.append(f"{by('68(10)')} R-73-OUT-OF-PERIOD: the {noun} is not valid yet")
    if use.user != permit.user:
        reasons.append(f"{by('61(2)')} R-73-NOT-LISTED: the {noun} was given to {permit.user}")
    if use.method and permit.persons and use.person not in permit.persons:
        reasons.append(f"{by('73(1)(a)')} R-73-NOT-LISTED: the {noun} does not name {use.person or 'who runs this'}")
    if permit.dataset_of(use.holder) != use.dataset:
        reasons.append(f"{by('73(1)(d)')} R-73-DATASET: the {noun} does not name {use.dataset!r} here")
    if permit.legal_regime == "ehds" and permit.environment is None:
        reasons.append("EHDS 73(1) [memory]: access under a permit is given in a secure processing environment only")
    if permit.environment in (permit.user, *(h for h, _ in permit.datasets)):
        reasons.append("EHDS 73(1): the environment may be neither the permit's user nor one of its holders")
    if use.purpose != permit.purpose:
        reasons.append(
            f"{by('61(1), 68(10)(b)')} R-53-PURPOSE: the {noun} is for {permit.purpose}, not for {use.purpose}"
        )
    if use.method and use.method not in permit.methods:
        reasons.append(f"{by('68(10)(f)')} FCR-4: the {noun} does not name the method {use.method!r}")
    beyond = sorted(use.variables - permit.variables)
    if beyond:
        reasons.append(f"{by('68(10)(a)')}: the {noun} does not open {', '.join(beyond)}")
    strangers = sorted(use.holders - {h for h, _ in permit.datasets})
    if strangers:
        reasons.append(f"{by('68(10)(a)')}: the {noun} does not name the holder {', '.join(strangers)}")
    if use.holders and len(use.holders) < permit.thresholds.min_holders:
        reasons.append(
            f"min_holders X8: a study needs {permit.thresholds.min_holders} holders, so that none "
            "can be found by subtraction"
        )
    return Refused(tuple(reasons)) if reasons else Granted((f"permit {permit.id}",))
