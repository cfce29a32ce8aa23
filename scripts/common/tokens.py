"""The model's own tokenizer, without the model."""

from pathlib import Path
from typing import Any

from scripts.common.errors import UserError


def fast_tokenizer(folder: Path) -> Any:
    """The Rust tokenizer of a model folder, without padding and without a length limit of its own.

    Raises:
        UserError: The folder has none, or one that cannot be read.
    """
    from tokenizers import Tokenizer

    file = tokenizer_file(folder)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise UserError(f"tokenizer {file} cannot be read: {error}") from error
    tokenizer.no_padding()
    # some folders carry a limit (128 for all-MiniLM-L6-v2) that has nothing to do with the contract's
    tokenizer.no_truncation()
    return tokenizer


def tokenizer_file(folder: Path) -> Path:
    """The file of a model folder's Rust tokenizer; :class:`UserError` when there is none."""
    for name in ("tokenizer.json", "tokenizer/tokenizer.json"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"model folder {folder} has no tokenizer.json. Save one with "
        "transformers.AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)."
    )
