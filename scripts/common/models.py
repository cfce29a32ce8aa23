"""Where a model's files are: a folder, an installed package, or a hub id."""

import importlib
from pathlib import Path

from scripts.common.errors import UserError

PACKAGE = "package:"
# Copies of the weights for other frameworks, often several times the size of the model
NOT_NEEDED = ["*.h5", "*.msgpack", "*.ot", "onnx/*", "openvino/*", "coreml/*", "*.gguf"]


def resolve_model(spec: str, revision: str | None = None, relative_to: Path | None = None) -> Path:
    """The local folder of a model.

    Args:
        spec: A folder (relative ones are tried below ``relative_to`` first), ``package:NAME`` for an installed package
            that has ``get_model_path()``, or a hub id such as ``org/name``, which is downloaded once.
        revision: Hub revision.
        relative_to: Folder that relative paths start from.

    Raises:
        UserError: The model is not there; the message says where it was looked for.
    """
    if spec.startswith(PACKAGE):
        return _package_folder(spec.removeprefix(PACKAGE))
    for folder in ([relative_to / spec] if relative_to else []) + [Path(spec)]:
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise UserError(f"model folder {folder} has no config.json: it is not a model in Hugging Face layout.")
            return folder.resolve()
    if Path(spec).is_absolute() or spec.startswith((".", "~")) or spec.count("/") != 1:
        raise UserError(f"model {spec} does not exist. Check the path (option model.base_model).")
    return _hub_folder(spec, revision)


def is_local_folder(spec: str) -> bool:
    """Whether ``spec`` names a folder that is there, so that its files can be inputs of a rule."""
    return not spec.startswith(PACKAGE) and Path(spec).is_dir()


def _package_folder(name: str) -> Path:
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"model {PACKAGE}{name}: package {name} is not installed. Install the extra `cpu`.") from error
    if not hasattr(module, "get_model_path"):
        raise UserError(f"model {PACKAGE}{name}: that package has no get_model_path().")
    return Path(module.get_model_path()).resolve()


def _hub_folder(spec: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(spec, revision=revision, ignore_patterns=NOT_NEEDED))
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"model {spec} is neither a folder here nor in the hub cache, and the hub cannot be reached "
            f"({type(error).__name__}). Give a local folder as model.base_model, or run once with network."
        ) from error
    except (HfHubHTTPError, ValueError) as error:
        raise UserError(f"model {spec} cannot be had from the hub: {error}") from error
