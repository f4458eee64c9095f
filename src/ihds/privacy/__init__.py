"""Keeping persons unrecognisable: fixed-point sums, masks, thresholds and budgets; pure."""
