"""What each container backend runs: image, arguments, mounts, secrets. Nothing here talks to Docker.

NVIDIA's images (``nim``, ``vllm``) were not run where this was written: no GPU, and no access to their registry.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract, weights_digest
from scripts.common.errors import UserError
from scripts.common.files import sha256_file, sha256_text
from scripts.deploy.limits import Limits
from scripts.deploy.service import READY, STOP_SECONDS

# Where our image and vLLM's expect the model
MODEL = "/model"
PULL = "Fetch it: `docker login nvcr.io` (user $oauthtoken, your NGC key as password), then `docker pull {image}`."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A container to run.

    Attributes:
        image: Its image.
        command: Arguments of the image's entry point.
        environment: Variables that are no secret.
        secrets: Variables of the container by the names of ours that hold their values.
        volumes: Folder here to folder there and ``ro`` or ``rw``.
        port: What it listens on inside.
        gpus: ``all``, a number, or ``device=ID[,ID]``; ``0`` asks for none.
        user: Who it runs as.
        locked: Read-only file system and no privileges; our own image needs neither.
        health_path: Answers 200 once the service is ready.
        missing: What to do when the image is not here.
        stop_seconds: Time from SIGTERM on, before it is killed.
    """

    image: str
    command: tuple[str, ...] = ()
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    secrets: dict[str, str] = dataclasses.field(default_factory=dict)
    volumes: dict[str, tuple[str, str]] = dataclasses.field(default_factory=dict)
    port: int = 8000
    gpus: str = "0"
    user: str = "root"
    locked: bool = False
    health_path: str = READY
    missing: str = PULL
    stop_seconds: int = STOP_SECONDS


def recipe(
    options: dict[str, Any], *, model_dir: Path, name: str | None, contract: Contract | None, threads: int
) -> Recipe:
    """The container of ``deploy.backend``.

    Args:
        options: Section ``deploy`` of the configuration.
        model_dir: Folder with the model, mounted read-only.
        name: Name the service answers to; ``None`` leaves it to NVIDIA's image.
        contract: The model's contract, where there is one.
        threads: Threads of our own server.
    """
    model = str(model_dir.resolve())
    if options["backend"] == "container":
        limits = Limits(**options["limits"])
        arguments = [f"--name={name}", f"--threads={threads}", *limits.arguments()]
        key = options["api_key_env"]
        return Recipe(
            image=options["server_image"],
            command=(*arguments, *([f"--api-key-env={key}"] if key else [])),
            secrets={key: key} if key else {},
            volumes={model: (MODEL, "ro")},
            user=f"{os.getuid()}:{os.getgid()}",
            locked=True,
            stop_seconds=limits.stop_seconds,
        )
    if options["backend"] == "vllm":
        lengths = (contract.query_max_length, contract.passage_max_length) if contract else ()
        key = options["api_key_env"]
        return Recipe(
            image=options["vllm_image"],
            command=(
                *("vllm", "serve", MODEL, "--served-model-name", str(name), "--runner", "pooling"),
                *("--host", "0.0.0.0", "--port", str(options["container_port"])),  # noqa: S104, inside the container
                *(("--max-model-len", str(max(lengths))) if lengths else ()),
                *(("--trust-remote-code",) if contract and contract.trust_remote_code else ()),
            ),
            environment={"HF_HUB_OFFLINE": "1"},
            secrets={"VLLM_API_KEY": key} if key else {},
            volumes={model: (MODEL, "ro"), str(cache_folder("vllm")): ("/root/.cache", "rw")},
            port=options["container_port"],
            gpus=options["gpus"],
            health_path="/health",
        )
    environment = {"NIM_CUSTOM_MODEL": options["container_model_path"]}
    if name:
        environment["NIM_SERVED_MODEL_NAME"] = name
    return Recipe(
        image=options["nim_image"],
        environment=environment,
        secrets={"NGC_API_KEY": options["ngc_api_key_env"]},
        volumes={
            model: (options["container_model_path"], "ro"),
            str(cache_folder("nim")): (options["container_cache_path"], "rw"),
        },
        port=options["container_port"],
        gpus=options["gpus"],
    )


def model_digest(folder: Path, *, plan: bool) -> str:
    """Digest of what a container serves from a folder; :class:`UserError` when there is nothing to serve."""
    if not folder.is_dir():
        raise UserError(
            f"model folder {folder} does not exist. Run `snakemake --until export` first (deploy.model_dir)."
        )
    if not plan:
        return weights_digest(folder)
    plans = sorted([*folder.glob("*.plan"), *folder.glob("*.engine")])
    if not plans:
        raise UserError(
            f"model folder {folder} has no TensorRT plan. Set export.export_to_trt=true and run `snakemake --until "
            "export`, or set deploy.use_onnx=true."
        )
    return sha256_text("\n".join(f"{path.name} {sha256_file(path)}" for path in plans))


def cache_folder(name: str) -> Path:
    """An image's cache on this machine, made when it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()
