"""A loopback server that answers JSON posts as a test tells it to."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Takes the body of a request, gives status and body of the answer; text instead of a value is sent as a page
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[ThreadingHTTPServer]:
    """A server that is up within the block; ``server_port`` is its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            status, value = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            sent = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(value, str) else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            # the client waits as long as it is told, and half a second and more otherwise
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
