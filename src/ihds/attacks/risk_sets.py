"""First differences of the risk-set sums of a Cox model: whoever leaves the risk set alone stands in one of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis.partial import RiskSums
from ihds.analysis.plan import PlanState
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.reading import rows_in, unpacked
from ihds.attacks.world import Space, cleartext, people, reason, recovered, shared_out
from ihds.errors import NotAuthenticated, Refused
from ihds.privacy.disclosure import Thresholds

_FORMULA = "Surv(days, death) ~ age + bmi + smoker"
_COLUMNS = ("age", "bmi", "smoker")
_GRIDS = 12


def _persons() -> pd.DataFrame:
    return people(400, seed=11)


def _ahead(frame: Any, sums: RiskSums) -> Any:
    """Return, per cell, how many are at risk and their covariates' sums (cells, 4); at beta = 0 all hazards are 1."""
    order = [frame.columns.index(name) for name in _COLUMNS]
    own = sums.s1[:, order] * frame.scale[order] + sums.s0[:, None] * frame.centre[order]
    return np.column_stack([sums.s0, own])


def _alone(ahead: Any) -> list[Any]:
    """Return the covariates of those who leave between two neighbouring times alone; rows are in order of time."""
    leaving = ahead - np.vstack([ahead[1:], np.zeros(ahead.shape[1])])
    return list(leaving[np.abs(leaving[:, 0] - 1) < 1e-4, 1:])


def _in_the_clear() -> Outcome:
    persons = _persons()
    for _, state, sent in cleartext(shared_out(persons, 4), "cox", formula=_FORMULA, time_bin=1.0):
        if isinstance(sent[0], RiskSums):
            frame = state.agreement.frame
            found = [row for sums in sent if isinstance(sums, RiskSums) for row in _alone(_ahead(frame, sums))]
            return Outcome(recovered(found, persons, _COLUMNS))
    return Outcome(0.0)


def _everywhere(least: float, grids: Any, environment: bool) -> Outcome:
    """Ask on every grid of so many days, oneself and in the environment if there is one; use whatever comes back."""
    persons = _persons()
    space = Space(shared_out(persons, 4), Thresholds(min_time_bin=least), environment=environment)
    ahead: dict[float, Any] = {}
    found, said = list[Any](), "every grid is answered"
    for days in grids:
        asked = {"formula": _FORMULA, "time_bin": float(days)}
        try:
            for state, _, total in space.rounds(space.study("cox", **asked)):
                if isinstance(total, RiskSums):
                    ahead |= _by_time(state.agreement.frame, total, days)
                    break
        except (NotAuthenticated, Refused) as error:
            said = reason(error)
        if environment:
            received = space.received("cox", **asked)
            frames = [state.agreement.frame for state in unpacked(received, PlanState)]
            for sums in unpacked(received, RiskSums)[: len(frames[:1])]:  # the first are at beta = 0
                ahead |= _by_time(frames[-1], sums, days)
            found += rows_in(received, len(_COLUMNS))
    found += _alone(np.array([ahead[at] for at in sorted(ahead)])) if ahead else []
    return Outcome(recovered(found, persons, _COLUMNS), said)


def _by_time(frame: Any, sums: RiskSums, days: float) -> dict[float, Any]:
    """Return sums by the time from which they hold: who is at risk in a bin (before, end] is so after its beginning."""
    return dict(zip(frame.times - days, _ahead(frame, sums), strict=True))


def _attack(name: str, grid: str, least: float, grids: Any, **more: Any) -> Attack:
    opened = {
        "without": "the total of all sites, opened by the user's own node, where a permit names no environment",
        "unprotected": partial(_everywhere, least, grids, environment=False),
    }
    return Attack(
        name=name,
        title=f"First differences of risk sets, {grid}",
        attacker="the user, with software of their own",
        sees="risk-set sums at every step of the time grid",
        measures="share of persons whose covariates are recovered",
        succeeds_from=0.0025,
        protection="the environment opens totals; secure sum; a time grid no finer than the permit's",
        source="Lu et al. 2015 (WebDISCO) and Duan et al. 2020 (ODAC) send these sums",
        peers="WebDISCO; ODAC, ODACH and ODACT of pda; FeatureCloud's Cox",
        protected=partial(_everywhere, least, grids, environment=True),
        **{**opened, **more},
    )


ATTACKS = (
    _attack(
        "risk_sets",
        "bins of 30 days",
        30.0,
        (30,),
        without="each site's sums in the clear, by day",
        unprotected=_in_the_clear,
    ),
    _attack("risk_sets_by_day", "where the permit allows single days", 1.0, (1,)),
    _attack(
        "risk_sets_on_many_grids",
        f"on {_GRIDS} grids of 30 days and more",
        30.0,
        (*range(30, 30 + _GRIDS), 60, 90),
    ),
)
