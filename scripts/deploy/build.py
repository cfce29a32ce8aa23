"""Our own image, built by the engine from ``envs/server.Containerfile`` when it is missing or of other code."""

import io
import tarfile
from pathlib import Path
from typing import Any

from scripts.common.code_digest import code_digest
from scripts.common.errors import UserError
from scripts.common.files import sha256_text
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

    wanted = source_digest(base)
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


def source_digest(base: str) -> str:
    """Digest of what the image is made of: the server's code, the recipe of the image and its base."""
    facts = (code_digest("scripts/deploy/server.py", ROOT), (ROOT / CONTAINERFILE).read_text(encoding="utf-8"), base)
    return sha256_text("\n".join(facts))[:16]


def context(wheels: Path | None) -> io.BytesIO:
    """The files that the build may see, as a tar archive: no output folder, no caches."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("pyproject.toml", CONTAINERFILE):
            tar.add(ROOT / name, name)
        for folder in ("scripts/common", "scripts/deploy"):
            for path in sorted((ROOT / folder).glob("*.py")):
                tar.add(path, f"{folder}/{path.name}")
        for path in sorted(wheels.glob("*.whl")) if wheels else []:
            tar.add(path, f"wheels/{path.name}")
    archive.seek(0)
    return archive
