"""The ODRL offer of a dataset: from its settings, or from the rules its holder wrote; checked when it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ihds.errors import SetupFailed
from ihds.governance.policy import constraint, validate

if TYPE_CHECKING:
    from ihds.roles.config import DatasetConfig


def offer(config: DatasetConfig, folder: Path) -> dict[str, Any]:
    """Return the offer of a dataset; a policy file lies below ``folder``.

    Raises:
        SetupFailed: the policy cannot be read, or would deny everybody; every fault is named.

    """
    if config.policy:
        rules = _written(config, folder / config.policy)
    else:
        constraints = _constraints_of_file(config) if config.file else _constraints(config)
        rules = {"permission": [{"action": "use", "constraint": constraints}]}
    wrong = validate(rules)
    if wrong:
        raise SetupFailed(
            f"the policy of dataset {config.id!r} cannot be offered",
            reasons=tuple(wrong),
            remedy="mend it; ihds policy check FILE tells the same",
        )
    return {"@id": f"{config.id}:offer", "@type": "Offer", **rules}


def _written(config: DatasetConfig, path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SetupFailed(f"the policy of dataset {config.id!r}: {path}: {error}", remedy="write JSON") from error
    if not isinstance(body, dict):
        raise SetupFailed(f"the policy of dataset {config.id!r}: {path} is not a JSON object", remedy="see docs")
    return body


def _constraints(config: DatasetConfig) -> list[dict[str, Any]]:
    return [
        constraint("membership", "eq", "member"),
        constraint("permitStatus", "eq", "GRANTED"),
        constraint("purpose", "isAnyOf", list(config.purposes)),
        constraint("method", "isPartOf", list(config.methods)),
        constraint("recipientCountry", "isAnyOf", list(config.recipient_countries)),
        constraint("minimumCell", "gteq", str(config.minimum_cell)),
    ]


def _constraints_of_file(config: DatasetConfig) -> list[dict[str, Any]]:
    return [
        constraint("membership", "eq", "member"),
        constraint("recipientCountry", "isAnyOf", list(config.recipient_countries)),
    ]
