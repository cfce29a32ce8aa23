"""Backends in containers (``container``, ``nim``, ``vllm``), through the Docker Engine's own interface.

Only containers with our label are ever stopped or removed.
"""

import os
import shlex
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.job import log
from scripts.deploy.address import address
from scripts.deploy.build import ensure_image
from scripts.deploy.images import Recipe
from scripts.deploy.service import TAIL_LINES, Service

# Containers without this label are somebody else's and are never touched. Its value is the deployment record.
LABEL = "embed-recipe.deployment"


def container_arguments(recipe: Recipe, options: dict[str, Any], record_file: Path) -> dict[str, Any]:
    """Arguments of ``docker.containers.create``; secrets are no part of them.

    Args:
        recipe: What is to run.
        options: Section ``deploy`` of the configuration.
        record_file: ``deployment.json``, which marks the container as ours.
    """
    locked = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"], "tmpfs": {"/tmp": ""}}  # noqa: S108
    return {
        "image": recipe.image,
        "name": options["container_name"],
        "command": list(recipe.command) or None,
        "user": recipe.user,
        "shm_size": options["shm_size"],
        "ports": {f"{recipe.port}/tcp": (options["host"], options["host_port"])},
        "volumes": {source: {"bind": target, "mode": mode} for source, (target, mode) in recipe.volumes.items()},
        "environment": dict(recipe.environment),
        "device_requests": gpu_requests(recipe.gpus),
        "labels": {LABEL: str(record_file.resolve())},
        **(locked if recipe.locked else {}),
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


def docker_command(arguments: dict[str, Any], recipe: Recipe) -> list[str]:
    """The ``docker run`` line that does the same, for the hand-off record; secrets appear by name alone."""
    command = ["docker", "run", "-d", "--name", arguments["name"], "--shm-size", arguments["shm_size"]]
    command += ["-u", arguments["user"]]
    # without it the container would be somebody else's to `undeploy`
    command += [f"--label={name}={value}" for name, value in arguments["labels"].items()]
    command += ["--stop-timeout", str(recipe.stop_seconds)]
    if recipe.gpus != "0":
        # Docker reads the value as a line of CSV
        command += ["--gpus", f'"{recipe.gpus}"' if "," in recipe.gpus else recipe.gpus]
    if recipe.locked:
        command += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp"]
    for port, (host, host_port) in arguments["ports"].items():
        command += ["-p", f"{host}:{host_port}:{port.removesuffix('/tcp')}"]
    for name in recipe.secrets:
        command += ["-e", name]
    for name, value in arguments["environment"].items():
        command += ["-e", f"{name}={value}"]
    for source, mount in arguments["volumes"].items():
        command += ["-v", f"{source}:{mount['bind']}:{mount['mode']}"]
    return [*command, arguments["image"], *recipe.command]


class Container(Service):
    """A container of a recipe."""

    def __init__(self, recipe: Recipe, options: dict[str, Any], *, record_file: Path) -> None:
        self.recipe = recipe
        self.arguments = container_arguments(recipe, options, record_file)
        self.url = address(options["host"], options["host_port"])
        self.health_path = recipe.health_path
        self.command = docker_command(self.arguments, recipe)
        self.stop_seconds = recipe.stop_seconds
        self.log_name = f"docker logs {options['container_name']}"
        self._options = options
        self._container: Any = None

    def check(self) -> None:
        """See :meth:`Service.check`: engine, image (ours is built), and that nobody else's container has the name."""
        import docker.errors

        client = connect()
        self.leftover()
        if self._options["backend"] == "container":
            wheels = self._options["wheels"]
            base = self._options["base_image"]
            ensure_image(client, self.recipe.image, base=base, wheels=Path(wheels) if wheels else None)
            return
        try:
            client.images.get(self.recipe.image)
        except docker.errors.ImageNotFound as error:
            how = self.recipe.missing.format(image=self.recipe.image)
            raise UserError(f"image {self.recipe.image} is not on this machine. {how}") from error

    def origin(self) -> dict[str, str]:
        """See :meth:`Service.origin`."""
        return {"image_id": connect().images.get(self.recipe.image).id}

    def start_line(self) -> str:
        """See :meth:`Service.start_line`; secrets come from the shell's variables, under the names the image wants."""
        renamed = {name: variable for name, variable in self.recipe.secrets.items() if name != variable}
        values = "".join(f'{name}="${variable}" ' for name, variable in renamed.items())
        return (f"env {values}" if values else "") + shlex.join(self.command)

    def leftover(self) -> Any | None:
        """See :meth:`Service.leftover`: the container that has the name; :class:`UserError` when it is not ours."""
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

        values = {name: os.environ.get(variable, "").strip() for name, variable in self.recipe.secrets.items()}
        for name, value in values.items():
            if not value:
                log.warning("%s is not set: an image that needs it will fail", self.recipe.secrets[name])
        leftover = self.leftover()
        if leftover:
            remove(leftover, self.stop_seconds)
        environment = self.arguments["environment"] | {name: value for name, value in values.items() if value}
        try:
            self._container = connect().containers.create(**{**self.arguments, "environment": environment})
            self._container.start()
        except docker.errors.APIError as error:
            self.stop()
            raise UserError(explain(error.explanation or str(error), self.recipe.image)) from None
        return {
            "container_id": self._container.id,
            "container_name": self.arguments["name"],
            "image": self.recipe.image,
            "image_id": self._container.image.id,
        }

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
        """See :meth:`Service.log_tail`; secrets are blotted out should the image print them."""
        import docker.errors

        if not self._container:
            return ""
        try:
            text = self._container.logs(tail=TAIL_LINES).decode(errors="replace")
        except docker.errors.APIError:
            return ""
        for value in filter(None, map(os.environ.get, self.recipe.secrets.values())):
            text = text.replace(value, "***")
        return text.strip()

    def stop(self) -> None:
        """See :meth:`Service.stop`; the container is removed too, unless ``deploy.remove_on_exit`` is false."""
        if self._container:
            remove(self._container, self.stop_seconds, keep=not self._options["remove_on_exit"])


def explain(message: str, image: str) -> str:
    """What Docker's refusal to start a container means for the user."""
    if "could not select device driver" in message or "nvidia-container" in message:
        return (
            f"Docker has no GPU to give to the container ({message}). Install the NVIDIA driver and the NVIDIA "
            "Container Toolkit and restart Docker, or serve without a GPU: deploy.backend=onnx or container."
        )
    return f"Docker cannot start {image}: {message}"


def connect() -> Any:
    """A client of the Docker Engine; :class:`UserError` when there is none."""
    import docker
    import docker.errors

    try:
        client = docker.from_env()
        client.ping()
    except (docker.errors.DockerException, OSError) as error:
        raise UserError(
            f"the Docker Engine does not answer ({error}). Start it (or set DOCKER_HOST), or serve without a "
            "container: deploy.backend=onnx."
        ) from error
    return client


def is_ours(container: Any, record_file: str) -> bool:
    """Whether the deployment of this record file made the container."""
    return container.labels.get(LABEL) == record_file


def find_container(record: dict[str, Any], record_file: Path) -> Any | None:
    """The container of a deployment record, if it is still there and ours."""
    import docker.errors

    client = connect()
    # by name, too: one that was started by hand from the record has another id
    for key in ("container_id", "container_name"):
        try:
            container = client.containers.get(record[key])
        except docker.errors.NotFound:
            continue
        if is_ours(container, str(record_file.resolve())):
            return container
    return None


def remove(container: Any, seconds: int, *, keep: bool = False) -> None:
    """Stop a container, giving it so many seconds, and remove it unless ``keep``; it may be gone already."""
    import docker.errors

    try:
        container.stop(timeout=seconds)
        if not keep:
            container.remove(force=True)
    except docker.errors.NotFound:
        pass
