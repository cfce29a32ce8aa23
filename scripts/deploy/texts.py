"""Texts of a request as token ids, cut as the request says."""

import itertools
from collections.abc import Sequence
from typing import Literal

from scripts.common.contract import Side
from scripts.common.onnx_encoder import OnnxEncoder

Truncate = Literal["NONE", "START", "END"]


class TooLongError(ValueError):
    """A text has more tokens than the model takes, and the request forbids to cut it."""


def given_ids(encoder: OnnxEncoder, rows: Sequence[Sequence[int]], side: Side, truncate: Truncate) -> list[list[int]]:
    """Token ids of a request as the model takes them: nothing is added, too long ones are cut or refused.

    Raises:
        TooLongError: See :func:`token_ids`.
        ValueError: An id is none of this model's, as those of OpenAI's tokenizer may be.
    """
    limit, vocabulary = encoder.contract.max_length(side), encoder.tokenizer.get_vocab_size()
    found = []
    for number, row in enumerate(rows):
        foreign = next((token for token in row if not 0 <= token < vocabulary), None)
        if foreign is not None:
            raise ValueError(
                f"input {number} has token id {foreign}, but this model has {vocabulary} tokens. Send text, or ids "
                "of this model's own tokenizer (LangChain: check_embedding_ctx_length=False)."
            )
        if len(row) > limit and truncate == "NONE":
            raise TooLongError(f"input {number} has {len(row)} tokens; the model takes {limit} for a {side}")
        found.append(list(row[-limit:] if truncate == "START" else row[:limit]))
    return found


def token_ids(encoder: OnnxEncoder, texts: Sequence[str], side: Side, truncate: Truncate) -> list[list[int]]:
    """Token ids per text, prefix and special tokens in.

    Args:
        encoder: Its tokenizer and contract are used.
        texts: Texts without prefix.
        side: ``query`` or ``passage``.
        truncate: Texts beyond the contract's length lose their end (``END``, as in training), their start but not
            the prefix (``START``), or are an error (``NONE``).

    Raises:
        TooLongError: Only with ``NONE``; the message says which text, how long and what the limit is.
    """
    if truncate == "END":
        return encoder.tokenize(texts, side)
    contract = encoder.contract
    limit, prefix = contract.max_length(side), len(contract.text("", side))
    encoder.tokenizer.no_truncation()
    found = []
    for number, encoding in enumerate(encoder.tokenizer.encode_batch([contract.text(text, side) for text in texts])):
        ids = encoding.ids
        if len(ids) > limit and truncate == "NONE":
            raise TooLongError(f"input {number} has {len(ids)} tokens; the model takes {limit} for a {side}")
        if len(ids) > limit:
            # special tokens have the offsets (0, 0)
            head = sum(1 for _ in itertools.takewhile(lambda span: span[1] <= prefix, encoding.offsets))
            ids = ids[:head] + ids[len(ids) - limit + head :]
        found.append(ids)
    return found
