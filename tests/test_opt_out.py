"""People who opted out: the registry, its list at holders, and views without them (EHDS Art. 71)."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ihds.audit.log import Log
from ihds.cohorts import bladder_cancer
from ihds.data.codebook import Codebook
from ihds.data.source import FrameSource, Scope
from ihds.data.table import draft_codebook
from ihds.errors import BadInput, NotAuthenticated, NotFound, PeerFailed, Refused, SetupFailed, SiteMissing
from ihds.federation import opt_outs as holders
from ihds.federation.engine import Dask
from ihds.federation.opt_outs import Line, NoRegistry, OptOuts, Page
from ihds.governance import opt_out
from ihds.governance.opt_out import Choice, Entry, Exemption, as_of, exception
from ihds.governance.policy import Granted
from ihds.ids import Did, PermitId
from ihds.privacy.opt_outs import ENTRY, History, among, normal, tokens
from ihds.roles import opt_out as registries
from ihds.roles.config import DatasetConfig, NodeConfig
from ihds.roles.local import LocalKeys
from ihds.roles.opt_out import Registry
from ihds.store.store import Store
from tests.federation.test_ledger import NARROW, Ledgers, rows

BODY, HOLDER = Did("did:web:body.example"), Did("did:web:lih.example")
NOON = datetime(2029, 6, 1, 12, tzinfo=UTC)


class Clock:
    """A clock the tests turn, for registry and holder alike."""

    def __init__(self, monkeypatch=None) -> None:
        self.at = NOON
        if monkeypatch:
            monkeypatch.setattr(registries, "now", self)

    def __call__(self) -> datetime:
        return self.at

    def pass_(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def a_registry(clock: Clock) -> Registry:
    """Return a registry on a real store and log, without the rest of its node."""
    keys = LocalKeys({}, BODY) if False else Sealed()
    log = Log(Store("sqlite://"), BODY, keys, clock)
    config = SimpleNamespace(country="LU", name="HDAB", base_url="https://body.example")
    return Registry(SimpleNamespace(did=BODY, log=log, store=log.store, signatures=keys, config=config))
