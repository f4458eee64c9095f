"""A holder's gate, made from its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ihds.data.source import Source
from ihds.federation.engine import Engine
from ihds.federation.gate import Gate, Grants
from ihds.roles import choices

if TYPE_CHECKING:
    from ihds.roles.node import Node


def gate_of(node: Node, source: Source, grants: Grants, engine: Engine) -> Gate:
    """Return the gate of a node's rows, with what its configuration says of each dataset."""
    datasets = node.config.datasets
    return Gate(
        node.did,
        node.config.country,
        source,
        node.log,
        grants,
        node.signatures,
        engine=engine,
        by_hand=frozenset(d.id for d in datasets if d.studies == "hand"),
        in_environment=frozenset(d.id for d in datasets if d.environment_required),
        attested={d.id: d.evidence for d in datasets},
        promises={d.id: d.privacy for d in datasets},
        opt_outs=choices.of_node(node, source),
        own={d.id: d.limits for d in datasets if d.limits},
    )
