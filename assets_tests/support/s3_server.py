"""An object store on 127.0.0.1 that keeps its objects in memory; run as a script, told what to do on its standard input.

It is moto's S3, one request at a time: moto looks and writes in two steps, and two conditional writes at once could both win.
"""

from __future__ import annotations

import logging
import sys
import threading

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

HOST = "127.0.0.1"


def main() -> None:
    """Prints its port; then `down` makes it refuse connections, `up` makes it serve again with all it had, as does the start."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()
    requests = 0

    def app(environ, start_response):
        nonlocal requests
        with one_at_a_time:
            requests += 1
            return list(moto(environ, start_response))

    server, port = None, 0
    for line in _lines():
        command = line.strip()
        if command == "up" and server is None:
            server = make_server(HOST, port, app, threaded=True)
            port = server.server_port
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        elif command == "down" and server is not None:
            server.shutdown()
            server.server_close()
            server = None
        print(requests if command == "count" else port, flush=True)


def _lines():
    yield "up"
    yield from iter(sys.stdin.readline, "")


if __name__ == "__main__":
    main()
