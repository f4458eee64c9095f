"""A holder's study endpoint: carries messages of a study to its gate, for whoever shows the token of its transfer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.routing import Route

from ihds.federation.gate import Threshold
from ihds.federation.round import MAX_STEP, STEPS
from ihds.wire.jose import MAX_STATEMENT
from ihds.wire.serve import MAX_BODY, MAX_JSON, Answer, Call, Handler, endpoint, octets


@dataclass(frozen=True)
class Endpoint:
    """Carries messages to ``gate``; ``transfer`` returns the transfer of a call, or raises.

    ``known`` tells by the transfer's token alone whether a large body is worth reading: what an environment
    shows is good for one look.
    """

    gate: Threshold
    known: Callable[[Call], object]
    transfer: Callable[[Call], str]

    def routes(self) -> list[Route]:
        """Return the paths below the address that a started transfer tells."""
        steps = [(f"/{{id}}/{name}", self._step(name), "POST", MAX_STEP) for name in STEPS]
        paths: list[tuple[str, Handler, str, int]] = [
            ("", self._open, "POST", 2 * MAX_STATEMENT),
            ("/{id}/holders", self._join, "POST", MAX_JSON),
            ("/{id}/rounds", self._round, "POST", MAX_BODY),
            *steps,
            ("/{id}", self._close, "DELETE", MAX_JSON),
        ]
        return [
            Route(f"/data/studies{path}", endpoint(handler, max_body=limit, before=self._known), methods=[method])
            for path, handler, method, limit in paths
        ]

    def _known(self, call: Call) -> Answer:
        self.known(call)
        return Answer()

    def _open(self, call: Call) -> Answer:
        transfer = self.transfer(call)
        return Answer({"announcement": self.gate.open(str(call.json().get("study", "")), transfer)}, status=201)

    def _join(self, call: Call) -> Answer:
        announced = {str(k): str(v) for k, v in call.json().items()}
        return octets(self.gate.join(call.path["id"], self.transfer(call), announced))

    def _round(self, call: Call) -> Answer:
        return octets(self.gate.answer(call.path["id"], self.transfer(call), call.body))

    def _step(self, name: str) -> Handler:
        return lambda call: octets(self.gate.step(call.path["id"], self.transfer(call), name, call.body))

    def _close(self, call: Call) -> Answer:
        self.gate.close(call.path["id"], self.transfer(call))
        return Answer({})
