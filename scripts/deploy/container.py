"""Backend ``nim``: NVIDIA's container, through the Docker Engine's own interface.

The image was not run where this was written (no GPU, no access to its registry); everything else here was, against a
real Docker Engine with an image of our own.
"""

import os
from pathlib import Path
from typing import Any

from scripts.common.contract import weights_digest
from scripts.common.errors import UserError
from scripts.common.files import sha256_file, sha256_text
from scripts.common.job import log
from scripts.deploy.address import address
from scripts.deploy.service import TAIL_LINES, Service

# Containers without this label are somebody else's and are never touched. Its value is the deployment record.
LABEL = "embed-recipe.deployment"
# What the image reads; the user's variable may have another name (deploy.ngc_api_key_env)
KEY_VARIABLE = "NGC_API_KEY"
STOP_SECONDS = 30


def container_arguments(
    options: dict[str, Any], *, model_dir: Path, cache_dir: Path, record_file: Path
) -> dict[str, Any]:
    """Arguments of ``docker.containers.create``; the key is no part of them.

    Args:
        options: Section ``deploy`` of the configuration.
        model_dir: Folder with the model, mounted read-only.
        cache_dir: The container's cache on this machine.
        record_file: ``deployment.json``, which marks the container as ours.
    """
    environment = {"NIM_CUSTOM_MODEL": options["container_model_path"]}
    if options["served_model_name"]:
        environment["NIM_SERVED_MODEL_NAME"] = options["served_model_name"]
    return {
        "image": options["nim_image"],
        "name": options["container_name"],
        "user": "root",
        "shm_size": options["shm_size"],
        "ports": {f"{options['container_port']}/tcp": (options["host"], options["host_port"])},
        "volumes": {
            str(model_dir.resolve()): {"bind": options["container_model_path"], "mode": "ro"},
            str(cache_dir.resolve()): {"bind": options["container_cache_path"], "mode": "rw"},
        },
        "environment": environment,
        "device_requests": gpu_requests(options["gpus"]),
        "labels": {LABEL: str(record_file.resolve())},
    }


def gpu_requests(gpus: str) -> list[dict[str, Any]]:
    """``all``, a number or ``device=ID[,ID]`` as Docker's device requests; ``0`` asks for none."""
    if gpus.startswith("device="):
        request: dict[str, Any] = {"DeviceIDs": gpus.removeprefix("device=").split(",")}
    elif gpus == "0":
        return []
    else:
        request = {"Count": -1 if gpus == "all" else int(gpus)}
    return [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, **request}]


def docker_command(arguments: dict[str, Any], gpus: str) -> list[str]:
    """The ``docker run`` line that does the same, for the hand-off record; the key appears by name alone."""
    command = ["docker", "run", "-d", "--name", arguments["name"], "--gpus", gpus, "--shm-size", arguments["shm_size"]]
    command += ["-u", arguments["user"]]
    for port, (host, host_port) in arguments["ports"].items():
        command += ["-p", f"{host}:{host_port}:{port.removesuffix('/tcp')}"]
    command += ["-e", KEY_VARIABLE]
    for name, value in arguments["environment"].items():
        command += ["-e", f"{name}={value}"]
    for source, mount in arguments["volumes"].items():
        command += ["-v", f"{source}:{mount['bind']}:{mount['mode']}"]
    return [*command, arguments["image"]]


def model_digest(folder: Path, *, use_onnx: bool) -> str:
    """Digest of what the container serves from a folder; :class:`UserError` when there is nothing to serve."""
    if not folder.is_dir():
        raise UserError(
            f"model folder {folder} does not exist. Run `snakemake --until export` first (deploy.model_dir)."
        )
    if use_onnx:
        return weights_digest(folder)
    plans = sorted([*folder.glob("*.plan"), *folder.glob("*.engine")])
    if not plans:
        raise UserError(
            f"model folder {folder} has no TensorRT plan. Set export.export_to_trt=true and run `snakemake --until "
            "export`, or set deploy.use_onnx=true."
        )
    return sha256_text("\n".join(f"{path.name} {sha256_file(path)}" for path in plans))


def cache_folder() -> Path:
    """NIM's cache on this machine, made when it is not there."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nim"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Container(Service):
    """A container of the NIM image."""

    def __init__(self, options: dict[str, Any], *, model_dir: Path, record_file: Path) -> None:
        self.arguments = container_arguments(
            options, model_dir=model_dir, cache_dir=cache_folder(), record_file=record_file
        )
        self.url = address(options["host"], options["host_port"])
        self.command = docker_command(self.arguments, options["gpus"])
        self.log_name = f"docker logs {options['container_name']}"
        self._key_variable = options["ngc_api_key_env"]
        self._remove = options["remove_on_exit"]
        self._container: Any = None

    def check(self) -> None:
        """See :meth:`Service.check`: engine, image, and that no container of somebody else has the name."""
        import docker.errors

        image = self.arguments["image"]
        try:
            connect().images.get(image)
        except docker.errors.ImageNotFound as error:
            raise UserError(
                f"image {image} is not on this machine. Fetch it: `docker login nvcr.io` (user $oauthtoken, your NGC "
                f"key as password), then `docker pull {image}`."
            ) from error
        self._leftover()

    def _leftover(self) -> Any | None:
        """A container of ours that has the name; :class:`UserError` when it is not ours."""
        import docker.errors

        name = self.arguments["name"]
        try:
            present = connect().containers.get(name)
        except docker.errors.NotFound:
            return None
        if not is_ours(present, self.arguments["labels"][LABEL]):
            raise UserError(
                f"there is a container {name} that this deployment did not start; it is left alone. Set "
                f"deploy.container_name to another name, or remove it yourself (`docker rm -f {name}`)."
            )
        return present

    def start(self) -> dict[str, Any]:
        """See :meth:`Service.start`; :class:`UserError` when Docker refuses, with what that means."""
        import docker.errors

        key = os.environ.get(self._key_variable)
        if not key:
            log.warning("%s is not set: an image that has to fetch something from NGC will fail", self._key_variable)
        leftover = self._leftover()
        if leftover:
            remove(leftover)
        environment = self.arguments["environment"] | ({KEY_VARIABLE: key} if key else {})
        try:
            self._container = connect().containers.create(**{**self.arguments, "environment": environment})
            self._container.start()
        except docker.errors.APIError as error:
            self.stop()
            raise UserError(explain(error.explanation or str(error), self.arguments["image"])) from None
        return {"container_id": self._container.id, "container_name": self.arguments["name"]}

    def ended(self) -> str | None:
        """See :meth:`Service.ended`."""
        import docker.errors

        try:
            self._container.reload()
        except docker.errors.NotFound:
            return "the container was removed"
        if self._container.status in {"created", "running", "restarting"}:
            return None
        return f"the container {self._container.status} with exit code {self._container.attrs['State']['ExitCode']}"

    def log_tail(self) -> str:
        """See :meth:`Service.log_tail`; the key is blotted out should the image print it."""
        text = self._container.logs(tail=TAIL_LINES).decode(errors="replace") if self._container else ""
        key = os.environ.get(self._key_variable)
        return (text.replace(key, "***") if key else text).strip()

    def stop(self) -> None:
        """See :meth:`Service.stop`; the container is removed too, unless ``deploy.remove_on_exit`` is false."""
        if self._container:
            remove(self._container, keep=not self._remove)


def explain(message: str, image: str) -> str:
    """What Docker's refusal to start a container means for the user."""
    if "could not select device driver" in message or "nvidia-container" in message:
        return (
            f"Docker has no GPU to give to the container ({message}). Install the NVIDIA driver and the NVIDIA "
            "Container Toolkit and restart Docker, or serve without a GPU: deploy.backend=onnx."
        )
    return f"Docker cannot start {image}: {message}"


def connect() -> Any:
    """A client of the Docker Engine; :class:`UserError` when there is none."""
    import docker
    import docker.errors

    try:
        return docker.from_env()
    except docker.errors.DockerException as error:
        raise UserError(
            f"the Docker Engine does not answer ({error}). Start it (or set DOCKER_HOST), or serve without a "
            "container: deploy.backend=onnx."
        ) from error


def is_ours(container: Any, record_file: str) -> bool:
    """Whether the deployment of this record file made the container."""
    return container.labels.get(LABEL) == record_file


def find_container(record: dict[str, Any], record_file: Path) -> Any | None:
    """The container of a deployment record, if it is still there and ours."""
    import docker.errors

    try:
        container = connect().containers.get(record["container_id"])
    except docker.errors.NotFound:
        return None
    return container if is_ours(container, str(record_file.resolve())) else None


def remove(container: Any, *, keep: bool = False) -> None:
    """Stop a container, giving it time, and remove it unless ``keep``; it may be gone already."""
    import docker.errors

    try:
        container.stop(timeout=STOP_SECONDS)
        if not keep:
            container.remove(force=True)
    except docker.errors.NotFound:
        pass
