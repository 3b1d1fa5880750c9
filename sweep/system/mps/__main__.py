"""Watch an MPS daemon that sweep started, and end it once the other end of stdin is closed."""

from __future__ import annotations

import sys
from pathlib import Path

from sweep.system.mps import daemon

if __name__ == "__main__":
    sys.stdin.buffer.read()
    daemon.end(Path(sys.argv[1]))
