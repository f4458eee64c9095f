"""The data space from outside a node: the object behind notebooks and the command line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ihds.analysis.result import Result
from ihds.errors import PeerFailed, SetupFailed, from_dict
from ihds.people import client
from ihds.people.client import SignedIn
from ihds.roles.config import FILE, NodeConfig
from ihds.roles.node import API_KEY_FILE
from ihds.wire.http import Http

_POLL_SECONDS = 0.05

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Space:
    """A running node, spoken to through its management API."""

    config: NodeConfig
    key: str
    http: Http
    session: SignedIn | None = None
    by: str = ""
    people: dict[str, Space] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Space:
        """Open a node's folder, its ``node.toml``, or the folder of a person who signed in.

        Raises:
            SetupFailed: there is no node there, or nobody signed in.

        """
        folder = path.parent if path.name.endswith(".toml") else path
        if (folder / client.FILE).exists() and path.name != FILE:
            http = _http()
            session = SignedIn.read(folder / client.FILE, http)
            return cls(told_of(session.url, http), "", http, session)
        config = NodeConfig.read(path if path.is_file() else folder / FILE)
        try:
            key = (folder / API_KEY_FILE).read_text().strip()
        except OSError as error:
            raise SetupFailed(f"{folder} has no {API_KEY_FILE}: {error}", remedy="ihds node init") from error
        return cls(config, key, _http())

    def signed_in(self, session: SignedIn) -> Space:
        """Return the same node, spoken to by a person who signed in."""
        return replace(self, key="", session=session, by="", people={})

    def acting(self, name: str) -> Space:
        """Return the node as spoken to by an account: its person's session, where one is known, else the name alone."""
        return self.people.get(name) or replace(self, by=name)

    def call(self, command: str, **arguments: Any) -> Any:
        """Run a management command on the node.

        Raises:
            SetupFailed: the node does not run.
            IhdsError: what the node reports.

        """
        url = f"{self.config.base_url}/api/{command}"
        if self.by:
            arguments = {**arguments, "by": self.by}
        try:
            if self.session:
                status, answer = self.http.json("POST", url, arguments, headers=self.session.headers("POST", url))
            else:
                status, answer = self.http.json("POST", url, arguments, self.key)
        except PeerFailed as error:
            raise SetupFailed(
                f"the node {self.config.name!r} does not run at {self.config.base_url}",
                remedy="start it: ihds node run FOLDER",
            ) from error
        if status >= 400:
            raise from_dict(answer if isinstance(answer, dict) else {})
        return answer

    def search(self, text: str = "") -> list[dict[str, Any]]:
        """Return the datasets of all catalogues that match every word."""
        return list(self.call("catalogue.search", text=text))

    def apply(self, **application: Any) -> dict[str, Any]:
        """Send a data access application."""
        return dict(self.call("apply", **application))

    def permits(self) -> list[dict[str, Any]]:
        """Return applications and permits."""
        return list(self.call("permit.list"))

    def run(
        self,
        method: str,
        *,
        permit: str | None = None,
        purpose: str | None = None,
        report: Report | None = None,
        **params: Any,
    ) -> Result:
        """Run a study under a permit (the only one in force if none is named) and wait for it.

        Raises:
            IhdsError: the study was refused or failed, or waits for a site.

        """
        chosen = permit or self.only_permit()
        study = self.start(method, params, permit=chosen, purpose=purpose)
        return self.follow(study, report)

    def close(self) -> None:
        """Close the connections to the node."""
        self.http.close()

    def only_permit(self) -> str:
        """Return the only permit in force.

        Raises:
            SetupFailed: there is none, or more than one.
        """
        held = [p["permit"] for p in self.permits() if p["permit_state"] == "GRANTED"]
        if len(held) != 1:
            raise SetupFailed(f"{len(held)} permits are in force", remedy="name one: run(..., permit='urn:uuid:...')")
        return str(held[0])

    def start(self, method: str, params: dict[str, Any], **more: Any) -> str:
        """Start a study and return its id at once."""
        answer = self.call(
            "study.run", method=method, params=params, **{k: v for k, v in more.items() if v is not None}
        )
        return str(answer["study"])

    def resume(self, study: str, report: Report | None = None) -> Result:
        """Resume a study that waits or was paused, and wait for it."""
        self.call("study.run", resume=study)
        return self.follow(study, report)

    def follow(self, study: str, report: Report | None = None) -> Result:
        """Wait for a study, reporting each step."""
        last: dict[str, Any] = {}
        for step in self.steps(study):
            if report is not None:
                report(step)
            last = step
        if last.get("error"):
            raise from_dict(last["error"])
        shown = self.call("study.show", study=study)
        if shown["error"]:
            raise from_dict(shown["error"])
        if shown["result"] is None:
            raise PeerFailed(f"study {study} is {shown['status']}", remedy=f"ihds study run --resume {study}")
        return Result.from_dict(shown["result"])

    def steps(self, study: str) -> Iterator[dict[str, Any]]:
        """Yield a running study's steps as they happen."""
        after = 0
        while True:
            answer = self.call("study.steps", study=study, after=after)
            yield from answer["steps"]
            after += len(answer["steps"])
            if not answer["running"] and not answer["steps"]:
                return
            time.sleep(_POLL_SECONDS)

    def study(self, study: str) -> dict[str, Any]:
        """Return a study with its result."""
        return dict(self.call("study.show", study=study))


def _http() -> Http:
    return Http(timeout_seconds=120, allowed=("0.0.0.0/0", "::/0"))


def told_of(url: str, http: Http) -> NodeConfig:
    """Return what a node says of itself to whoever signs in. Raises PeerFailed."""
    told = http.get_json(f"{url}/people")
    words = (str(told["name"]), told["role"], str(told["country"]))
    return NodeConfig(*words, url, urlsplit(url).port or 443)
