"""A node under the Decentralized Claims Protocol kit, which plays authority, counterparty and stranger.

    python -m tests.kit.dcp_node FOLDER PORT KIT_ADDRESS PART

Nothing of the node is replaced: it trusts the kit's issuer by configuration, believes a membership
for no time at all, has asked the kit's issuer for credentials, and has a token endpoint by which the
kit obtains this node's own tokens.
"""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import parse_qs

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from ihds.audit.log import Event
from ihds.roles import node as nodes
from ihds.roles.config import NodeConfig
from ihds.store.store import Put
from ihds.wire.serve import Answer, Call, endpoint

#: The request under which the kit delivers credentials; the kit's packages and how many tests of each must pass.
CORRELATION = "urn:uuid:11111111-2222-4333-8444-555555555555"
PARTS = {"presentation.verifier": 20, "presentation.cs": 16, "issuance.cs": 24, "issuance.issuer": 25}


def kit_did(kit: str, role: str) -> str:
    """Return the DID of one of the kit's parts."""
    return f"did:web:{kit.removeprefix('http://').replace(':', '%3A')}:{role}"


def properties(me: str, node: str, kit: str, part: str) -> dict[str, str]:
    """Return the kit's configuration for one of its packages; ``me`` plays the role it tests."""
    mine = {"presentation.verifier": "verifier", "issuance.issuer": "issuer"}.get(part, "holder")
    host, port = kit.removeprefix("http://").split(":")
    found = {
        "dataspacetck.host": host,
        "dataspacetck.port": port,
        "dataspacetck.callback.address": kit,
        "dataspacetck.credentials.correlation.id": CORRELATION,
        "dataspacetck.vpp.trigger.endpoint": f"{node}/dsp/2025-1/catalog/request",
        f"dataspacetck.did.{mine}": me,
    }
    if part == "presentation.cs":
        found |= {f"dataspacetck.sts.{name}": "kit" for name in ("client.id", "client.secret")}
        found["dataspacetck.sts.url"] = f"{node}/sts"
    return found


def application(folder: Path, port: int, kit: str, part: str) -> Starlette:
    """Return the web application of a node under test, made anew in a folder."""
    issuing = part == "issuance.issuer"
    config = NodeConfig(
        name="kit",
        role="authority" if issuing else "user",
        country="LU",
        base_url=f"http://127.0.0.1:{port}",
        port=port,
        authority="" if issuing else kit_did(kit, "issuer"),
        members=(f"{kit_did(kit, 'holder')} user LU",),
        membership_seconds=0.0,
        permit_status_seconds=0.0,
        passphrase_file=str(folder.parent / "passphrase"),
    )
    nodes.create(folder, config)
    node = nodes.Node(folder)
    asked = {"issuer": kit_did(kit, "issuer"), "asked": [], "status": "ISSUED", "reason": "", "words": {}}
    node.log.commit(Event("credential.requested", node.did, {}), Put("my.issuance", CORRELATION, 0, asked))

    def token(call: Call) -> Answer:
        form = parse_qs(call.body.decode())
        audience = form["audience"][0]
        access = node.wallet.access(audience, form["bearer_access_scope"][0].split())
        made = node.identity.token(audience, access)
        return Answer({"access_token": made, "token_type": "Bearer", "expires_in": 300})

    app = node.app()
    app.router.routes.append(Route("/sts/token", endpoint(token), methods=["POST"]))
    return app


if __name__ == "__main__":
    _port = int(sys.argv[2])
    uvicorn.run(
        application(Path(sys.argv[1]), _port, *sys.argv[3:5]), host="127.0.0.1", port=_port, log_level="warning"
    )
