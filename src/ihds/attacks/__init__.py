"""Attacks on federated studies, each carried out twice: without one protection, and against this system.

Every module of this folder with ``ATTACKS`` is in the registry.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from ihds.attacks.attack import Attack
from ihds.errors import BadInput


@functools.cache
def attacks() -> dict[str, Attack]:
    """Return every attack by name."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [attack for module in modules for attack in getattr(module, "ATTACKS", ())]
    return {attack.name: attack for attack in sorted(found, key=lambda a: a.name)}


def attack(name: str) -> Attack:
    """Return one attack.

    Raises:
        BadInput: there is none of that name.

    """
    if name not in attacks():
        raise BadInput(f"there is no attack {name!r}", remedy=f"use one of: {', '.join(attacks())}")
    return attacks()[name]
