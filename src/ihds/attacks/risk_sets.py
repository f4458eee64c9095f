"""First differences of the risk-set sums of a Cox model: whoever leaves the risk set alone stands in one of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ihds.analysis.partial import RiskSums
from ihds.attacks.attack import Attack, Outcome
from ihds.attacks.world import Space, cleartext, people, reason, recovered, shared_out
from ihds.errors import Refused
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


def _through_the_gates(days: float) -> Outcome:
    persons = _persons()
    space = Space(shared_out(persons, 4), Thresholds(min_time_bin=days))
    for state, _, total in space.rounds(space.study("cox", formula=_FORMULA, time_bin=days)):
        if isinstance(total, RiskSums):
            return Outcome(recovered(_alone(_ahead(state.agreement.frame, total)), persons, _COLUMNS))
    return Outcome(0.0)


def _through_many_grids() -> Outcome:
    """Ask the same on grids of 30 days, 31, 32 and more, whose edges together would lie close."""
    persons = _persons()
    space = Space(shared_out(persons, 4), Thresholds(min_time_bin=30.0))
    ahead: dict[float, Any] = {}
    said = "every grid is answered"
    for days in (*range(30, 30 + _GRIDS), 60, 90):
        try:
            for state, _, total in space.rounds(space.study("cox", formula=_FORMULA, time_bin=float(days))):
                if isinstance(total, RiskSums):
                    frame = state.agreement.frame
                    # who is at risk in a bin (before, end] has not left at its beginning
                    ahead |= dict(zip(frame.times - days, _ahead(frame, total), strict=True))
                    break
        except Refused as error:
            said = reason(error)
    return Outcome(recovered(_alone(np.array([ahead[at] for at in sorted(ahead)])), persons, _COLUMNS), said)


def _attack(name: str, grid: str, arm: Any) -> Attack:
    return Attack(
        name=name,
        title=f"First differences of risk sets, {grid}",
        attacker="the user, with software of their own",
        sees="risk-set sums at every step of the time grid",
        measures="share of persons whose covariates are recovered",
        succeeds_from=0.0025,
        without="each site's sums in the clear, by day",
        protection="secure sum over all sites; a time grid no finer than the permit's, whose multiples nest",
        source="Lu et al. 2015 (WebDISCO) and Duan et al. 2020 (ODAC) send these sums",
        peers="WebDISCO; ODAC, ODACH and ODACT of pda; FeatureCloud's Cox",
        limitation="The total is opened at the user",
        unprotected=_in_the_clear,
        protected=arm,
    )


ATTACKS = (
    _attack("risk_sets", "bins of 30 days", partial(_through_the_gates, 30.0)),
    _attack("risk_sets_by_day", "where the permit allows single days", partial(_through_the_gates, 1.0)),
    _attack("risk_sets_on_many_grids", f"on {_GRIDS} grids of 30 days and more", _through_many_grids),
)
