"""Gaia-X: what a participant says of itself and its services in Gaia-X's words, and the check of what others say."""
