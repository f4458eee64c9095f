"""The question travels: rounds of sums between holders and the one who asked."""
