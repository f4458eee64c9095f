"""The node that plays with Eclipse EDC: a real node that speaks EDC's mock identities instead of DCP.

    python -m tests.kit.edc_node FOLDER PORT [DATASETS]

EDC's mock of identities writes bare JSON into the Authorization header. Everything else of the node
is the shipped one: catalog, negotiation, transfer, outbox, data plane.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from ihds.connector.dataplane.http import PULL, PUSH
from ihds.connector.dataplane.plane import Flow
from ihds.connector.dsp import catalog
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.errors import NotAuthenticated
from ihds.governance.policy import NAMESPACE, Granted
from ihds.governance.policy import Refused as No
from ihds.roles import node as nodes
from ihds.roles.config import NodeConfig
from ihds.wire.serve import Patient

OPEN, DENIED = "ihds-open", "ihds-denied"
DATA = "".join(f"site,{number},{number * number}\n" for number in range(20_000)).encode()


class MockIdentities:
    """Believes EDC's mock header."""

    def check(self, authorization: str) -> dict[str, Any]:
        """Return the caller's claims."""
        try:
            return {"iss": str(json.loads(authorization)["clientId"])}
        except (ValueError, KeyError, TypeError) as error:
            raise NotAuthenticated("this is not the header of EDC's mock identities") from error


class Decisions:
    """Offers two files and gives one of them to nobody."""

    def __init__(self, node: nodes.Node, more: int) -> None:
        self.node = node
        constraint = {"leftOperand": f"{NAMESPACE}purpose", "operator": "eq", "rightOperand": "scientific_research"}
        rules = {OPEN: {"action": "use", "constraint": [constraint]}, DENIED: {"action": "use"}}
        rules |= {f"more-{number:06d}": rules[OPEN] for number in range(more)}
        self.entries = [
            catalog.dataset(
                key,
                [{"@id": f"{key}:offer", "@type": "Offer", "permission": [rule]}],
                f"{node.did}#dsp",
                [PULL, PUSH],
                {},
            )
            for key, rule in rules.items()
        ]

    def datasets(self) -> list[dict[str, Any]]:
        """Return the catalog's entries."""
        return self.entries

    def judge(self, process: Negotiation) -> Granted | No:
        """Give the open file to everybody."""
        return No(("test: nobody may have this",)) if process.offer["target"] == DENIED else Granted()

    def consider(self, process: Negotiation) -> Granted:
        """Take any offer."""
        return Granted()

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted:
        """Say yes."""
        return Granted()

    def ended(self, process: Transfer) -> None:
        """Do nothing."""

    def origin(self, dataset: str) -> Path:
        """Return the file."""
        return self.node.folder / "open.csv"

    def admit(self, flow: Flow) -> None:
        """Let everybody in."""


def application(folder: Path, port: int, more: int = 0) -> Starlette:
    """Return the web application of the node, made anew in a folder, with so many more datasets."""
    config = NodeConfig(
        name="ihds",
        role="user",
        country="LU",
        base_url=f"http://127.0.0.1:{port}",
        port=port,
        passphrase_file=str(folder.parent / "passphrase"),
    )
    nodes.create(folder, config)
    (folder / "open.csv").write_bytes(DATA)
    node = nodes.Node(folder)
    decisions = Decisions(node, more)
    node.connector.decisions = decisions
    node.plane.origin, node.plane.admit = decisions.origin, decisions.admit
    node.binding.callers = MockIdentities()
    node.connector.speak = lambda counterparty: json.dumps(
        {"region": "eu", "audience": counterparty, "clientId": node.did}
    )
    app = node.app()
    app.router.routes.append(Route("/source", lambda _request: Response(DATA), methods=["GET"]))
    return app


if __name__ == "__main__":
    _app = application(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    uvicorn.run(_app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", http=Patient)
