"""``python -m ihds.cli`` is the same as ``ihds``."""

from ihds.cli import entry

entry()
