"""A digest of the code that makes a file, so that reruns follow changed content and not changed dates.

Snakemake's own ``code`` trigger looks at the script's modification time (a fresh clone retrains everything) and not
at all at imported modules (a real fix retrains nothing). Each rule therefore has a ``params`` entry with this digest:
the parsed source, without docstrings, comments and layout, of its script and of all it imports from this repository.
"""

import ast
import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What these do reaches no artefact: messages, progress, error types and this module itself.
WITHOUT_EFFECT = {
    "scripts.common.job",
    "scripts.common.errors",
    "scripts.common.progress",
    "scripts.common.code_digest",
}


def code_digest(script: str | Path, root: Path = ROOT) -> str:
    """First 16 hex digits of the SHA-256 over a script and its imports from ``root``.

    Raises:
        SyntaxError: A source file does not parse.
    """
    digest = hashlib.sha256()
    for path in _sources(Path(root, script).resolve(), Path(root).resolve()):
        digest.update(_normal_form(path, path.stat().st_mtime_ns).encode())
    return digest.hexdigest()[:16]


def _sources(script: Path, root: Path) -> list[Path]:
    found, queue = set(), [script]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            queue.extend(_imports(path, root, path.stat().st_mtime_ns))
    return sorted(found)


@functools.cache
def _imports(path: Path, root: Path, _mtime: int) -> list[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    local = {name for name in names if name.startswith("scripts.")} - WITHOUT_EFFECT
    return sorted(file for name in local if (file := root / (name.replace(".", "/") + ".py")).is_file())


@functools.cache
def _normal_form(path: Path, _mtime: int) -> str:
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    # not ast.dump: it differs between Python versions for the same code, and an upgrade would retrain everything
    return ast.unparse(tree)
