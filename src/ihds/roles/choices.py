"""How a holder reaches the registry of opt-outs it follows: from its node, or from a worker through its connector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ihds.audit.log import Event
from ihds.data.source import Source
from ihds.errors import PeerFailed
from ihds.federation.opt_outs import Choices, Line, NoRegistry, OptOuts
from ihds.ids import Did
from ihds.store.store import Put

if TYPE_CHECKING:
    from collections.abc import Callable

    from ihds.audit.log import Log
    from ihds.data.sources.tabular import TabularSource
    from ihds.roles.config import DatasetConfig, NodeConfig
    from ihds.roles.node import Node

_KEYS = "opt_outs.keys"


def of_node(node: Node, source: Source) -> Choices:
    """Return what keeps people who opted out from the views of a node's own rows."""
    config = node.config
    if not config.opt_out_registry or config.worker:  # the rows of a worker are guarded there
        return NoRegistry()
    registry = Did.parse(config.opt_out_registry)
    line = Line(registry, lambda d, after: page(node, d, after), lambda d: _kept(node, d), node.signatures.verify)
    identified = {d.id: d.national_id for d in config.datasets if d.national_id}
    return OptOuts(node.did, config.country, source, node.log, line, identified, config.opt_out_hours)


def page(node: Node, dataset: str, after: int) -> str:
    """Return a page of the registry's list as it signed it."""
    registry = node.config.opt_out_registry
    url = f"{_address(node)}/list?{urlencode({'dataset': dataset, 'after': after})}"
    return str(node.http.get_json(url, node.wallet.token(registry)).get("list", ""))


def ask_keys(node: Node, dataset: str) -> list[str]:
    """Return the two keys of a dataset from the registry, as hex; they are not kept here."""
    registry = node.config.opt_out_registry
    answer = node.http.call("POST", f"{_address(node)}/keys", {"dataset": dataset}, node.wallet.token(registry))
    keys = [str(key) for key in answer.get("keys", [])]
    if [len(key) for key in keys] != [64, 64]:
        raise PeerFailed("the registry of opt-outs sent no keys")
    return keys


def said(config: NodeConfig, dataset: DatasetConfig) -> dict[str, str]:
    """Return what a dataset's entry in the catalogue says of people's choices."""
    text = "no registry of opt-outs is followed"
    if dataset.unidentified:
        text = f"EHDS 71(8): nobody is identified in these data: {dataset.unidentified}"
    elif config.opt_out_registry:
        text = f"EHDS 71: people who opted out at {config.opt_out_registry} are left out"
    return {"ihds:optOuts": text}


def ticket(node: Node) -> dict[str, Any]:
    """Return what a worker needs to leave out people who opted out; the keys are not kept at the node."""
    config = node.config
    if not config.opt_out_registry:
        return {}
    node.membership.join()  # the registry gives keys to members only
    columns = {d.id: d.national_id for d in config.datasets if d.national_id}
    return {
        "registry": config.opt_out_registry,
        "hours": config.opt_out_hours,
        "columns": columns,
        "keys": {dataset: ask_keys(node, dataset) for dataset in columns},
    }


def _address(node: Node) -> str:
    return node.resolver.service(node.config.opt_out_registry, "OptOutRegistry")


def _kept(node: Node, dataset: str) -> tuple[bytes, bytes]:
    """Return the two keys of a dataset; they are asked for once and kept sealed."""
    found = node.log.get(_KEYS, dataset)
    if found is None:
        body = {"sealed": [node.signatures.seal(bytes.fromhex(key)) for key in ask_keys(node, dataset)]}
        node.log.commit(Event("opt_outs.keyed", node.did, {"dataset": dataset}), Put(_KEYS, dataset, 0, body))
        found = node.log.get(_KEYS, dataset)
        assert found is not None
    first, second = (node.signatures.unseal(k) for k in found.body["sealed"])
    return first, second


def of_worker(
    told: dict[str, Any],
    source: TabularSource,
    log: Log,
    country: str,
    fetch: Callable[[str, int], str],
    verify: Callable[[str, str], dict[str, Any]],
) -> Choices:
    """Return the same for a worker; ``told`` is what its ticket brought."""
    if not told:
        return NoRegistry()
    keys = {name: [bytes.fromhex(key) for key in pair] for name, pair in told["keys"].items()}
    line = Line(Did.parse(told["registry"]), fetch, lambda dataset: (keys[dataset][0], keys[dataset][1]), verify)
    identified = {name: column for name, column in told["columns"].items() if name in source.datasets()}
    return OptOuts(Did.parse(log.origin), country, source, log, line, identified, float(told["hours"]))
