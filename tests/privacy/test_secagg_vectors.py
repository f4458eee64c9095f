"""The stored vectors of secure sums, good and bad; ``tests/vectors/secagg/make.py`` wrote them with the slow ones."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ihds import errors
from ihds.privacy.secagg import opening
from ihds.privacy.secagg.messages import Announcement, Survivors
from ihds.privacy.secagg.opening import Opening
from ihds.privacy.secagg.party import Party
from ihds.privacy.secagg.setting import Setting
from tests.conftest import VECTORS
from tests.vectors.secagg import make

GOOD = json.loads((VECTORS / "secagg/round.json").read_text())
BAD = json.loads((VECTORS / "secagg/bad.json").read_text())
SETTING = Setting.of(GOOD["study"], GOOD["secrets"], GOOD["colluding"])
ROSTER = {claims["sub"]: Announcement.from_claims(claims) for claims in GOOD["announcements"]}
HOLDERS, LEFT = list(ROSTER), GOOD["survivors"]


def words(name: str, holder: str) -> np.ndarray:
    return np.array([int(w) for w in GOOD[name][holder]], dtype=np.uint64)


def fresh(holder: str) -> Party:
    return Party(SETTING, holder, GOOD["number"], **GOOD["secrets"][holder], chosen="")


def shared():
    """Parties and shares after the keys have gone round."""
    return {h: fresh(h).share(ROSTER)[0] for h in HOLDERS}, {h: fresh(h).share(ROSTER)[1] for h in HOLDERS}


def entered():
    parties, shares = shared()
    return {h: p.enter(GOOD["state"], HOLDERS)[0] for h, p in parties.items()}, shares


def round_opened() -> Opening:
    return Opening.of(SETTING, GOOD["number"], ROSTER, GOOD["state"], HOLDERS, LEFT)


def confirmed():
    parties, shares = entered()
    pairs = {h: parties[h].confirm(LEFT) for h in LEFT}
    return {h: p for h, (p, _) in pairs.items()}, {h: s for h, (_, s) in pairs.items()}, shares


def revealed():
    parties, said, shares = confirmed()
    return {h: p.reveal(said, opening.boxes_for(h, round_opened(), shares)) for h, p in parties.items()}, shares


def test_the_stored_vectors_are_what_the_script_writes():
    assert (json.loads(json.dumps(make.good())), json.loads(json.dumps(make.bad()))) == (GOOD, BAD)


def test_every_byte_of_the_good_round():
    assert SETTING.threshold(len(HOLDERS)) == GOOD["threshold"]
    for h, claims in zip(HOLDERS, GOOD["announcements"], strict=True):
        assert fresh(h).announcement().claims() == claims
    parties, shares = entered()
    for h in HOLDERS:
        assert [row.tobytes().hex() for row in shares[h].boxes] == GOOD["shares"][h]["boxes"]
        assert shares[h].commitments.tobytes().hex() == "".join(GOOD["shares"][h]["commitments"])
        assert (shares[h].seed, shares[h].roster) == (GOOD["shares"][h]["seed"], GOOD["roster_digest"])
        assert parties[h].digest == GOOD["digest"]
        assert np.array_equal(parties[h].mask(words("words", h)), words("masked", h))
    shown, _ = revealed()
    for h in LEFT:
        assert [row.tobytes().hex() for row in shown[h].shares] == GOOD["reveals"][h]
        assert shown[h].survivors == GOOD["survivors_digest"]
    total = np.sum([words("masked", h) for h in LEFT], axis=0, dtype=np.uint64)
    opening.unmask(total, round_opened(), opening.recover(round_opened(), shares, shown))
    assert [str(w) for w in total] == GOOD["total"]


def attempt(step: str, change):  # noqa: C901, PLR0911 - one line a step
    me, other, *_ = HOLDERS
    match step:
        case "announcement":
            return Announcement.from_claims({**ROSTER[other].claims(), **change})
        case "roster":
            return fresh(me).share({**ROSTER, other: Announcement.from_claims({**ROSTER[other].claims(), **change})})
        case "roster-of":
            return fresh(me).share({h: ROSTER[h] for h in change})
        case "roster-again":
            changed = Announcement.from_claims({**ROSTER[other].claims(), **change})
            return shared()[0][me].share({**ROSTER, other: changed})
        case "enter":
            return shared()[0][me].enter(change[1], change[0])
        case "enter-again":
            return entered()[0][me].enter(change[1], change[0])
        case "confirm":
            return entered()[0][me].confirm(change)
        case "confirm-again":
            return confirmed()[0][me].confirm(change)
        case "confirm-fixed":
            return entered()[0][me].confirm(LEFT, fixed=change)
        case "confirmed":
            parties, said, shares = confirmed()
            rest = {k: v for k, v in change.items() if k != "by"}
            told = {
                h: Survivors(h, *({**{"digest": s.digest, "survivors": s.survivors}, **rest}).values())
                for h, s in said.items()
                if h in change.get("by", HOLDERS)
            }
            return parties[me].reveal(told, opening.boxes_for(me, round_opened(), shares))
    shown, shares = revealed()
    match step:
        case "box":
            sender, byte = change
            spoiled = shares[sender].boxes.copy()
            spoiled[0, byte] ^= 1
            sent = {**shares, sender: replace(shares[sender], boxes=spoiled)}
            parties, said, _ = confirmed()
            shown = {**shown, me: parties[me].reveal(said, opening.boxes_for(me, round_opened(), sent))}
            return opening.recover(round_opened(), sent, shown)
        case "share":
            bent = shown[change[0]].shares.copy()
            bent[change[1], 5] ^= 1
            return opening.recover(round_opened(), shares, {**shown, change[0]: replace(shown[change[0]], shares=bent)})
        case "reveals-of":
            return opening.recover(round_opened(), shares, {h: shown[h] for h in change})
        case "reveal":
            return opening.recover(round_opened(), shares, {**shown, other: replace(shown[other], **change)})
        case "shares":
            return opening.recover(round_opened(), {**shares, other: replace(shares[other], **change)}, shown)
    raise AssertionError(step)


@pytest.mark.parametrize("case", BAD, ids=lambda c: f"{c['step']}-{c['told'][:30]}")
def test_every_bad_vector_is_refused_or_its_sender_named(case):
    wanted = errors.SiteMissing if case["error"] == "fault" else getattr(errors, case["error"])
    with pytest.raises(wanted) as told:
        attempt(case["step"], case["change"])
    assert case["told"] in "\n".join([told.value.message, *told.value.reasons])
