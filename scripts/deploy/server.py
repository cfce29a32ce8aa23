"""The embeddings service on ONNX Runtime: needs the exported folder, no GPU, no container, no PyTorch.

    python -m scripts.deploy.server --model-dir output/embed/stage4_export/onnx --port 8000 --name my-model

It listens on loopback unless told otherwise; with ``--api-key-env NAME`` callers must send the key of that environment
variable. Texts are never logged. SIGTERM lets requests under way finish: the longest takes --body-seconds and
--request-seconds, so give it that long before a SIGKILL.
"""

import argparse
import dataclasses
import os
import signal
import sys
from pathlib import Path

from scripts.common.encoder import open_encoder
from scripts.common.errors import UserError
from scripts.common.job import log, log_to, set_threads
from scripts.common.llm import read_key
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.deploy.address import address, listen
from scripts.deploy.limits import DEFAULT_LIMITS, Limits

# Connections that may wait to be taken
BACKLOG = 2048


def serve(
    *, model_dir: Path, host: str, port: int, name: str, api_key: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Serve the model of a folder until SIGTERM or SIGINT.

    Args:
        model_dir: Exported folder with ``model.onnx``, ``tokenizer.json`` and ``contract.json``.
        host: Address to listen on.
        port: Port; 0 takes a free one.
        name: Name the model answers to.
        api_key: Key that callers must send, or ``None`` for everybody.
        limits: What the server takes on.

    Raises:
        UserError: The port is taken, or the folder holds no sound export.
    """
    from scripts.deploy.api import create_app
    from scripts.deploy.http_server import Server

    for number in (signal.SIGTERM, signal.SIGINT):
        # while the model loads; afterwards the server drains first and then raises the signal again
        signal.signal(number, lambda *_: sys.exit(0))
    with listen(host, port) as socket:
        encoder = open_encoder(model_dir / "contract.json")
        if not isinstance(encoder, OnnxEncoder):
            raise UserError(f"{model_dir} is no ONNX export: serve the folder that `snakemake --until export` writes.")
        app = create_app(encoder, name, api_key=api_key, limits=limits)
        server = Server(app, header_seconds=limits.header_seconds, drain_seconds=limits.drain_seconds)
        # from the message on, connections wait instead of being refused
        socket.listen(BACKLOG)
        log.info("serving %s at %s", name, address(host, socket.getsockname()[1]))
        server.run(sockets=[socket])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-dir", type=Path, required=True, help="exported folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for a free one (%(default)s)")
    parser.add_argument("--name", required=True, help="name the model answers to")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that compute (%(default)s)")
    parser.add_argument("--api-key-env", help="environment variable with the key that callers must send")
    for field in dataclasses.fields(Limits):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default, help="%(default)s unless given")
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    with log_to(None, "server"):
        serve(
            model_dir=arguments.model_dir,
            host=arguments.host,
            port=arguments.port,
            name=arguments.name,
            api_key=read_key(arguments.api_key_env),
            limits=Limits(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(Limits)}),
        )


if __name__ == "__main__":
    main()
