"""Noise in shares: its distribution, what it costs, and that it is never the same twice."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from ihds.errors import BadInput
from ihds.privacy.accountant import Budget, Demand, Promise, epsilon_of
from ihds.privacy.noise import MOST_NUMBERS, Part, cost, share, shares


def discrete_gaussian(scale: float, width: int) -> np.ndarray:
    """Return the probabilities of -width .. width (Canonne, Kamath & Steinke 2020, definition 1)."""
    mass = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * scale**2))
    return mass / mass.sum()


def test_the_sum_of_shares_is_distributed_as_it_should_be() -> None:
    """Three holders' shares, against the convolution of three discrete Gaussians; right noise fails once in 1e9."""
    part = Part(20_000, Fraction(2000), Fraction(1))
    noise = shares([part], 3)
    drawn = np.sum([noise.drawn() for _ in range(3)], axis=0, dtype=np.uint64).view(np.int64)
    scale, width = noise.parts[0][1], 400
    one = discrete_gaussian(scale, width)
    three = np.convolve(np.convolve(one, one), one)
    edges = np.arange(-90, 91, 10)
    at = np.arange(-3 * width, 3 * width + 1)
    expected = np.array([three[(at >= a) & (at < b)].sum() for a, b in zip(edges, edges[1:], strict=False)])
    seen = np.histogram(drawn, edges)[0]
    expected, seen = np.append(expected, 1 - expected.sum()), np.append(seen, len(drawn) - seen.sum())
    assert stats.chisquare(seen, expected * len(drawn)).pvalue > 1e-9
    assert stats.chisquare(seen, np.roll(expected, 1) * len(drawn)).pvalue < 1e-9  # the test would tell


def test_noise_of_the_honest_alone_suffices() -> None:
    sensitivity, rho = Fraction(10**12), Fraction(1, 50)
    for holders, colluding in ((3, 1), (5, 2), (10, 0), (500, 249)):
        honest = holders - colluding
        scale = share(sensitivity, rho, honest)
        assert honest * Fraction(scale) ** 2 >= sensitivity / (2 * rho)
        assert cost(sensitivity, scale, honest, MOST_NUMBERS) <= rho
        assert cost(sensitivity, scale, honest - 1, MOST_NUMBERS) > rho or honest == 1  # one fewer would not do


def test_noise_too_fine_to_be_shared_is_refused() -> None:
    with pytest.raises(BadInput, match="too fine"):
        share(Fraction(1), Fraction(1), 2)
    with pytest.raises(BadInput, match="too long"):
        shares([Part(MOST_NUMBERS + 1, Fraction(2**60), Fraction(1))], 2)


def test_noise_is_fresh_and_stands_only_where_persons_do() -> None:
    noise = shares([Part(4, Fraction(2**60), Fraction(1)), Part(1, Fraction(0), Fraction(0))], 2)
    first, second = noise.drawn(), noise.drawn()
    assert (first[:4] != second[:4]).any()
    assert first[4] == second[4] == 0
    assert noise.rho == 1


def test_the_accountant_agrees_with_published_figures() -> None:
    """The 2020 census of the USA states rho, and a coarser epsilon at 1e-10; Bun & Steinke 2016 (1.3) bound it."""
    for rho, published in ((Fraction("2.56"), 17.14), (Fraction("0.07"), 2.47)):
        assert 0.96 * published < epsilon_of(rho, Fraction(1, 10**10)) < 1.002 * published
        assert epsilon_of(rho, Fraction(1, 10**10)) <= float(rho) + 2 * (float(rho) * 10 * np.log(10)) ** 0.5


@pytest.mark.parametrize("epsilon", ["0.1", "1", "10"])
def test_a_promise_is_kept_and_hardly_more(epsilon: str) -> None:
    promise = Promise.of({"epsilon": epsilon})
    assert float(promise.epsilon) * 0.999 < epsilon_of(promise.rho, promise.delta) <= float(promise.epsilon)


def test_budgets_are_exact() -> None:
    budget: Budget | None = Budget(Fraction(1))
    for _ in range(3):
        assert budget is not None
        budget = budget.spend(Fraction(1, 3))
    assert budget == Budget(Fraction(1), Fraction(1))
    assert budget.left == 0
    assert budget.spend(Fraction(1, 10**30)) is None


@pytest.mark.parametrize(
    "given",
    [{}, {"epsilon": 0}, {"epsilon": "x"}, {"epsilon": True}, {"epsilon": 65}, {"epsilon": 1, "delta": 0.1}],
)
def test_promises_that_promise_nothing_are_refused(given: dict) -> None:
    with pytest.raises(BadInput):
        Promise.of(given)


def test_a_demand_names_no_study_larger_than_itself() -> None:
    assert Demand.of({"epsilon": 1}).per_study == 1
    assert Demand.of(Demand.of({"epsilon": "1/3", "per_study": "0.1"}).to_dict()).per_study == Fraction(1, 10)
    with pytest.raises(BadInput):
        Demand.of({"epsilon": 1, "per_study": 2})
