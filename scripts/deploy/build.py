"""Our own image, built by the engine from ``envs/server.Containerfile`` when it is missing or of other code."""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import sha256_file
from scripts.common.job import log

ROOT = Path(__file__).parents[2]
CONTAINERFILE = "envs/server.Containerfile"
# What the image was built from
LABEL = "embed-recipe.code"


def ensure_image(client: Any, image: str, *, base: str, wheels: Path | None) -> None:
    """Build the image unless it is there; one that somebody else made under that name is used as it is.

    Args:
        client: Docker client.
        image: Its name.
        base: Image with Python 3.11 that it starts from.
        wheels: Folder with the packages as wheels, where no index can be reached; ``None`` asks the index.

    Raises:
        UserError: It cannot be built; the end of the build's log says why.
    """
    import docker.errors

    wanted = source_digest(base, wheels)
    try:
        present = client.images.get(image)
    except docker.errors.ImageNotFound:
        present = None
    if present is not None and present.labels.get(LABEL, wanted) == wanted:
        return
    log.info("building %s from %s; this takes minutes the first time", image, CONTAINERFILE)
    try:
        client.images.build(
            fileobj=context(wheels),
            custom_context=True,
            dockerfile=CONTAINERFILE,
            tag=image,
            rm=True,
            forcerm=True,
            labels={LABEL: wanted},
            buildargs={"BASE": base, "PIP_ARGS": "--no-index --find-links ." if wheels else ""},
        )
    except (docker.errors.BuildError, docker.errors.APIError) as error:
        parts = getattr(error, "build_log", None) or [{"error": str(getattr(error, "explanation", None) or error)}]
        lines = "".join(part.get("stream") or part.get("error") or "" for part in parts)
        raise UserError(
            f"{image} cannot be built:\n{lines.strip()[-1500:]}\nIt starts from {base} (deploy.base_image), which must "
            "be here or in a registry that Docker reaches, and takes its packages from pip's index or deploy.wheels."
        ) from error


def source_digest(base: str, wheels: Path | None = None) -> str:
    """Digest of what the image is made of: its base and every file that the build sees (wheels by their names)."""
    digest = hashlib.sha256(base.encode())
    for path, name in sources(wheels):
        digest.update(f"\n{name} {'' if path.suffix == '.whl' else sha256_file(path)}".encode())
    return digest.hexdigest()[:16]


def sources(wheels: Path | None) -> Iterator[tuple[Path, str]]:
    """The files that the build may see, each with its name there: no output folder, no caches."""
    for name in ("pyproject.toml", CONTAINERFILE):
        yield ROOT / name, name
    for folder in ("scripts/common", "scripts/deploy"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield path, f"{folder}/{path.name}"
    for path in sorted(wheels.glob("*.whl")) if wheels else []:
        yield path, f"wheels/{path.name}"


def context(wheels: Path | None) -> io.BytesIO:
    """:func:`sources` as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, name in sources(wheels):
            tar.add(path, name)
    archive.seek(0)
    return archive
