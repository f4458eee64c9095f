"""Secure aggregation: only the sum of the holders' words over Z_2^64 is ever opened."""
