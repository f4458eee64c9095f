"""A federation inside one process: the same gate, masks and rounds, on the user's own tables.

Every site gets its own key, store and gate; nothing is skipped but the network and the contract.
The permit is the user's own, under the regime "simulation": no law is asked, nothing leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from ihds.analysis.method import methods
from ihds.analysis.result import Result
from ihds.audit.log import Log, now
from ihds.connector.dcp.tokens import Identity
from ihds.data import codebook as codebooks
from ihds.data.codebook import Codebook
from ihds.data.source import FrameSource
from ihds.data.table import conform, draft_codebook, read_table
from ihds.errors import BadInput, NotAuthenticated, Refused
from ihds.federation.channel import MemoryChannel
from ihds.federation.coordinator import Coordinator, Report, quiet
from ihds.federation.engine import engine_of
from ihds.federation.gate import Gate, Grant
from ihds.federation.promises import refuse_useless
from ihds.federation.study import Study, used
from ihds.governance.jurisdiction import SIMULATION
from ihds.governance.permit import Permit, PermitState
from ihds.ids import ApplicationId, Did, PermitId, StudyId
from ihds.privacy.disclosure import Thresholds
from ihds.store.store import Store
from ihds.wire.jose import SigningKey, verify_jwt
from ihds.wire.keys import Sealing

_DATASET = "table"
_COUNTRY = "--"


@dataclass
class LocalKeys:
    """Signatures of parties that all live here."""

    identity: Identity
    known: dict[str, dict[str, Any]]
    sealing: Sealing = field(default_factory=Sealing)

    def sign(self, claims: dict[str, Any]) -> str:
        """Return signed claims."""
        return self.identity.key.sign_jwt({**claims, "iss": self.identity.did})

    def verify(self, token: str, signer: str) -> dict[str, Any]:
        """Return the claims a signer signed."""
        if signer not in self.known:
            raise NotAuthenticated(f"{signer} is not known here")
        return verify_jwt(token, self.known[signer])

    def seal(self, data: bytes) -> str:
        """Return a secret encrypted for this process only."""
        return self.sealing.seal(data)

    def unseal(self, text: str) -> bytes:
        """Return a sealed secret."""
        return self.sealing.unseal(text)


@dataclass
class _Everything:
    """The user's own permit is always in force."""

    permit: Permit

    def in_force(self, transfer: str) -> Grant:
        return Grant(self.permit, PermitState.GRANTED, _DATASET, transfer)


@dataclass
class LocalFederation:
    """Sites by name, each with its table; ``run`` answers like the real data space."""

    tables: dict[str, pd.DataFrame]
    codebook: Codebook
    thresholds: Thresholds
    logs: dict[str, Log] = field(default_factory=dict)
    engine: str = ""

    @classmethod
    def of(
        cls,
        sites: Mapping[str, str | Path | pd.DataFrame],
        codebook: Codebook | str | Path | None = None,
        permit: Mapping[str, float] | None = None,
        engine: str = "",
    ) -> LocalFederation:
        """Read tables and agree on a codebook.

        ``codebook`` is a codebook or its file; without one, each site's dictionary is drafted and
        the dictionaries are merged. ``permit`` sets thresholds, for example ``{"min_cell": 3}``
        or ``{"min_time_bin": 0}`` to allow exact times. ``engine`` is where every site computes:
        empty for this process, ``dask`` for workers of this machine, ``dask:ADDRESS`` for a cluster.

        Raises:
            BadTable, BadLevel: a table cannot be read, or does not fit the others.

        """
        # every run has a ledger of its own: there is nothing to compare
        thresholds = Thresholds.of(permit or {}, Thresholds(min_difference=0))
        if not sites:
            raise BadInput("there is no site", remedy="give at least three, for example --site lu=lu.csv")
        tables = {name: read_table(origin, name) for name, origin in sites.items()}
        if codebook is None:
            book = codebooks.agree({name: draft_codebook("local", t) for name, t in tables.items()})
        else:
            book = codebook if isinstance(codebook, Codebook) else Codebook.read(Path(codebook))
        tables = {name: conform(t, book, name) for name, t in tables.items()}
        return cls(tables, book, thresholds, engine=engine)

    def run(self, method: str, *, progress: Report = quiet, **params: Any) -> Result:
        """Run a study over all sites.

        Raises:
            BadInput: method, formula or parameter is wrong.
            Refused: the thresholds do not allow it.
            AnalysisFailed: the data cannot carry the model.

        """
        user = Identity(Did("did:web:local:user"), SigningKey.new("did:web:local:user#key-1"))
        known: dict[str, dict[str, Any]] = {user.did: user.key.public_jwk()}
        sites = {}
        for name in self.tables:
            did = Did.parse("did:web:local:" + "".join(c if c.isalnum() else "-" for c in name))
            if did in known:
                raise BadInput(f"the site name {name!r} is not distinct", remedy="use letters and digits")
            sites[name] = Identity(did, SigningKey.new(f"{did}#key-1"))
            known[did] = sites[name].key.public_jwk()
        holders = tuple(i.did for i in sites.values())
        permit = self._permit(user.did, holders)
        study = Study(
            id=StudyId.new(),
            permit=permit.id,
            user=user.did,
            purpose=permit.purpose,
            method=method,
            params=params,
            codebook=used(method, params, self.codebook, self.thresholds, len(holders)).to_dict(),
            thresholds=self.thresholds,
            holders=holders,
        )
        if len(holders) < self.thresholds.min_holders:
            raise Refused(
                f"{len(holders)} sites are fewer than the {self.thresholds.min_holders} the permit asks for",
                reasons=("min_holders: with fewer, one site could subtract itself and see the other",),
                remedy="add a site, or allow it: permit={'min_holders': 2}",
            )
        refuse_useless(study.plan(), sum(map(self._persons, self.tables.values())))
        self.logs = {name: Log(Store("sqlite://"), i.did, i.key) for name, i in sites.items()}
        self.logs["user"] = Log(Store("sqlite://"), user.did, user.key)
        channels, engine = [], engine_of(self.engine)
        for name, identity in sites.items():
            source = FrameSource(_DATASET, self.tables[name], self.codebook)
            grants, keys = _Everything(permit), LocalKeys(identity, known)
            gate = Gate(identity.did, _COUNTRY, source, self.logs[name], grants, keys, engine=engine)
            channels.append(MemoryChannel(identity.did, gate, f"local-{name}"))
        coordinator = Coordinator(self.logs["user"], LocalKeys(user, known))
        try:
            coordinator.start(study)
            result = coordinator.run(study.id, channels, progress)
        finally:
            coordinator.shutdown()
            engine.close()
        assert result is not None
        named = [{"did": i.did, "name": n} for n, i in sites.items()]
        return result.with_provenance(result.rounds, {**result.provenance, "holders": named})

    def _persons(self, table: pd.DataFrame) -> int:
        return table[self.codebook.person].nunique() if self.codebook.person in table.columns else len(table)

    def _permit(self, user: Did, holders: tuple[Did, ...]) -> Permit:
        at = now()
        return Permit(
            id=PermitId.new(),
            application=ApplicationId.new(),
            access_body=user,
            user=user,
            legal_regime=SIMULATION,
            purpose="scientific_research",
            datasets=tuple((h, _DATASET) for h in holders),
            variables=frozenset(self.codebook.variables),
            methods=frozenset(methods()),
            persons=(),
            recipient_country=_COUNTRY,
            thresholds=self.thresholds,
            max_rounds=10_000,
            issued_at=at - timedelta(seconds=1),
            expires_at=at + timedelta(days=1),
            status_index=0,
        )
