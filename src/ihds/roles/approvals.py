"""A person of a holder looks at studies: what each would take from here, and whether it may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ihds.analysis.plan import Plan
from ihds.errors import BadInput, NotFound, Refused
from ihds.federation import promises
from ihds.federation.gate import Gate
from ihds.privacy.disclosure import Thresholds

if TYPE_CHECKING:
    from ihds.data.codebook import Codebook
    from ihds.roles.node import Command, Node
    from ihds.roles.relay import Relay


@dataclass
class Approvals:
    """The studies of one holder whose rows are its own, not a worker's."""

    node: Node
    gate: Gate

    def commands(self) -> dict[str, Command]:
        """Return the data engineer's commands."""
        return {
            "studies": lambda _a: self.studies(),
            "study.preview": self.preview,
            "study.approve": self.approve,
            "study.decline": self.decline,
            "study.budget": lambda _a: self.budget(),
        }

    def studies(self) -> list[dict[str, Any]]:
        """Return all studies that came here."""
        return [
            {
                "study": r.id,
                "method": r.body["study"]["method"],
                "user": r.body["study"]["user"],
                "round": r.body["round"],
                "state": "closed" if r.body["closed"] else "open" if r.body["approved"] else "waits for approval",
            }
            for r in self.node.store.list("gate.study")
        ]

    def budget(self) -> list[dict[str, Any]]:
        """Return what noisy studies may still tell of the persons here, and of each permit that was charged."""
        self._must_hold_rows()
        return promises.left(self.node.log, self.gate.promises)

    def preview(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return what a study would take from here: one that came, by its id, or one that somebody thinks of.

        Raises:
            NotFound: there is no such study or dataset here.
            BadInput: neither a study nor one dataset is named.
            Refused: the rows lie with a worker in an inner zone.

        """
        self._must_hold_rows()
        identifier = str(arguments.get("study") or "")
        if identifier:
            seen = self.gate.preview(identifier)
            record = self.node.log.get("gate.study", identifier)
            assert record is not None
            study = record.body["study"]
            asked = {name: study[name] for name in ("user", "permit", "purpose", "params", "holders")}
            return {**seen.to_dict(), **asked, "study": identifier, "approved": record.body["approved"]}
        held = [d.id for d in self.node.config.datasets if not d.file]
        dataset = str(arguments.get("dataset") or (held[0] if len(held) == 1 else ""))
        if not dataset:
            raise BadInput("this node holds several datasets", remedy=f"name one: --dataset {' or '.join(held)}")
        book = self.gate.source.codebook(dataset)
        limits = self.gate.limits(dataset, self.node.config.legal_regime, Thresholds())
        params = dict(arguments.get("params") or {})
        plan = Plan(str(arguments.get("method", "")), params, book, limits, 1)
        seen = self.gate.preview_of(plan, dataset, frozenset(book.variables), limits)
        return {**seen.to_dict(), "params": params, "dataset": dataset}

    def approve(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Let a study go on that waited for a person."""
        self._must_hold_rows()
        self.gate.approve(str(arguments["study"]))
        return {"study": str(arguments["study"]), "state": "open"}

    def decline(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """End a study here; its user is told so when it asks again."""
        self._must_hold_rows()
        record = self.node.log.get("gate.study", str(arguments["study"]))
        if record is None:
            raise NotFound(f"no study {arguments['study']} here", remedy="ihds study list")
        self.gate.close(record.id, record.body["transfer"])
        return {"study": record.id, "state": "closed"}

    def versions(self, dataset: str, relay: Relay | None) -> None:
        """Check that the data space approved what a study on a dataset would use, where it says it must.

        Raises:
            Refused: codebook or rules are not approved.
            CannotVerify: that cannot be learnt now.

        """

        def book() -> Codebook:
            return relay.described()[dataset][0] if relay else self.gate.source.codebook(dataset)

        if reasons := self.node.trust.unapproved(book):
            raise Refused("what this study would use is not approved", reasons=reasons, remedy="ihds committee list")

    def _must_hold_rows(self) -> None:
        if self.node.config.worker:
            raise Refused("the rows lie with a worker in an inner zone", remedy="look at the study there")
