"""Vectors from an endpoint: in order, once each, and none for what does not fit."""

from pathlib import Path
from typing import Any

import pytest

from scripts.common.errors import UserError
from scripts.common.llm_embedding import EmbeddingModel
from scripts.common.replies import ReplyStore
from tests.sdg.conftest import running_endpoint


def model(url: str, store: Path, **options: Any) -> EmbeddingModel:
    place: dict[str, Any] = {"provider": "test", "model": "m", "base_url": url, "key_variable": None, "allowed": []}
    return EmbeddingModel(**place, store=ReplyStore(store), timeout=5, max_retries=0, **options)


def test_vectors_come_in_the_texts_order_and_are_kept(tmp_path: Path) -> None:
    texts = ["a" * n for n in range(1, 131)]
    with running_endpoint() as server:
        first = model(server.url, tmp_path)
        assert [vector[0] for vector in first.embed(texts)] == [float(n) for n in range(1, 131)]
        assert server.log()["requests"] == 3
        again = model(server.url, tmp_path)
        assert again.embed(texts[:7]) == first.embed(texts[:7])
        assert again.usage["reused"] == 7
        assert server.log()["requests"] == 3


def test_a_text_that_does_not_fit_has_no_vector_and_the_others_do(tmp_path: Path) -> None:
    with running_endpoint() as server:
        vectors = model(server.url, tmp_path).embed(["abc", "x" * 500, "de"])
    assert [vector and list(vector) for vector in vectors] == [[3.0, 1.0], None, [2.0, 1.0]]
    # of a question there are many
    assert memoryview(vectors[0]).itemsize == 4


def test_a_host_that_is_not_named_gets_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="allow_egress"):
        model("https://api.example.com/v1", tmp_path)


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    place: dict[str, Any] = {"provider": "t", "model": "m", "base_url": "http://127.0.0.1:9/v1", "allowed": []}
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        EmbeddingModel(**place, key_variable="NO_SUCH_KEY", store=ReplyStore(tmp_path), timeout=5, max_retries=0)
