"""Decentralized Claims Protocol 1.0.1: who speaks, what they can prove, and who issued the proof."""
