"""Texts of requests as token ids: of long ones only a part is read, with the same result."""

import time
from pathlib import Path

import pytest

from scripts.common.encoder import open_encoder
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.deploy.texts import Reader, TooLongError, Truncate, estimate

WORDS = "the lift of a wing at low speed, measured "
LONG = {
    "words": WORDS * 5_000,
    "blanks": " " * 60_000 + WORDS * 50 + " " * 60_000,
    "no blanks": "机翼的升力" * 20_000,
    "one word": "x" * 100_000,
    "one word, then others": "x" * 50_000 + " " + WORDS * 5_000,
}


@pytest.fixture(scope="module")
def encoder(exported: Path) -> OnnxEncoder:
    opened = open_encoder(exported / "contract.json")
    assert isinstance(opened, OnnxEncoder)
    return opened


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_part_gives_the_tokens_that_the_whole_gives(encoder: OnnxEncoder, text: str) -> None:
    reader = Reader(encoder)
    limit = encoder.contract.max_length("query")
    assert reader.texts(["a", text, WORDS], "query", "END") == encoder.tokenize(["a", text, WORDS], "query")
    encoder.tokenizer.no_truncation()
    whole = encoder.tokenizer.encode(encoder.contract.text(text, "query")).ids
    starts = reader.texts([text], "query", "START")[0]
    if len(whole) <= limit:
        assert starts == reader.texts([text], "query", "NONE")[0] == whole
    else:
        head = len(encoder.tokenizer.encode(encoder.contract.text("", "query")).ids) - 1
        assert starts == whole[:head] + whole[head - limit :]
        with pytest.raises(TooLongError, match=f"model takes {limit} for a query"):
            reader.texts(["a", text], "query", "NONE")


@pytest.mark.parametrize("truncate", ["END", "START", "NONE"])
def test_megabytes_take_no_longer_than_the_model_needs(encoder: OnnxEncoder, truncate: Truncate) -> None:
    reader = Reader(encoder)
    start = time.process_time()
    try:
        reader.texts([WORDS * 200_000], "passage", truncate)
    except TooLongError:
        assert truncate == "NONE"
    # the whole takes three seconds
    assert time.process_time() - start < 1


def test_estimates_count_bytes_up_to_the_limit() -> None:
    assert estimate(["", "a" * 40, "é" * 40, "a" * 10_000], 128) == 1 + 11 + 21 + 128
    assert estimate([[1, 2, 3], [1] * 1000], 128) == 3 + 128
