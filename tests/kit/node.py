"""The node under test: a real holder node whose reactions are scripted and whose counterpart is the kit.

    python -m tests.kit.node FOLDER PORT [PAUSE]

The shipped node loads none of this: identity, policy and reactions are replaced here, from outside.
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

import pandas as pd
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ihds.audit.log import Event, Log
from ihds.connector.dsp import catalog, negotiation, transfer
from ihds.connector.dsp.connector import Step
from ihds.connector.dsp.negotiation import Negotiation
from ihds.connector.dsp.transfer import Transfer
from ihds.data.codebook import Codebook, Variable
from ihds.errors import NotAuthenticated
from ihds.governance.policy import Granted
from ihds.roles import node as nodes
from ihds.roles.config import DatasetConfig, NodeConfig
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint
from tests.kit.scenarios import BEARER, BY_KEY, CATALOG, COUNTERPART, FORMAT, SCENARIOS, offer_id


class KitTokens:
    """Knows one caller: the kit, by its literal header."""

    def check(self, authorization: str) -> dict[str, Any]:
        """Return the kit's claims."""
        if authorization != f"Bearer {BEARER}":
            raise NotAuthenticated("only the kit may call this node")
        return {"iss": COUNTERPART, "sub": COUNTERPART}


class KitDecisions:
    """Offers a dataset for every scenario and says yes to everything."""

    def __init__(self, did: str) -> None:
        rule = {"permission": [{"action": "use"}]}
        keys = [*CATALOG, *(s.key for s in SCENARIOS)]
        self.entries = [
            catalog.dataset(key, [{"@id": offer_id(key), "@type": "Offer", **rule}], f"{did}#dsp", [FORMAT], {})
            for key in keys
        ]

    def datasets(self) -> list[dict[str, Any]]:
        """Return the catalog's entries."""
        return self.entries

    def consider(self, process: Negotiation) -> Granted:
        """Say yes."""
        return Granted(("kit",))

    def judge(self, process: Negotiation) -> Granted:
        """Say yes."""
        return Granted(("kit",))

    def may_start(self, process: Transfer, agreement: dict[str, Any]) -> Granted:
        """Say yes."""
        return Granted(("kit",))

    def ended(self, process: Transfer) -> None:
        """Do nothing."""


class KitReactions:
    """Does what the scenario of a dataset or agreement scripts; ``pause`` leaves time to look at a state.

    Whether an event comes again is read in the node's own log, so a step taken twice counts once.
    """

    def __init__(self, log: Log, pause: float) -> None:
        self.log, self.pause = log, pause

    def _step(self, key: str, pid: str, event: str, pause: float) -> Step | None:
        scenario = BY_KEY.get(key)
        if scenario is None:
            return None
        moves = (e["details"] for e in self.log.entries() if e["kind"].endswith(".advanced"))
        again = any(m.get("pid") == pid and m.get("event") == event for m in moves)
        name = {"request": "counter", "start": "restart"}.get(event, event) if again else event
        task = scenario.reactions.get(name)
        return Step(task, pause) if task else None

    def negotiation(self, process: Negotiation, event: negotiation.Event, own: bool) -> Step | None:
        """Return the scripted step."""
        return self._step(str(process.offer.get("target")), process.pid, str(event), self.pause if own else 0.0)

    def transfer(self, process: Transfer, event: transfer.Event, own: bool) -> Step | None:
        """Return the scripted step; the kit looks at every state of a transfer before the next."""
        first = event is transfer.Event.REQUEST and not own
        return self._step(process.agreement_id, process.pid, str(event), 0.0 if first else self.pause)


def application(folder: Path, port: int, pause: float, delay: float) -> Starlette:
    """Return the web application of a node under test, made anew in a folder."""
    book = Codebook("kit", {"x": Variable("x", "number")})
    config = NodeConfig(
        name="kit",
        role="holder",
        country="LU",
        base_url=f"http://127.0.0.1:{port}",
        port=port,
        datasets=(DatasetConfig("kit", "kit"),),
    )
    nodes.create(folder, config)
    nodes.load_dataset(folder, "kit", pd.DataFrame({"x": [1.0] * 20}), book)
    node = nodes.Node(folder)
    connector = node.connector
    node.binding.callers = KitTokens()
    connector.decisions = KitDecisions(node.did)
    connector.reactions = KitReactions(node.log, pause)
    connector.outbox.delay_seconds = delay
    connector.outbox.give_up_seconds = 5.0
    for scenario in SCENARIOS:
        if scenario.kind.startswith("TP"):
            provider = scenario.kind == "TP"
            seeded = {
                "permit": "",
                "dataset": scenario.key,
                "counterparty": COUNTERPART,
                "role": "provider" if provider else "consumer",
                "base": "",
                "policy": {"@id": scenario.key},
                "digest": "",
                "negotiation": uuid.uuid4().urn,
            }
            node.log.commit(Event("negotiation.advanced", node.did, {}), Put("agreement", scenario.key, 0, seeded))

    def ask_contract(call: Call) -> Answer:
        body = call.json()
        offer = {
            "@id": body["offerId"],
            "@type": "Offer",
            "target": body["datasetId"],
            "permission": [{"action": "use"}],
        }
        return Answer({"pid": connector.request_contract(body["providerId"], body["connectorAddress"], offer, "")})

    def ask_transfer(call: Call) -> Answer:
        body = call.json()
        record = node.log.get("agreement", body["agreementId"])
        based = {**record.body, "base": body["connectorAddress"]}
        node.log.commit(
            Event("negotiation.advanced", node.did, {}), Put("agreement", body["agreementId"], record.version, based)
        )
        return Answer({"pid": connector.request_transfer(body["agreementId"], body["format"])})

    app = node.app()
    app.router.routes.extend(
        [
            Route("/tck/negotiations/requests", endpoint(ask_contract), methods=["POST"]),
            Route("/tck/transfers/requests", endpoint(ask_transfer), methods=["POST"]),
        ]
    )
    return app


if __name__ == "__main__":
    _folder, _port = Path(sys.argv[1]), int(sys.argv[2])
    uvicorn.run(application(_folder, _port, pause=1.5, delay=0.15), host="127.0.0.1", port=_port, log_level="warning")
