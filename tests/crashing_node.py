"""Run a node that is killed with SIGKILL at every transaction, and started again at once.

Mode "after": each life ends right after its first commit, before anything follows from it.
Mode "before": each life ends right before its second or, every third life, before its third commit, so
what it did since the last (a message sent, a round answered) is done but not written down. Were it
always the second, a row that comes first in every life could starve the one after it for ever.
A parent process imports everything once and forks a child per life.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import uvicorn

import ihds.roles.access_body
import ihds.roles.environment
import ihds.roles.holder
import ihds.roles.studies
import ihds.roles.user  # noqa: F401 - imported once, before the forks
from ihds.federation.opt_outs import LIST
from ihds.roles.node import Node
from ihds.store.store import Store

#: Written by clocks, also at every start: logs that were looked at, lists of opt-outs. They would take every life.
BY_CLOCK = ("witness", LIST)


def live(folder: Path, mode: str, number: int) -> None:
    plain = Store.transact
    count, last = 0, 3 if number % 3 == 0 else 2

    def dying(self, puts, append):
        nonlocal count
        if any(put.kind in BY_CLOCK for put in puts):
            plain(self, puts, append)
            return
        count += 1
        if mode == "before" and count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, puts, append)
        if mode == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    Store.transact = dying  # type: ignore[method-assign]
    node = Node(folder)
    uvicorn.run(node.app(), host=node.config.host, port=node.config.port, log_level="warning")


def main() -> None:
    folder, mode = Path(sys.argv[1]), sys.argv[2]
    lives = folder / "lives"
    number = 0
    while True:
        number += 1
        child = os.fork()
        if child == 0:
            live(folder, mode, number)
            os._exit(0)
        lives.with_suffix(".new").write_text(str(number))
        lives.with_suffix(".new").replace(lives)
        os.waitpid(child, 0)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
