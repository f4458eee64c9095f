"""A user's studies that run elsewhere: asked of the environment that the permit names, followed, and fetched."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ihds.analysis.result import Result
from ihds.audit.log import Event
from ihds.canonical import digest
from ihds.errors import IhdsError, NotAuthenticated, PeerFailed, from_dict
from ihds.federation.runs import Run, RunState
from ihds.federation.study import asked
from ihds.ids import Did
from ihds.store.store import Put

if TYPE_CHECKING:
    from ihds.roles.node import Node

_POLL_SECONDS = 0.1


@dataclass
class Away:
    """Speaks with environments as one user. Every call may be repeated without harm."""

    node: Node

    def run(
        self,
        environment: Did,
        identifier: str,
        body: dict[str, Any],
        ways: dict[str, str],
        run: Run,
        max_rounds: int | None,
    ) -> Result | None:
        """Have a study run and wait for it; return its result, or None if it was paused.

        Raises:
            NotAuthenticated: a token of ``ways`` is no longer good.
            IhdsError: what the environment says of it.

        """
        found = self.node.log.get("study", identifier)
        if found is not None:  # received before a crash
            return Result.from_dict(found.body["result"])
        question = {name: body[name] for name in ("permit", "purpose", "method", "params", "person")}
        signed = self.node.signatures.sign(asked(identifier, **question))
        request = {**question, "asked": signed, "ways": ways, "max_rounds": max_rounds}
        run.report("environment", {"environment": environment})
        told = self._call("PUT", environment, identifier, request)
        seen = len(told["rounds"])
        while told["status"] == RunState.RUNNING:
            run.going()
            time.sleep(_POLL_SECONDS)
            told = self._call("GET", environment, f"{identifier}?after={seen}")
            for row in told["rounds"]:
                run.report("round", {"number": row["round"], **{k: row[k] for k in ("contribution", "bytes")}})
            seen += len(told["rounds"])
        return self._ended(environment, identifier, told)

    def _ended(self, environment: Did, identifier: str, told: dict[str, Any]) -> Result | None:
        if told["status"] == RunState.PAUSED:
            return None
        if told["error"]:
            raise from_dict(told["error"])
        result = told["result"]
        if told["status"] != RunState.FINISHED or not isinstance(result, dict):
            raise PeerFailed(f"the environment says that the study is {told['status']}", remedy="start a new study")
        claims = self.node.signatures.verify(str(told.get("signature", "")), environment)
        if (claims.get("study"), claims.get("result")) != (identifier, digest(result)):
            raise NotAuthenticated("the result is not the one that the environment signed")
        details = {"permit": claims.get("permit"), "study": identifier, "result": digest(result)}
        provenance = {**result["provenance"], "environment": environment, "signature": told["signature"]}
        kept = {**result, "provenance": provenance}
        body = {"study": told["definition"], "status": told["status"], "result": kept}
        event = Event("study.received", environment, details)
        self.node.log.commit(event, Put("study", identifier, 0, body))
        with contextlib.suppress(IhdsError):  # it is kept there until it is asked to forget it
            self.end(environment, identifier)
        return Result.from_dict(kept)

    def end(self, environment: Did, identifier: str) -> None:
        """Have the environment forget a study: cancelled if it runs, received if it has finished."""
        self._call("DELETE", environment, identifier)

    def _call(self, method: str, environment: Did, path: str, body: Any = None) -> dict[str, Any]:
        service = self.node.resolver.service(environment, "SecureEnvironment")
        token = self.node.wallet.token(environment)
        return self.node.http.call(method, f"{service}/studies/{path}", body, token)
