"""Seven real nodes for the tests that need the whole: processes, HTTP, signatures, databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ihds.demo import COX, Nodes, build
from ihds.roles.simulated import APPLICATION, ASSESSOR, OFFICER

CRASHING = Path(__file__).parent / "crashing_node.py"
VANISHING = Path(__file__).parent / "vanishing_node.py"


class Space(Nodes):
    """Running nodes with the shortcuts the tests need."""

    def space(self, name: str):
        """Return one interface per node, closed at the end."""
        opened = self.__dict__.setdefault("opened", {})
        if name not in opened:
            opened[name] = super().space(name)
        return opened[name]

    def stop(self) -> None:
        super().stop()
        for space in self.__dict__.get("opened", {}).values():
            space.http.close()

    def permit(self, **conditions) -> str:
        """Apply and be granted."""
        return self.grant(self.apply()["application"], **conditions)

    def agreement(self) -> str:
        """Return the agreement of all institutions, signed by each the first time."""
        return self.__dict__.get("agreed") or self.__dict__.setdefault("agreed", self.agree())

    def apply(self, **changes) -> dict:
        datasets = [r["dataset"] for r in self.space("researcher").search("bladder")]
        asked = {"datasets": datasets, "agreement": self.agreement(), **APPLICATION, **changes}
        return self.space("researcher").apply(**asked)

    def entries(self, name: str) -> list[dict]:
        """Read a node's log from its database."""
        from ihds.roles.config import NodeConfig
        from ihds.store.store import Store

        folder = self.folder / name
        store = Store(NodeConfig.read(folder).store_url(folder))
        import json

        found = [json.loads(text) for text in store.read()]
        store.close()
        return found

    def kill(self, name: str) -> None:
        os.killpg(self.processes[name].pid, signal.SIGKILL)
        self.processes[name].wait()

    def start_crashing(self, name: str, mode: str) -> None:
        """Start a node that dies again and again: see crashing_node.py."""
        self._start(name, CRASHING, mode)

    def start_vanishing(self, name: str, method: str, last: int) -> None:
        """Start a node that dies once: see vanishing_node.py."""
        self._start(name, VANISHING, method, str(last))

    def _start(self, name: str, script: Path, *more: str) -> None:
        log = (self.folder / name / "node.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, str(script), str(self.folder / name), *more],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()


@contextmanager
def running(folder: Path, prepare: Callable[[Space], None] = lambda _nodes: None) -> Iterator[Space]:
    """Run six nodes; ``prepare`` changes their folders before they start."""
    made = build(folder)
    nodes = Space(made.folder, made.processes, made.configs)
    prepare(nodes)
    try:
        for name in nodes.configs:
            nodes.start(name)
        nodes.wait()
        yield nodes
    finally:
        nodes.stop()


__all__ = ["APPLICATION", "ASSESSOR", "COX", "OFFICER", "Space", "running"]
