"""Run a node that also knows the benchmark's own method."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import vector

from ihds.analysis import method
from ihds.cli import main

method.methods()["vector"] = vector  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(main(["node", "run", sys.argv[1]]))
