"""``python -m sweep.mps FOLDER``: the watcher of a daemon of our own; ends it once the other end of stdin is gone."""

from __future__ import annotations

import sys
from pathlib import Path

from sweep.mps import daemon

if __name__ == "__main__":
    sys.stdin.buffer.read()
    daemon.end(Path(sys.argv[1]))
