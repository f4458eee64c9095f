"""A provider and an access body in this process, spoken to over their own web applications."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx

from ihds.people import client, provider
from ihds.roles.config import NodeConfig
from ihds.roles.node import Node, create
from ihds.roles.space import Space
from ihds.wire.http import Http

ISSUER, CLIENT, NODE = "http://127.0.0.1:9", "node", "http://127.0.0.1:8"
PASSWORD = "correct horse battery"


class Web(Http):
    """Sends to applications in this process by their addresses; a loopback answer of a sign-in goes its own way."""

    def __init__(self, **apps):
        super().__init__()
        self.apps = {ISSUER: apps.get("provider"), NODE: apps.get("node")}

    def send(self, method, url, *, body=None, headers=None, seconds=None, limit=0):
        at = next((a for a in self.apps if url.startswith(a + "/")), None)
        if at is None:
            return httpx.request(method, url, content=body, headers=headers)

        async def sent():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(self.apps[at])) as web:
                return await web.request(method, url, content=body, headers=headers)

        return anyio.run(sent)


class Desk:
    """An access body whose people sign in at a provider beside it."""

    def __init__(self, folder: Path, role="access_body", **settings):
        provider.create(folder / "p", provider.ProviderConfig(ISSUER, 9, (CLIENT,), passphrase_file=str(folder / "w")))
        self.provider = provider.Provider(folder / "p")
        people = {"issuer": ISSUER, "client_id": CLIENT}
        config = NodeConfig(
            "hdab",
            role,
            "LU",
            NODE,
            8,
            people=people,
            passphrase_file=str(folder / "v"),
            legal_regime="ehds",
            **settings,
        )
        create(folder / "n", config)
        self.node = Node(folder / "n")
        self.web = Web(provider=self.provider.app(), node=self.node.app())
        signing = self.node.people.sessions.provider
        signing.http = signing.shelf.http = self.web
        self.admin = Space(config, (folder / "n/api.key").read_text().strip(), self.web)

    def person(self, user: str, *roles: str, name="") -> Space:
        """Make a person with an account, and sign them in."""
        subject = self.provider.accounts.add(user, PASSWORD)["subject"]
        self.admin.call("officer.add", name=name or user, roles=list(roles), subject=subject)
        return self.sign_in(user)

    def sign_in(self, user: str) -> Space:
        way = client.by_browser(client.filled_in(user, PASSWORD, self.web))
        return self.admin.signed_in(client.sign_in(NODE, self.web, way)[0])

    def close(self):
        self.provider.store.close()
        self.node.store.close()
