"""A real Docker Engine of our own, a base image and wheels, so that no registry or package index is needed inside."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import ROOT, exported
from tests.workflow.conftest import documents, fresh

__all__ = ["documents", "exported", "fresh"]
HERE = Path(__file__).parent
BASE = "embed-recipe-test-python:3.11"
IMAGE = "embed-recipe-test-server:latest"
# Packages of the image, for machines whose engine reaches no package index
PACKAGES = ROOT / "output" / "test_wheels"
NAME = "embed-recipe-test"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of an engine of our own, brought up for the tests."""
    if os.geteuid() or not shutil.which("apt-get"):
        pytest.skip("a Docker Engine of our own needs root and Debian")
    # kept between runs: the base image takes minutes to make
    folder = Path(os.environ.get("EMBED_RECIPE_DOCKER", "/var/tmp/embed-recipe-docker"))
    up = subprocess.run(["bash", HERE / "docker_up.sh", folder], capture_output=True, text=True, check=False)
    if up.returncode:
        pytest.skip(f"no Docker Engine can be had here: {up.stderr.strip()[-300:]}")
    host = f"unix://{folder}/docker.sock"
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    import docker

    client = docker.DockerClient(base_url=host, timeout=600)
    try:
        yield client
    finally:
        for container in client.containers.list(all=True, filters={"name": NAME}):
            container.remove(force=True)
        client.close()
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
        subprocess.run(["bash", HERE / "docker_down.sh", folder], check=False)


@pytest.fixture(scope="session")
def base(engine: Any) -> str:
    """An image with Debian's Python 3.11, made without a registry."""
    if not engine.images.list(BASE):
        subprocess.run(["bash", HERE / "base_image.sh", BASE], check=True, timeout=600)
    return BASE


@pytest.fixture(scope="session")
def wheels() -> Path:
    """The server's packages as wheels, by pip from wherever this machine has them."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if not list(PACKAGES.glob("onnxruntime-*.whl")):
        command = ["pip", "download", "-q", "-d", PACKAGES, "--only-binary=:all:"]
        subprocess.run(["python", "-m", *command, *extras["deploy"], *extras["serve"]], check=True, timeout=600)
    return PACKAGES


@pytest.fixture(scope="session")
def served(base: str, wheels: Path) -> dict[str, Any]:
    """Options of a deployment in our own image."""
    own = {"backend": "container", "server_image": IMAGE, "base_image": base, "wheels": str(wheels)}
    return {**own, "container_name": NAME, "health_check_timeout": 60}
