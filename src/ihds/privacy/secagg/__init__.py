"""Secure aggregation: only the sum of the holders' words over Z_2^64 is ever opened."""

from ihds.privacy.secagg.pairwise import MaskKey, Words, add_masks, mask, seeds

__all__ = ["MaskKey", "Words", "add_masks", "mask", "seeds"]
