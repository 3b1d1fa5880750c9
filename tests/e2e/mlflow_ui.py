"""A real MLflow server on loopback, and what its pages have plotted."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from sweep.report.mlflow import reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

SERVER_DB = "server.db"
READ_CURVES = """
const out = {};
for (const div of document.querySelectorAll('.js-plotly-plot')) {
  const title = div.layout?.yaxis?.title?.text ?? '';
  const lines = (div.data ?? []).filter(t => String(t.mode ?? '').includes('lines') && t.x && t.x.length);
  for (const t of lines) {
    (out[`${t.metricKey ?? title}`] ??= {})[t.name] = [Array.from(t.x), Array.from(t.y)];
  }
}
return out;
"""


@contextlib.contextmanager
def mlflow_server(folder: Path, store: str | None = None, patience_s: float = 90.0) -> Iterator[str]:
    """Its URL; the server and its workers end with the block. ``store`` is sqlite in the folder unless one is given."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    store = store or f"sqlite:///{folder}/{SERVER_DB}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", store, "--workers", "1"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=os.environ | quiet, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        wait_until(lambda: reachable(url, 1.0) is None, patience_s, lambda: (folder / "server.log").read_text()[-2000:])
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers are in its group
        process.wait()


def wait_until(ready: Callable[[], bool], seconds: float, told: Callable[[], str], every_s: float = 0.05) -> None:
    """Return once ``ready`` is true; fail with what ``told`` says after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, told()
        time.sleep(every_s)


def curves_shown(driver: Chrome, want: int) -> dict[str, Any]:
    """What both line charts have plotted, once each of them shows ``want`` lines."""
    drawn: dict[str, Any] = {}

    def ready() -> bool:
        drawn.clear()
        drawn.update(driver.execute_script(READ_CURVES))
        return len(drawn) == 2 and all(len(lines) == want for lines in drawn.values())

    wait_until(ready, 60.0, lambda: f"drawn so far: {drawn}")
    return drawn
