"""The persons of a simulated data space: a provider of its own, an account each, and their sessions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from authlib.oidc.discovery import get_well_known_url

from ihds.errors import PeerFailed
from ihds.people import client, provider
from ihds.roles.config import free_port
from ihds.roles.simulated import ASSESSOR, OFFICER
from ihds.roles.space import Space
from ihds.wire.http import Http

RESEARCHER = "Demo Researcher"
CHECKER, PREPARER, OPERATOR = "Demo Checker", "Demo Preparer", "Demo Operator"
#: Who has an account at which node, in which duty.
PEOPLE = (
    (ASSESSOR, "access-body", "assessor"),
    (OFFICER, "access-body", "officer"),
    (CHECKER, "access-body", "output reviewer"),
    (PREPARER, "access-body", "data preparer"),
    (OPERATOR, "environment", "operator of the secure environment"),
    (RESEARCHER, "researcher", "researcher"),
)


@dataclass(frozen=True)
class Login:
    """A provider's folder, and what each simulated person knows: user and password."""

    folder: Path
    issuer: str
    known: dict[str, tuple[str, str]]
    subjects: dict[str, str]

    @classmethod
    def make(cls, folder: Path, people: Iterable[tuple[str, str, str]] = PEOPLE) -> Login:
        """Make a provider with an account for each person; its clients are their nodes."""
        port = free_port()
        nodes = tuple(sorted({node for _, node, _ in people}))
        secret = str(folder.parent / "secrets" / folder.name)
        config = provider.ProviderConfig(f"http://127.0.0.1:{port}", port, nodes, passphrase_file=secret)
        provider.create(folder, config)
        made = provider.Provider(folder)
        known = {name: (name.replace(" ", ".").lower(), secrets.token_urlsafe(16)) for name, _, _ in people}
        subjects = {name: made.accounts.add(*word, name)["subject"] for name, word in known.items()}
        made.store.close()
        return cls(folder, made.config.issuer, known, subjects)

    def settings(self, node: str) -> dict[str, str]:
        """Return the setting ``people`` of a node; nothing for one where nobody signs in."""
        return {"issuer": self.issuer, "client_id": node} if node in {n for _, n, _ in PEOPLE} else {}

    def enrol(self, space: Callable[[str], Space]) -> None:
        """Have the administrators make the accounts, once the provider answers."""
        self._wait()
        for name, node, duty in PEOPLE:
            space(node).call("officer.add", name=name, roles=[duty], subject=self.subjects[name])

    def _wait(self) -> None:
        http, deadline = Http(timeout_seconds=2), time.monotonic() + 60
        while True:
            try:
                http.get_json(get_well_known_url(self.issuer, external=True))
                break
            except PeerFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        http.close()

    def sign_in(self, name: str, space: Space) -> Space:
        """Sign a person in, as a browser would, and return the node spoken to by it; a folder of its own keeps that."""
        way = client.by_browser(client.filled_in(*self.known[name], space.http))
        session, _ = client.sign_in(space.config.base_url, space.http, way)
        own = self.folder.parent / self.known[name][0]
        own.mkdir(mode=0o700, exist_ok=True)
        session.file = own / client.FILE
        session.keep()
        space.people[name] = space.signed_in(session)
        return space.people[name]
