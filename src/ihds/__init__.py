"""IHDS: join health data for research without pooling it.

``connect`` opens the real data space through one's own node; ``local_federation`` gives the same
gate, masking and rounds in one process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ihds.data.codebook import Codebook
    from ihds.roles.local import LocalFederation
    from ihds.roles.space import Space

__version__ = "0.5.0"
__all__ = ["__version__", "connect", "local_federation"]


def connect(config: str | Path) -> Space:
    """Return the data space as seen from a researcher's running node.

    ``config`` is the node's folder or its ``node.toml``.

    Raises:
        SetupFailed: there is no node there, or it does not run.

    """
    from ihds.roles.space import Space

    return Space.open(Path(config))


def local_federation(
    sites: Mapping[str, str | Path | pd.DataFrame],
    codebook: Codebook | str | Path | None = None,
    permit: Mapping[str, float] | None = None,
    engine: str = "",
) -> LocalFederation:
    """Return a federation of tables inside this process; see ``LocalFederation.of``."""
    from ihds.roles.local import LocalFederation

    return LocalFederation.of(sites, codebook, permit, engine)
