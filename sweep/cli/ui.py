"""Serve MLflow's pages over the published records, until Ctrl-C.

The store is that of the sweeps: --uri, else MLFLOW_TRACKING_URI, else sqlite in the results folder. If that is an
MLflow server, open its own pages instead. While it runs, sweeps print links with its host and port.

Exit codes: 0 or 130 the user stopped it; 2 the command is wrong, nothing is published there, or the port is taken.

Example:
  sweep ui results --port 5001
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

from sweep.cli import arguments
from sweep.errors import ConfigError
from sweep.report.mlflow import (
    announce,
    free_port,
    is_http,
    reachable,
    resolve_uri,
    sqlite_path,
    ui_address,
    without_password,
)
from sweep.system import command_line

if TYPE_CHECKING:
    import argparse
    from typing import NoReturn

_MAX_PORT = 65535
_ENVIRONMENT = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    arguments.add_results(parser)
    parser.add_argument("--uri", help="MLflow's store [MLFLOW_TRACKING_URI, else sqlite in the results folder]")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at [127.0.0.1]")
    parser.add_argument(
        "--port", type=arguments.count, metavar="N", help="port to serve at [5000, or the next free one]"
    )


def run(options: argparse.Namespace) -> NoReturn:
    """Replace this process by MLflow's server.

    Raises:
        ConfigError: if there is nothing to serve, or the address is taken.
    """
    uri = resolve_uri(options.uri, options.results)
    if is_http(uri):
        raise ConfigError(f"the records are on a server already: open {without_password(uri)}")
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        publish = command_line.format_command("publish", *command_line.results_words(options.results))
        raise ConfigError(f"{path} is not there: nothing has been published; run `{publish}` first")
    problem = None if path is None else reachable(uri)
    if problem is not None:
        raise ConfigError(f"the store cannot be served: {problem}")
    served = ui_address(uri)
    if options.port is None and served.port is None:
        raise ConfigError(f"the store is served already: open {served.url}, or name another --port")
    port = options.port or free_port()
    _check_address(options.host, port)
    announce(uri, options.host, port)
    words = ["--backend-store-uri", uri, "--host", options.host, "--port", str(port), "--workers", "1"]
    os.execve(sys.executable, [sys.executable, "-m", "mlflow", "server", *words], {**os.environ, **_ENVIRONMENT})  # noqa: S606 - no shell


def _check_address(host: str, port: int) -> None:
    """Raise ConfigError if a server could not listen at ``host`` and ``port``."""
    if port > _MAX_PORT:
        raise ConfigError(f"--port {port}: give 1 to {_MAX_PORT}")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise ConfigError(f"cannot serve at {host}:{port}: {error.strerror}; name another --port or --host") from error
