"""A served model through a real loopback server: what it sends wrongly ends clearly, what can be mended is."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from scripts.common.contract import Contract
from scripts.common.endpoint_encoder import EndpointEncoder
from scripts.common.errors import UserError
from tests.eval.conftest import hash_vectors
from tests.loopback import answering

DIMENSION = 96
TEXTS = ["a wing at supersonic speed", "the heat equation", "leave accrual"]
# Takes the texts and the number of the request, gives status and body
Behaviour = Callable[[list[str], int], tuple[int, Any]]


def answer(texts: list[str]) -> dict[str, Any]:
    """What a sound server sends."""
    rows = hash_vectors(texts, DIMENSION).tolist()
    return {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


class Endpoint:
    """A server whose behaviour a test chooses; remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.behaviour: Behaviour = lambda texts, _: (200, answer(texts))

    def answer(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(body)
        return self.behaviour(body["input"], len(self.requests))

    def encoder(self, *, backend: str = "nim", dimension: int = DIMENSION, **options: Any) -> EndpointEncoder:
        contract = Contract(
            model="m", weights_sha256="x", dimension=dimension, pooling="avg", l2_normalize=True, query_prefix="query:",
            passage_prefix="", query_max_length=64, passage_max_length=128, backend=backend, url=self.url,
        )  # fmt: skip
        return EndpointEncoder(contract, allowed=[], **options)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    with answering(made.answer) as made.server:
        made.url = f"http://127.0.0.1:{made.server.server_port}"
        yield made


def changed(**change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Behaviour:
    """A server that changes its list of vectors before it sends it."""
    return lambda texts, _: (200, {**answer(texts), "data": change["data"](answer(texts)["data"])})


def test_vectors_come_in_the_order_of_the_texts_over_several_requests(endpoint: Endpoint) -> None:
    found = endpoint.encoder(batch_size=2).encode(TEXTS, "passage")
    np.testing.assert_allclose(found, hash_vectors(TEXTS, DIMENSION), atol=1e-6)
    assert [len(body["input"]) for body in endpoint.requests] == [2, 1]


def test_nim_is_told_the_side_and_gets_bare_texts(endpoint: Endpoint) -> None:
    endpoint.encoder().encode(TEXTS[:1], "query")
    (body,) = endpoint.requests
    assert (body["input"], body["input_type"], body["truncate"]) == (TEXTS[:1], "query", "END")
    assert body["model"] == "m"


def test_vllm_gets_the_prefix_and_where_to_cut(endpoint: Endpoint) -> None:
    endpoint.encoder(backend="vllm").encode(TEXTS[:1], "query")
    (body,) = endpoint.requests
    assert (body["input"], body["truncate_prompt_tokens"]) == (["query: " + TEXTS[0]], 64)
    assert "input_type" not in body


def test_another_order_is_put_right_by_the_numbers(endpoint: Endpoint) -> None:
    endpoint.behaviour = changed(data=lambda data: data[::-1])
    found = endpoint.encoder().encode(TEXTS, "passage")
    np.testing.assert_allclose(found, hash_vectors(TEXTS, DIMENSION), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "2 vectors for 3 texts"),
        (lambda data: [*data, {**data[0], "index": 3}], "4 vectors for 3 texts"),
        (lambda data: [{**item, "index": 0} for item in data], "numbered them wrongly"),
        (lambda data: [{**item, "index": item["index"] + 1} for item in data], "numbered them wrongly"),
        (lambda data: [*data, data[0]], "numbered them wrongly"),
        (lambda _: [], "0 vectors for 3 texts"),
        (lambda data: [{**item, "embedding": item["embedding"][:7]} for item in data], "7 dimensions, expected 96"),
        (lambda data: [{**item, "embedding": ["a"] * DIMENSION} for item in data], "no list of numbers"),
    ],
    ids=["fewer", "more", "same number", "numbered from 1", "one twice", "none", "dimension", "words"],
)
def test_wrong_vectors_are_an_error_and_never_used(endpoint: Endpoint, change: Any, words: str) -> None:
    endpoint.behaviour = changed(data=change)
    with pytest.raises(UserError, match=words):
        endpoint.encoder().encode(TEXTS, "passage")


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")], ids=["null", "NaN", "infinite"])
def test_rows_with_invalid_values_are_asked_for_again(endpoint: Endpoint, value: float | None) -> None:
    def once(texts: list[str], number: int) -> tuple[int, Any]:
        value_sent = answer(texts)
        if number == 1:
            value_sent["data"][1]["embedding"][5] = value
        return 200, value_sent

    endpoint.behaviour = once
    encoder = endpoint.encoder()
    found = encoder.encode(TEXTS, "passage")
    assert encoder.diagnostics() == {"invalid_embedding_retry_requests": 1}
    np.testing.assert_allclose(found, hash_vectors(TEXTS, DIMENSION), atol=1e-6)
    assert [body["input"] for body in endpoint.requests] == [TEXTS, [TEXTS[1]]]


def test_values_that_stay_invalid_are_an_error(endpoint: Endpoint) -> None:
    def always(texts: list[str], _: int) -> tuple[int, Any]:
        value = answer(texts)
        value["data"][0]["embedding"][0] = float("nan")
        return 200, value

    endpoint.behaviour = always
    with pytest.raises(UserError, match="NaN or missing values, also when asked again"):
        endpoint.encoder().encode(TEXTS, "passage")
    assert len(endpoint.requests) == 4


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_server_is_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.behaviour = lambda texts, number: (200, answer(texts)) if number > 2 else (status, {"error": "busy"})
    assert endpoint.encoder(max_retries=4).encode(TEXTS, "passage").shape == (3, DIMENSION)
    assert len(endpoint.requests) == 3


def test_a_server_that_stays_busy_ends_with_its_status(endpoint: Endpoint) -> None:
    endpoint.behaviour = lambda *_: (503, {"error": {"message": "loading the model"}})
    with pytest.raises(UserError, match=r"answered 503.*loading the model"):
        endpoint.encoder(max_retries=1).encode(TEXTS, "passage")
    assert len(endpoint.requests) == 2


def test_a_refused_request_is_not_repeated(endpoint: Endpoint) -> None:
    endpoint.behaviour = lambda *_: (404, {"error": {"message": "no model m"}})
    with pytest.raises(UserError, match=r"answered 404.*no model m"):
        endpoint.encoder().encode(TEXTS, "passage")
    assert len(endpoint.requests) == 1


def test_a_page_instead_of_vectors_is_an_error(endpoint: Endpoint) -> None:
    endpoint.behaviour = lambda *_: (200, "<html>a proxy's login page</html>")
    with pytest.raises(UserError, match=r"vectors for 3 texts|no valid JSON"):
        endpoint.encoder().encode(TEXTS, "passage")


def test_no_server_says_what_to_do(endpoint: Endpoint) -> None:
    encoder = endpoint.encoder(max_retries=0)
    endpoint.server.server_close()
    with pytest.raises(UserError, match=r"does not answer.*snakemake deploy"):
        encoder.encode(TEXTS, "passage")


def test_text_goes_to_no_host_that_is_not_named() -> None:
    contract = Contract(
        model="m", weights_sha256="x", dimension=3, pooling="avg", l2_normalize=True, query_prefix="",
        passage_prefix="", query_max_length=8, passage_max_length=8, backend="nim", url="http://nim.example:8000",
    )  # fmt: skip
    with pytest.raises(UserError, match="allow_egress"):
        EndpointEncoder(contract, allowed=["other.example"])
