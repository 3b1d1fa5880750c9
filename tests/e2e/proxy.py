"""A real HTTP proxy in front of a real MLflow server, which can be slow, answer 500, or call back at a request."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def nothing(_: int) -> None:
    """Nothing to do at a request."""


@dataclass
class Behaviour:
    """What the proxy does to requests for MLflow's API.

    Attributes:
        delay_s: before each is passed on.
        broken_after: how many are passed on before all are answered by 500; None for all.
        at: called with the number of each, from 1, before it is passed on.
        seen: how many there were.
    """

    delay_s: float = 0.0
    broken_after: int | None = None
    at: Callable[[int], None] = nothing
    seen: int = field(default=0)


@contextlib.contextmanager
def proxy(target: str, behaviour: Behaviour) -> Iterator[str]:
    """The URL of a proxy to ``target`` that lives as long as the block."""
    netloc, lock = urlsplit(target).netloc, threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path != "/health":
                with lock:
                    behaviour.seen += 1
                    number = behaviour.seen
                behaviour.at(number)
                time.sleep(behaviour.delay_s)
                if behaviour.broken_after is not None and number > behaviour.broken_after:
                    self._answer(500, {}, b'{"error_code": "INTERNAL_ERROR", "message": "the disk is full"}')
                    return
            connection = http.client.HTTPConnection(netloc, timeout=30)
            try:
                connection.request(self.command, self.path, body, {**self.headers, "Host": netloc})
                found = connection.getresponse()
                self._answer(found.status, dict(found.getheaders()), found.read())
            except OSError:
                self.close_connection = True  # as the server's own end would look
            finally:
                connection.close()

        do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that http.server looks for

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name in ("Content-Type", "Location"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
