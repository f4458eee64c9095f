"""Run a node that is killed once: when its gate is asked a question for the n-th time. Arguments: folder, method, n."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import uvicorn

from ihds.federation.gate import Gate
from ihds.roles.node import Node


def main() -> None:
    folder, method, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    plain, count = getattr(Gate, method), 0

    def dying(self, *asked):
        nonlocal count
        if method == "answer" or asked[2] == "confirm":
            count += 1
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, *asked)

    setattr(Gate, method, dying)
    node = Node(folder)
    uvicorn.run(node.app(), host=node.config.host, port=node.config.port, log_level="warning")


if __name__ == "__main__":
    main()
