"""What a gate sees to of noisy studies: that a permit's demand is met, two budgets of rho, and noise drawn once.

Rho is spent of the permit's budget, if it demands noise, and of the person group's: the persons of one
dataset, under all permits. It is written in the same transaction as the answer. The noise of the last round
is kept sealed, so that the same round again gets the same bytes; it covers no other contribution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from ihds.analysis.plan import Plan, PlanState
from ihds.audit.log import Log
from ihds.canonical import pack
from ihds.errors import AnalysisFailed, Refused, TooNoisy
from ihds.federation.round import Signatures
from ihds.governance.permit import Permit
from ihds.privacy.accountant import OF_A_DATASET, Budget, Promise, epsilon_of
from ihds.privacy.noise import Shares, Words
from ihds.store.store import Put

BUDGET, NOISE = "gate.privacy", "gate.noise"


def reasons(plan: Plan, permit: Permit, holders: int) -> list[str]:
    """Return why a study's noise, or its having none, is not what the permit demands."""
    demand, wanted = permit.differential_privacy, plan.wanted
    if wanted is None:
        return ["differential privacy: the permit opens no sum without noise"] if demand else []
    found = []
    least = (holders - 1) // 2
    if wanted.colluding < least:
        found.append(f"differential privacy: noise must suffice if {least} holders collude or are lost")
    if demand and wanted.promise.epsilon > demand.per_study:
        found.append(f"differential privacy: one study has an epsilon of at most {float(demand.per_study):g}")
    if demand and wanted.promise.delta > demand.total.delta:
        found.append(f"differential privacy: delta is at most {float(demand.total.delta):g}")
    return found


def state_reasons(plan: Plan, state: PlanState, number: int, lost: int) -> list[str]:
    """Return why a round of a noisy study may not be answered: nothing of it but the method's own state is chosen."""
    if state.rounds != number or not 0 <= number < len(plan.chosen.rounds(plan.params)):
        return ["differential privacy: the study has no such round"]
    if plan.wanted is None or lost > plan.wanted.colluding:
        return ["differential privacy: the noise of those who are left does not suffice"]
    if pack(state.agreement) != pack(plan.agreement.begin()):
        return ["differential privacy: bounds and levels are the published ones"]
    return []


def charged(log: Log, permit: Permit, dataset: str, promises: Mapping[str, Promise], rho: Fraction) -> list[Put]:
    """Return the budgets after a round that costs ``rho``.

    Raises:
        Refused: one of them does not suffice.

    """
    found = []
    for whose, identifier, promise in _budgets(permit, dataset, promises):
        record = log.get(BUDGET, identifier)
        spent = Fraction(record.body["spent"]) if record else Fraction(0)
        after = Budget(promise.rho, spent).spend(rho)
        if after is None:
            raise Refused(
                f"{whose} has no privacy budget left for this round",
                reasons=(
                    f"differential privacy: of epsilon {float(promise.epsilon):g} at delta "
                    f"{float(promise.delta):g}, {epsilon_of(spent, promise.delta):.3g} are spent",
                ),
                remedy="ask with a smaller epsilon, or apply for an amended permit",
            )
        body = {**promise.to_dict(), "spent": str(after.spent)}
        found.append(Put(BUDGET, identifier, record.version if record else 0, body))
    return found


def _budgets(permit: Permit, dataset: str, promises: Mapping[str, Promise]) -> list[tuple[str, str, Promise]]:
    """Return whose budgets a noisy round is charged to, by what name, and how large they are."""
    own = [(f"dataset {dataset!r}", f"dataset:{dataset}", promises.get(dataset, OF_A_DATASET))]
    if permit.differential_privacy:
        own.append(("the permit", f"permit:{permit.id}", permit.differential_privacy.total))
    return own


def left(log: Log, promises: Mapping[str, Promise]) -> list[dict[str, Any]]:
    """Return what is left at a holder: of the persons of each dataset, and of each permit that was charged."""
    spent = {record.id: record.body for record in log.store.list(BUDGET)}
    whole = {identifier: Promise.of(body) for identifier, body in spent.items()}
    whole |= {f"dataset:{dataset}": promise for dataset, promise in promises.items()}
    rows = []
    for identifier, promise in sorted(whole.items()):
        budget = Budget(promise.rho, Fraction(spent[identifier]["spent"]) if identifier in spent else Fraction(0))
        rows.append(
            {
                "budget": identifier,
                **promise.to_dict(),
                "spent_epsilon": round(epsilon_of(budget.spent, promise.delta), 4),
                "spent_rho": str(budget.spent),
                "left_rho": str(budget.left),
                "left": f"{max(float(budget.left / budget.total), 0.0):.1%}",
            }
        )
    return rows


def add_noise(
    log: Log,
    signatures: Signatures,
    study: str,
    number: int,
    words: Words,
    draw: Callable[[Shares], Words],
    shares: Shares,
    repeat: bool,
) -> list[Put]:
    """Add this holder's share to its words in place; return what keeps it, unless it was kept before.

    Raises:
        Refused: it is gone: the study was closed meanwhile.
        AnalysisFailed: the contribution is out of its range, which no bounded one is.

    """
    if words[-1]:
        raise AnalysisFailed(
            "a bounded contribution is out of its range", remedy="report this as a fault of the method"
        )
    record = log.get(NOISE, study)
    kept: list[Put] = []
    if repeat:
        if record is None or record.body["round"] != number:
            raise Refused("the noise of this round is gone", remedy="start a new study")
        noise = np.frombuffer(signatures.unseal(record.body["noise"]), dtype=np.uint64)
    else:
        noise = draw(shares)
        body = {"round": number, "noise": signatures.seal(noise.tobytes())}
        kept.append(Put(NOISE, study, record.version if record else 0, body))
    if len(noise) != len(words):
        raise AnalysisFailed("a contribution has another shape than its noise", remedy="report this as a fault")
    np.add(words, noise, out=words)
    return kept


def forgotten(log: Log, study: str) -> list[Put]:
    """Return what erases the noise of a study that has ended."""
    record = log.get(NOISE, study)
    return [Put(NOISE, study, record.version, {"round": -1, "noise": ""})] if record else []


def refuse_useless(plan: Plan, persons: int) -> None:
    """Refuse a noisy study of too few persons before anything is spent; ``persons`` are those that holders publish.

    Raises:
        TooNoisy: its answer would be mostly noise.

    """
    if plan.wanted is None or persons >= (needed := plan.least()):
        return
    raise TooNoisy(
        f"with epsilon {float(plan.wanted.promise.epsilon):g} this study says something from about "
        f"{_two_digits(needed)} persons on; there are {persons}",
        reasons=("differential privacy: noise would hide the answer, and the budget would be spent",),
        remedy="ask for fewer numbers, give a larger epsilon, or find more holders",
    )


def _two_digits(number: float) -> int:
    unit = 10 ** max(len(str(int(number))) - 2, 0)
    return int(np.ceil(number / unit) * unit)
