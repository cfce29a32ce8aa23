"""Texts of a request as token ids, cut as the request says."""

import itertools
from collections.abc import Sequence
from typing import Any, Literal

from scripts.common.contract import Side
from scripts.common.onnx_encoder import OnnxEncoder

Truncate = Literal["NONE", "START", "END"]
# Of a long text, so many characters for each token that the model takes are read first; text has about four
CHARACTERS = 32
# If those were too few (a page of blanks), so many times as many are read next
WIDEN = 8


class TooLongError(ValueError):
    """A text has more tokens than the model takes, and the request forbids to cut it."""


def estimate(given: Sequence[Any], limit: int) -> int:
    """About how many tokens texts or rows of ids will have, before they are read.

    Args:
        given: Texts, at four bytes a token, or rows of token ids.
        limit: Tokens that the model takes of each.
    """
    sizes = (1 + _bytes(item) // 4 if isinstance(item, str) else len(item) for item in given)
    return sum(min(size, limit) for size in sizes)


class Reader:
    """Reads texts and token ids of requests, for one thread: a tokenizer's truncation is a state.

    Args:
        encoder: Its contract and a copy of its tokenizer are used.
    """

    def __init__(self, encoder: OnnxEncoder) -> None:
        self.contract = encoder.contract
        self.tokenizer = type(encoder.tokenizer).from_str(encoder.tokenizer.to_str())
        self._before, self._after = special_tokens(self.tokenizer)

    def ids(self, rows: Sequence[Sequence[int]], side: Side, truncate: Truncate) -> list[list[int]]:
        """Token ids of a request as the model takes them: too long ones are cut or refused.

        Raises:
            TooLongError: See :meth:`texts`.
            ValueError: The ids are not of this model's tokenizer, as those of OpenAI's, which LangChain sends.
        """
        limit, vocabulary = self.contract.max_length(side), self.tokenizer.get_vocab_size()
        found = []
        for number, row in enumerate(rows):
            if len(row) > limit and truncate == "NONE":
                raise TooLongError(f"input {number} has {len(row)} tokens; the model takes {limit} for a {side}")
            kept = self._cut_ids(list(row), limit, truncate)
            foreign = next((token for token in kept if not 0 <= token < vocabulary), None)
            if foreign is not None:
                raise ValueError(
                    f"input {number} has token id {foreign}, but this model has {vocabulary} tokens. {_ADVICE}"
                )
            if kept[: len(self._before)] != self._before or kept[len(kept) - len(self._after) :] != self._after:
                raise ValueError(
                    f"input {number} is no text of this model's tokenizer: that one begins each with the ids "
                    f"{self._before} and ends it with {self._after}. {_ADVICE}"
                )
            found.append(kept)
        return found

    def _cut_ids(self, row: list[int], limit: int, truncate: Truncate) -> list[int]:
        """A row of at most ``limit`` ids that keeps the special tokens at both ends, as a text that is cut does."""
        if len(row) <= limit:
            return row
        head, tail = len(self._before), len(self._after)
        room, end = limit - head - tail, len(row) - tail
        body = row[end - room : end] if truncate == "START" else row[head : head + room]
        return row[:head] + body + row[end:]

    def texts(self, texts: Sequence[str], side: Side, truncate: Truncate) -> list[list[int]]:
        """Token ids per text, prefix and special tokens in.

        Of a text far longer than the model takes, only as much is read as that needs.

        Args:
            texts: Texts without prefix.
            side: ``query`` or ``passage``.
            truncate: Texts beyond the contract's length lose their end (``END``, as in training), their start but not
                the prefix (``START``), or are an error (``NONE``).

        Raises:
            TooLongError: Only with ``NONE``; the message says which text and what the limit is.
        """
        found: list[list[int]] = [[]] * len(texts)
        pending, size = list(range(len(texts))), CHARACTERS * self.contract.max_length(side)
        while pending:
            parts = [_part(texts[number], size, truncate) for number in pending]
            short = []
            for number, part, (ids, is_long) in zip(pending, parts, self._encode(parts, side, truncate), strict=True):
                if is_long and truncate == "NONE":
                    raise TooLongError(
                        f"input {number} has {'more than ' if part != texts[number] else ''}{len(ids)} tokens; the "
                        f"model takes {self.contract.max_length(side)} for a {side}"
                    )
                found[number] = ids
                if not is_long and len(part) < len(texts[number]):
                    short.append(number)
            pending, size = short, WIDEN * size
        return found

    def _encode(self, texts: list[str], side: Side, truncate: Truncate) -> list[tuple[list[int], bool]]:
        """Token ids of each text, cut unless ``NONE``, and whether it had more than the model takes."""
        limit = self.contract.max_length(side)
        given = [self.contract.text(text, side) for text in texts]
        if truncate == "END":
            self.tokenizer.enable_truncation(limit)
            return [(found.ids, bool(found.overflowing)) for found in self.tokenizer.encode_batch_fast(given)]
        self.tokenizer.no_truncation()
        prefix, rows = len(self.contract.text("", side)), []
        for encoding in self.tokenizer.encode_batch(given):
            ids = encoding.ids
            is_long = len(ids) > limit
            if is_long and truncate == "START":
                # special tokens have the offsets (0, 0)
                head = sum(1 for _ in itertools.takewhile(lambda span: span[1] <= prefix, encoding.offsets))
                ids = ids[:head] + ids[len(ids) - limit + head :]
            rows.append((ids, is_long))
        return rows


_ADVICE = "Send text, or ids of this model's own tokenizer (LangChain: check_embedding_ctx_length=False)."


def special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and after every text."""
    encoding = tokenizer.encode("a")
    marks = encoding.special_tokens_mask
    before = sum(1 for _ in itertools.takewhile(bool, marks))
    after = sum(1 for _ in itertools.takewhile(bool, reversed(marks[before:])))
    return encoding.ids[:before], encoding.ids[len(marks) - after :]


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _part(text: str, size: int, truncate: Truncate) -> str:
    """The first ``size`` characters of a text, for ``START`` the last, without a word that this would cut."""
    if len(text) <= size:
        return text
    part = text[-size:] if truncate == "START" else text[:size]
    words = part.split(None, 1)[1:] if truncate == "START" else part.rsplit(None, 1)[:-1]
    # text without blanks has no words to keep whole
    return words[0] if words and len(words[0]) > size // 2 else part
