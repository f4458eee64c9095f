"""A node's configuration file: read, checked, written for a person to change."""

from __future__ import annotations

import socket
import tomllib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import tomli_w

from ihds.connector.dcp.credentials import Profile
from ihds.errors import BadInput, SetupFailed
from ihds.governance.jurisdiction import unknown_evidence
from ihds.governance.rule import Artefact
from ihds.ids import Did
from ihds.privacy.accountant import Promise
from ihds.privacy.disclosure import Thresholds
from ihds.store.store import sqlite_url
from ihds.wire.did import did_of
from ihds.wire.guard import LOOPBACK

Role = Literal["holder", "access_body", "authority", "user", "environment"]
FILE = "node.toml"
#: What may be moved as a file; rows never (rule X0).
MOVABLE = ("METADATA", "AGGREGATE", "MODEL")


#: Methods a holder allows unless it names others: those whose status is "reviewed".
REVIEWED = ("describe", "anova", "contingency", "correlation", "kaplan_meier", "logrank", "cox", "glm")


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """What a holder says of one dataset, and who may use it for what.

    ``policy`` names a JSON file with ODRL rules instead of those the other settings make. ``file`` (a
    path or URL) makes it a file that is moved instead of rows that are studied; then ``artefact`` says
    what it is. ``evidence`` is what the holder vouches for under the law: approvals, checks, and, with the
    DID of the recipient they are about, clauses and screenings ("recipient_screened did:web:…").
    ``approval`` of contracts, and of each study in ``studies``, is by rule or by hand. With
    ``environment_required`` no study is answered whose permit names no secure processing environment.
    ``thresholds`` are the holder's own ("min_cell": 10): of these, the permit's and the law's, the strictest holds.
    ``privacy_epsilon`` and ``privacy_delta`` bound what noisy studies of all permits together may tell of a person.
    ``national_id`` names the column of national identifiers, by which people who opted out are left out; where
    nobody can be identified, ``unidentified`` says why (EHDS Art. 71(8)).
    """

    id: str
    title: str
    description: str = ""
    keywords: tuple[str, ...] = ()
    health_category: str = "MRMR"
    purposes: tuple[str, ...] = ("scientific_research",)
    methods: tuple[str, ...] = REVIEWED
    recipient_countries: tuple[str, ...] = ("LU", "KR", "US")
    minimum_cell: int = 5
    policy: str = ""
    file: str = ""
    artefact: Artefact = "AGGREGATE"
    evidence: tuple[str, ...] = ()
    approval: Literal["rule", "hand"] = "rule"
    studies: Literal["rule", "hand"] = "rule"
    national_id: str = ""
    unidentified: str = ""
    environment_required: bool = False
    thresholds: dict[str, Any] = field(default_factory=dict)
    privacy_epsilon: float = 10.0
    privacy_delta: float = 1e-6

    @property
    def privacy(self) -> Promise:
        """What studies may tell of a person of this dataset, under all permits together."""
        return Promise.of({"epsilon": self.privacy_epsilon, "delta": self.privacy_delta})

    def __post_init__(self) -> None:
        try:
            self.limits  # noqa: B018 - thresholds that cannot be read fail here, not in a study
        except BadInput as error:
            raise SetupFailed(f"dataset {self.id!r}: {error.message}", remedy=error.remedy) from error
        if wrong := unknown_evidence(self.evidence):
            raise SetupFailed(f"dataset {self.id!r}: {wrong}", remedy="terms and their meaning: docs/law/rules.md")
        if self.file and self.artefact not in MOVABLE:
            raise SetupFailed(
                f"dataset {self.id!r}: a file of kind {self.artefact!r} does not leave its holder",
                remedy=f"X0: records of persons are studied where they lie; a file is one of {', '.join(MOVABLE)}",
            )
        for name, chosen in (("approval", self.approval), ("studies", self.studies)):
            if chosen not in ("rule", "hand"):
                raise SetupFailed(f"dataset {self.id!r}: {name} is {chosen!r}", remedy="write rule or hand")
        try:
            _ = self.privacy
        except BadInput as error:
            raise SetupFailed(f"dataset {self.id!r}: {error.message}", remedy=error.remedy) from error

    @property
    def limits(self) -> Thresholds | None:
        """The holder's own thresholds, if it has any. Raises BadInput."""
        return Thresholds.of(self.thresholds) if self.thresholds else None


@dataclass(frozen=True, slots=True)
class SignIn:
    """``[people]``: the OpenID provider whose word counts, as which client, and for how long a session lasts.

    ``roles_claim`` names the claim that carries duties; without it the node's own table of accounts counts.
    """

    issuer: str
    client_id: str
    scope: str = "openid profile offline_access"
    roles_claim: str = ""
    session_minutes: float = 15.0
    session_hours: float = 10.0


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node. DIDs name whom it trusts: ``authority`` for membership, ``access_bodies`` for permits.

    ``members`` lists whom an authority admits without asking a person: "DID ROLE COUNTRY" each. ``charter``
    names the file with the bodies that decide from then on; it and ``members`` are read once, at the founding.
    ``opt_out_registry`` is whose list of opt-outs a holder follows; it may be ``opt_out_hours`` old when it is
    fixed for a permit. ``engine`` empty computes studies in the node, ``dask`` or ``dask:ADDRESS`` over a cluster.
    ``other_bodies`` says, holder by holder, which other access body decides on its data; ``trusted_holders``
    are those designated to assess applications themselves (EHDS Art. 72).
    ``environment`` is the one an access body names in a permit unless its officer decides otherwise.
    ``people`` says who signs people in (``SignIn``); ``visa_issuers`` whose visas an access body checks, issuer by
    issuer the address of its keys.
    """

    name: str
    role: Role
    country: str
    base_url: str
    port: int
    host: str = "127.0.0.1"
    store: str = ""
    authority: str = ""
    access_bodies: tuple[str, ...] = ()
    catalogues: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    charter: str = ""
    legal_regime: str = "contract"
    environment: str = ""
    permit_status_seconds: float = 5.0
    membership_seconds: float = 3600.0
    witness_seconds: float = 60.0
    credential_profile: Profile = "vc11-sl2021/jwt"
    passphrase_file: str = ""
    signer: str = "file"
    signer_options: dict[str, str] = field(default_factory=dict)
    allowed_networks: tuple[str, ...] = ()
    token_seconds: float = 900.0
    bytes_per_second: float = 0.0
    worker: bool = False
    engine: str = ""
    gaiax: dict[str, str] = field(default_factory=dict)
    notaries: tuple[str, ...] = ()
    opt_out_registry: str = ""
    opt_out_hours: float = 24.0
    other_bodies: dict[str, str] = field(default_factory=dict)
    trusted_holders: tuple[str, ...] = ()
    counter_offers: Literal["refuse", "hand"] = "refuse"
    people: dict[str, Any] = field(default_factory=dict)
    visa_issuers: dict[str, str] = field(default_factory=dict)
    datasets: tuple[DatasetConfig, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.worker and any(d.studies == "hand" for d in self.datasets):
            raise SetupFailed(
                "studies of rows in an inner zone cannot wait for approval by hand yet",
                remedy='use approval = "hand": a person then agrees to the contract',
            )
        unsaid = [d.id for d in self.datasets if not d.file and not d.national_id and not d.unidentified]
        if self.opt_out_registry and unsaid:
            raise SetupFailed(
                f"dataset {unsaid[0]!r}: who opted out could not be left out",
                remedy="name the column of national identifiers: national_id; or say why nobody is known: unidentified",
            )

    @property
    def sign_in(self) -> SignIn | None:
        """Who signs people in, if anybody does. Raises SetupFailed."""
        try:
            return SignIn(**self.people) if self.people else None
        except TypeError as error:
            raise SetupFailed(f"[people]: {error}", remedy="issuer and client_id; docs/how-to/sign-in.md") from error

    @property
    def did(self) -> Did:
        """The node's DID, from its address."""
        return did_of(self.base_url)

    @property
    def networks(self) -> tuple[str, ...]:
        """The networks the node may call beside public addresses: a node on a loopback address has neighbours there."""
        local = urlsplit(self.base_url).hostname in ("127.0.0.1", "localhost", "::1")
        return self.allowed_networks or (LOOPBACK if local else ())

    def store_url(self, folder: Path) -> str:
        """Return the store's URL: the one configured, or SQLite in the folder."""
        return self.store or sqlite_url(folder)

    def write(self, folder: Path) -> None:
        """Write the file."""
        body = {k: v for k, v in asdict(self).items() if v not in ("", (), {})}
        (folder / FILE).write_text(tomli_w.dumps(_lists(body)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> NodeConfig:
        """Read the file of a node's folder.

        Raises:
            SetupFailed: it is absent or wrong; the field is named.

        """
        path = folder if folder.is_file() else folder / FILE
        try:
            body: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SetupFailed(f"{path}: {error}", remedy="make a node first: ihds node init") from error
        datasets = tuple(DatasetConfig(**_tuples(d)) for d in body.pop("datasets", []))
        unknown = sorted(set(body) - set(cls.__dataclass_fields__))
        if unknown or body.get("role") not in get_args(Role):
            raise SetupFailed(
                f"{path}: role is {body.get('role')!r}, unknown settings: {unknown}",
                remedy=f"settings are: {', '.join(cls.__dataclass_fields__)}",
            )
        try:
            return cls(**_tuples(body), datasets=datasets)
        except TypeError as error:
            raise SetupFailed(f"{path}: {error}", remedy="compare with a fresh `ihds node init`") from error


def _lists(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_lists(v) for v in value]
    if isinstance(value, dict):
        return {k: _lists(v) for k, v in value.items()}
    return value


def _tuples(body: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in body.items()}


def data_file(folder: Path) -> Path:
    """Return where a node keeps its patients."""
    return folder / "data.duckdb"


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
