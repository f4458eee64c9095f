"""The budget of a permit: how many sums may still be opened.

Amounts are exact rationals, so that a budget is never off by a rounding. Today every opened round
costs one; a noisy release will charge its epsilon through the same door.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Budget:
    """What a permit allows in total and what has been spent of it at one holder."""

    total: Fraction
    spent: Fraction = Fraction(0)

    def spend(self, charge: Fraction) -> Budget | None:
        """Return the budget after a charge, or None if it does not suffice."""
        if self.spent + charge > self.total:
            return None
        return Budget(self.total, self.spent + charge)
