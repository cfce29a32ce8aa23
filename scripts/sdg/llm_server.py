"""Serve the bundled generator with llama.cpp on loopback, for as long as the workflow needs it.

Snakemake starts this as a service and ends it with SIGTERM. It also ends by itself when its parent is gone, so nothing
stays behind after ``kill -9`` either.
"""

import argparse
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from scripts.common.files import write_json


def serve(*, model: Path, address_file: Path, name: str, port: int, parallel: int, context: int, threads: int) -> None:
    """Serve ``model`` until the process ends; ``address_file`` appears when the server answers.

    Args:
        model: GGUF file.
        address_file: JSON with ``base_url`` and ``pid``; consumers wait for it.
        name: Name the model answers to.
        port: Port on 127.0.0.1; 0 takes a free one.
        parallel: Requests worked on at once.
        context: Tokens of one request.
        threads: Threads that compute.
    """
    import xllamacpp

    if port and _in_use(port):
        raise SystemExit(f"port {port} is in use. Set llm.local.port to another one, or to 0 for any free port.")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.model_alias = {name}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = parallel
    params.n_ctx = context * parallel
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = 0
    server = xllamacpp.Server(params)
    write_json(address_file, {"base_url": f"{server.listening_address}/v1", "pid": os.getpid()})
    parent = os.getppid()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.5) and os.getppid() == parent:
        pass
    # llama.cpp's threads do not end with the interpreter; nothing is left to flush
    sys.stdout.flush()
    os._exit(0)


def _in_use(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--address-file", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    serve(**vars(parser.parse_args()))
