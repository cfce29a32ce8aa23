"""Real technical documents from what is already installed: the API docstrings of a library."""

import importlib
import inspect
import pkgutil
import re
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from scripts.common.errors import UserError
from scripts.common.files import sha256_text, write_text
from scripts.common.job import job, log


def sample_corpus(package: str, folder: str | Path, documents: int = 120) -> int:
    """Write docstrings of a library's public classes and functions, one text file each.

    The choice depends on nothing but the installed version: public names whose docstring has 80 to 900 words, in the
    order of a hash of the name.

    Args:
        package: Import name of an installed library.
        folder: Where the files go.
        documents: How many at most.

    Returns:
        Number of files written.

    Raises:
        UserError: The library is not installed, or has hardly any docstrings.
    """
    found = {name: text for name, text in _docstrings(package).items() if 80 <= len(text.split()) <= 900}
    if len(found) < 20:
        raise UserError(
            f"corpus_dir sample:{package}: only {len(found)} docstrings of 80 to 900 words; name another package."
        )
    chosen = sorted(found, key=sha256_text)[:documents]
    for name in chosen:
        write_text(Path(folder) / f"{name}.txt", f"{name}\n\n{found[name]}\n")
    log.info("wrote %d of %d docstrings of %s to %s", len(chosen), len(found), package, folder)
    return len(chosen)


def _docstrings(package: str) -> dict[str, str]:
    """Docstrings of public classes and functions by their shortest public name."""
    found: dict[int, tuple[str, str]] = {}
    for module in _public_modules(package):
        for attribute in sorted(getattr(module, "__all__", [])):
            try:
                value: Any = getattr(module, attribute, None)
            except ImportError:  # experimental parts that ask for an import of their own
                continue
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            name = f"{module.__name__}.{attribute}"
            known = found.get(id(value))
            if known is None or (len(name), name) < (len(known[0]), known[0]):
                found[id(value)] = (name, _prose(inspect.getdoc(value) or ""))
    return dict(sorted(found.values()))


def _public_modules(package: str) -> list[ModuleType]:
    try:
        root = importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"corpus_dir sample:{package}: that library is not installed ({error}).") from error
    modules = [root]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for info in pkgutil.iter_modules(getattr(root, "__path__", [])):
            if not info.name.startswith("_") and info.name not in {"tests", "conftest", "externals"}:
                try:
                    modules.append(importlib.import_module(f"{package}.{info.name}"))
                except ImportError as error:
                    log.debug("%s.%s has no docstrings for us: %s", package, info.name, error)
    return modules


def _prose(text: str) -> str:
    """The docstring up to its examples, with reST roles and rulers reduced to their words."""
    text = re.split(r"\n(?:Examples?|References|See Also)\n-{3,}\n", text)[0]
    text = re.sub(r":[a-z:]+:`~?([^`<]*)(?:\s*<[^>]*>)?`", r"\1", text)
    text = re.sub(r"``?([^`]+)``?", r"\1", text)
    return re.sub(r"^-{3,}$\n?", "", text, flags=re.MULTILINE).strip()


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        sample_corpus(snakemake.params.package, snakemake.output[0])  # noqa: F821
