"""Compatibility kits: the reactions they script, the node under test, and a counterpart in Python."""
