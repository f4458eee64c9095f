"""Bodies: no effect without quorum and majority, whatever the votes, their order and the mandates."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ihds.errors import BadInput
from ihds.governance import bodies
from ihds.governance.bodies import Body, Choice, Matter, Motion, MotionEvent, Seat, outcome, tally

OPENED = datetime(2026, 3, 2, 9, tzinfo=UTC)
CLOSES = OPENED + timedelta(days=14)
MEMBERS = [f"did:web:m{n}.example" for n in range(6)]


def body(seats=4, quorum="1/2", majority="1/2", until=date(2027, 12, 31)) -> Body:
    sitting = tuple(Seat(m, f"Person {m[-9]}", date(2026, 1, 1), until) for m in MEMBERS[:seats])
    return Body("steering", "Steering", sitting, frozenset(Matter), Fraction(quorum), Fraction(majority))


def motion(of: Body, matter=Matter.CODEBOOK, subject="0" * 64) -> Motion:
    electorate = of.seated(OPENED.date(), MEMBERS)
    return Motion("urn:1", of.id, matter, subject, "", electorate[0], OPENED, CLOSES, electorate)


def votes(of: Body, said: str) -> dict[str, Choice]:
    words = {"y": Choice.YES, "n": Choice.NO, "a": Choice.ABSTAIN, "r": Choice.RECUSED}
    return {seat.key: words[c] for seat, c in zip(of.seats, said, strict=False) if c in words}


@pytest.mark.parametrize(
    ("said", "quorum", "majority", "closed", "ends"),
    [
        ("yyyn", "1/2", "1/2", False, "carry"),
        ("yynn", "1/2", "1/2", False, "reject"),  # a tie carries nothing
        ("y---", "1/2", "1/2", False, None),
        ("y---", "1/2", "1/2", True, "lapse"),  # silence is no vote
        ("yy--", "1/2", "1/2", True, "carry"),
        ("yy--", "1/2", "1/2", False, None),  # two more noes would make it a tie
        ("yyy-", "1/2", "1/2", False, "carry"),
        ("nn--", "1/2", "1/2", False, "reject"),
        ("aaaa", "1/2", "1/2", False, "reject"),  # nobody said yes
        ("yarr", "1/2", "1/2", False, "carry"),
        ("yrrr", "1/2", "1/2", False, "lapse"),  # recusal does not shrink the quorum
        ("rrrr", "1/4", "1/2", False, "lapse"),
        ("yyn-", "3/4", "2/3", True, "carry"),
        ("yynn", "3/4", "2/3", True, "reject"),
        ("yyyn", "1", "1", True, "reject"),
        ("yyyy", "1", "1", False, "carry"),
    ],
)
def test_what_carries_a_motion(said, quorum, majority, closed, ends):
    of = body(4, quorum, majority)
    assert outcome(of, motion(of), votes(of, said), CLOSES if closed else OPENED) == (ends and MotionEvent(ends))


parts = st.sampled_from(["1/2", "2/3", "3/4", "1"])
said = st.text("yna r", min_size=6, max_size=6)


@settings(max_examples=200, deadline=None)
@given(seats=st.integers(1, 6), quorum=parts, majority=parts, said=said)
def test_nothing_is_carried_without_quorum_and_majority(seats, quorum, majority, said):
    of = body(seats, quorum, majority)
    asked, cast = motion(of), votes(of, said)
    if outcome(of, asked, cast, CLOSES) is MotionEvent.CARRY:
        yes, no = said[:seats].count("y"), said[:seats].count("n")
        assert yes + no + said[:seats].count("a") >= Fraction(quorum) * seats
        assert yes > no
        assert yes >= Fraction(majority) * (yes + no)


@settings(max_examples=200, deadline=None)
@given(seats=st.integers(1, 6), quorum=parts, majority=parts, said=said, rest=said)
def test_an_early_end_is_the_end_whatever_else_would_be_voted(seats, quorum, majority, said, rest):
    of = body(seats, quorum, majority)
    asked = motion(of)
    early = outcome(of, asked, votes(of, said), OPENED)
    if early is not None:
        late = {**votes(of, rest), **votes(of, said)}
        assert outcome(of, asked, late, CLOSES) is early


@settings(max_examples=100, deadline=None)
@given(said=said, strangers=st.dictionaries(st.text(max_size=5), st.sampled_from(list(Choice)), max_size=5))
def test_votes_of_others_do_not_count(said, strangers):
    of = body(3)
    asked = motion(of)
    cast = votes(of, said)
    assert tally(asked, {**strangers, **cast}) == tally(asked, cast)


def test_the_seats_of_the_institution_concerned_are_recused_whatever_they_say():
    of = body(3, "2/3")
    asked = motion(of, Matter.SUSPEND, MEMBERS[0])
    assert tally(asked, votes(of, "nyy")).recused == 1
    assert outcome(of, asked, votes(of, "nyy"), OPENED) is MotionEvent.CARRY
    assert outcome(of, motion(of, Matter.APPOINT, MEMBERS[0]), votes(of, "nyn"), OPENED) is MotionEvent.REJECT


def test_only_seats_in_mandate_of_members_in_good_standing_vote():
    of = body(3, until=date(2026, 6, 30))
    assert len(of.seated(date(2026, 6, 30), MEMBERS)) == 3
    assert of.seated(date(2026, 7, 1), MEMBERS) == ()
    assert of.seated(date(2025, 12, 31), MEMBERS) == ()
    assert len(of.seated(date(2026, 3, 1), MEMBERS[1:])) == 2
    nobody = Motion("urn:1", "steering", Matter.CODEBOOK, "", "", "", OPENED, CLOSES, ())
    assert outcome(of, nobody, {}, OPENED) is MotionEvent.LAPSE


def test_a_body_is_read_as_it_was_written_and_nonsense_is_refused():
    of = body(3, "2/3", "3/4")
    assert Body.from_dict("steering", of.to_dict()) == of
    asked = motion(of)
    assert Motion.from_dict(asked.to_dict()) == asked
    assert Motion.from_dict(asked.to_dict()).digest() == asked.digest()
    for wrong in (
        {"quorum": "0"},
        {"quorum": "1/0"},
        {"majority": "1/3"},
        {"decides": ["everything"]},
        {"seats": [of.to_dict()["seats"][0]] * 2},
        {"seats": [{**of.to_dict()["seats"][0], "until": "2025-01-01"}]},
        {"seats": [{**of.to_dict()["seats"][0], "member": "somebody"}]},
    ):
        with pytest.raises(BadInput):
            Body.from_dict("steering", {**of.to_dict(), **wrong})


def test_seats_come_and_go():
    of = body(2)
    more = bodies.appointed(of, Seat(MEMBERS[3], "New", date(2026, 1, 1), date(2026, 12, 31)))
    assert len(more.seats) == 3
    assert bodies.dismissed(more, f"{MEMBERS[3]} New") == of
    with pytest.raises(BadInput, match="two seats"):
        bodies.appointed(more, more.seats[-1])
    with pytest.raises(BadInput, match="no seat"):
        bodies.dismissed(of, "did:web:x Nobody")


def test_the_life_of_a_motion_is_total_and_ends():
    assert set(bodies.NEXT) == set(bodies.MotionState)
    assert set(bodies.NEXT[bodies.MotionState.OPEN]) == set(MotionEvent)
    assert all(not following for state, following in bodies.NEXT.items() if state != "OPEN")


def test_a_version_that_must_be_approved_is_refused_until_it_is():
    used = {"approve-codebook": "a" * 64, "approve-rules": "b" * 64}
    assert bodies.unapproved((), (), used) == ()
    assert len(bodies.unapproved(("approve-codebook", "approve-rules"), (), used)) == 2
    assert bodies.unapproved(("approve-codebook",), (f"approve-codebook {'a' * 64}",), used) == ()
    assert bodies.unapproved(("approve-codebook",), (f"approve-rules {'a' * 64}",), used) != ()
