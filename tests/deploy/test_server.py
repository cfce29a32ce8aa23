"""The server as clients meet it: unmodified ones, faulty ones, many at once, and the one who stops it."""

import asyncio
import base64
import concurrent.futures
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import psutil
import pytest

from scripts.common.contract import Contract
from scripts.common.encoder import open_encoder
from tests.deploy.conftest import Server, running

QUERY = "what is the lift of a wing"


def post(server: Server, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/embeddings", json={"model": "tiny", **body}, timeout=60)


def vectors(reply: httpx.Response) -> np.ndarray:
    assert reply.status_code == 200, reply.text
    return np.array([row["embedding"] for row in reply.json()["data"]], np.float32)


@pytest.fixture(scope="module")
def reference(exported: Path) -> np.ndarray:
    """The query's vector as the checkpoint's encoder gives it."""
    return open_encoder(exported / "contract.json").encode([QUERY], "query")


def test_openai_client_gets_the_checkpoints_vectors_as_base64_and_as_floats(
    server: Server, reference: np.ndarray
) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        # without encoding_format this client asks for base64
        for extra in ({}, {"encoding_format": "float"}):
            reply = client.embeddings.create(input=[QUERY], model="tiny", extra_body={"input_type": "query"}, **extra)
            np.testing.assert_allclose(reply.data[0].embedding, reference[0], atol=1e-6)
            assert reply.usage.total_tokens == reply.usage.prompt_tokens > 5
        assert [model.id for model in client.models.list()] == ["tiny", "tiny-query", "tiny-passage"]
        assert client.models.retrieve("tiny-query").id == "tiny-query"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("other/model")
        # what this client cannot send as input_type, the name says
        named = client.embeddings.create(input=[QUERY], model="tiny-query")
        assert named.model == "tiny-query"
        np.testing.assert_allclose(named.data[0].embedding, reference[0], atol=1e-6)


def test_async_openai_client(server: Server) -> None:
    async def ask() -> list[float]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return (await client.embeddings.create(input=QUERY, model="tiny")).data[0].embedding

    assert abs(np.linalg.norm(asyncio.run(ask())) - 1) < 1e-5


def test_langchain(server: Server) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    client = langchain_openai.OpenAIEmbeddings(
        model="tiny", base_url=f"{server.url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    assert np.shape(client.embed_documents(["one", "two"])) == (2, 384)


def test_curl(server: Server) -> None:
    body = json.dumps({"input": [QUERY], "model": "tiny", "input_type": "query"})
    command = ["curl", "-sf", f"{server.url}/v1/embeddings", "-H", "Content-Type: application/json", "-d", body]
    reply = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert len(reply["data"][0]["embedding"]) == 384


def test_token_ids_give_the_vector_of_their_text(server: Server, exported: Path) -> None:
    encoder = open_encoder(exported / "contract.json")
    ids = encoder.tokenize(["a wing"], "passage")[0]
    text = vectors(post(server, input="a wing"))
    np.testing.assert_allclose(vectors(post(server, input=ids)), text, atol=1e-6)
    np.testing.assert_allclose(vectors(post(server, input=[ids, ids])), text.repeat(2, 0), atol=1e-6)


@pytest.mark.parametrize("truncate", ["END", "START"])
def test_long_token_ids_are_cut_as_their_text_is(server: Server, exported: Path, truncate: str) -> None:
    text = "alpha " * 200 + "omega " * 200
    tokenizer = open_encoder(exported / "contract.json").tokenizer
    ids = tokenizer.encode(text).ids
    assert len(ids) > 400
    cut = vectors(post(server, input=text, truncate=truncate))
    np.testing.assert_allclose(vectors(post(server, input=ids, truncate=truncate)), cut, atol=1e-6)


def test_query_and_passage_differ_by_their_prefix(server: Server) -> None:
    query, passage = (vectors(post(server, input="wing", input_type=side)) for side in ("query", "passage"))
    assert not np.allclose(query, passage)
    np.testing.assert_allclose(vectors(post(server, input="query: wing")), query, atol=1e-6)


def test_truncation_keeps_the_end_or_the_start_or_refuses(server: Server) -> None:
    text = "alpha " * 200 + "omega " * 200
    ends = vectors(post(server, input=[text, "alpha " * 200], truncate="END"))
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-5)
    starts = vectors(post(server, input=[text, "omega " * 200], truncate="START"))
    np.testing.assert_allclose(starts[0], starts[1], atol=1e-5)
    refused = post(server, input=text, truncate="NONE")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_dimensions_cut_and_normalise_and_base64_is_little_endian_float32(server: Server) -> None:
    whole = vectors(post(server, input="wing"))[0, :16]
    raw = post(server, input="wing", dimensions=16, encoding_format="base64").json()["data"][0]["embedding"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(raw), "<f4"), whole / np.linalg.norm(whole), atol=1e-6)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"input": "a", "model": "other"}, "'tiny'"),
        ({"input": ""}, "input must be"),
        ({"input": []}, "input must be"),
        ({"input": ["a", ""]}, "input must be"),
        ({"input": [True]}, "input must be"),
        ({"input": ["a"] * 100_000}, "2048"),
        ({"input": [999_999]}, "check_embedding_ctx_length"),
        ({"input": [-1]}, "token id -1"),
        # what LangChain sends by default: ids of OpenAI's tokenizer, some of which are tokens here too
        ({"input": [[9906, 1917], [9906]]}, "check_embedding_ctx_length=False"),
        ({"input": "a", "model": "tiny-query", "input_type": "passage"}, "contradicts"),
        ({"input": [1, "a"]}, "input must be"),
        ({"input": None}, "input must be"),
        ({"input": "\ud800"}, "input must be"),
        ({"input": "a", "dimensions": 385}, "at most 384"),
        ({"input": "a", "input_type": "banana"}, "input_type"),
        ({"input": "a", "unknown": 1}, "unknown"),
    ],
)
def test_mistakes_are_told_in_openais_form(server: Server, body: dict[str, Any], says: str) -> None:
    reply = httpx.post(
        f"{server.url}/v1/embeddings",
        content=json.dumps({"model": "tiny", **body}),
        headers={"Content-Type": "application/json"},
        timeout=60,
    )
    assert reply.status_code in {400, 404}
    assert says in reply.json()["error"]["message"]


@pytest.mark.parametrize("content", [b'{"input": "\xff\xfe", "model": "tiny"}', b"{", b"", b"\x00" * 100, b"[1]"])
def test_bodies_that_are_no_json(server: Server, content: bytes) -> None:
    reply = httpx.post(
        f"{server.url}/v1/embeddings", content=content, headers={"Content-Type": "application/json"}, timeout=60
    )
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_are_refused(server: Server, chunked: bool) -> None:
    body = json.dumps({"model": "tiny", "input": "a" * 10_000_000}).encode()
    content = iter([body[start : start + 1_000_000] for start in range(0, len(body), 1_000_000)]) if chunked else body
    # the server may close while the client still writes
    with contextlib.suppress(httpx.WriteError):
        assert httpx.post(f"{server.url}/v1/embeddings", content=content, timeout=60).status_code == 413
    assert post(server, input="a").status_code == 200


def test_slow_clients_do_not_hold_up_others(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        for number, connection in enumerate(slow):
            head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
            connection.sendall(head + (b"Content-Length: 1000\r\n\r\n{" if number % 2 else b"X-Slow"))
        start = time.monotonic()
        assert post(server, input="a").status_code == 200
        assert time.monotonic() - start < 10
    finally:
        for connection in slow:
            connection.close()


def test_requests_at_once_share_batches_and_get_their_own_vectors(server: Server) -> None:
    texts = [f"text number {number} " * (1 + number % 7) for number in range(64)]
    before = metric(server, "embeddings_batch_texts_count")
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        replies = list(pool.map(lambda text: vectors(post(server, input=text))[0], texts))
    assert metric(server, "embeddings_batch_texts_count") - before < 64
    np.testing.assert_allclose(replies, vectors(post(server, input=texts)), atol=1e-5)


def test_metrics_and_metadata_and_logs_without_texts(server: Server, tiny_model: Path) -> None:
    post(server, input="a very secret text")
    assert metric(server, 'embeddings_requests_total{status="200"}') > 0
    facts = httpx.get(f"{server.url}/v1/metadata").json()
    assert facts["contract"]["dimension"] == 384
    # what an index of the checkpoint's vectors is compared with
    checkpoint = Contract.load(tiny_model / "contract.json")
    assert facts["source_sha256"] == checkpoint.weights_sha256
    assert facts["index_version"] == checkpoint.index_version()
    assert "secret" not in server.log.read_text()
    assert {"event", "status", "side", "texts", "tokens", "ms"} <= set(server.entries()[-1])
    assert metric(server, 'embeddings_batch_texts_bucket{le="1.0"}') > 0


def test_refusals_are_counted_and_logged_too(exported: Path, tmp_path: Path) -> None:
    limits = ("--api-key-env=SERVE_TEST_KEY", "--body-bytes=1000", "--body-seconds=0.5")
    with running(exported, tmp_path / "log", *limits, SERVE_TEST_KEY="k") as server:
        url, headers = f"{server.url}/v1/embeddings", {"Authorization": "Bearer k"}
        assert post(server, input="a").status_code == 401
        assert httpx.post(url, content=b"a" * 2000, headers=headers).status_code == 413
        assert httpx.post(url, json={"model": "tiny"}, headers=headers).status_code == 400
        assert httpx.post(url, content=iter([b"{", b"}"]), headers=headers).status_code == 400
        metrics = httpx.get(f"{server.url}/v1/metrics", headers=headers).text
        for status, count in ((401, 1), (413, 1), (400, 2)):
            assert f'embeddings_requests_total{{status="{status}"}} {count}.0' in metrics
        assert [entry["status"] for entry in server.entries()] == [401, 413, 400, 400]


def metric(server: Server, name: str) -> float:
    lines = httpx.get(f"{server.url}/v1/metrics").text.splitlines()
    return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


def test_with_a_key_only_health_is_open(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log", "--api-key-env=SERVE_TEST_KEY", SERVE_TEST_KEY="s3cret\r") as server:
        assert httpx.get(f"{server.url}/v1/health/ready").status_code == 200
        assert httpx.get(f"{server.url}/v1/metrics").status_code == 401
        assert post(server, input="a").status_code == 401
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="s3cret") as client:
            assert client.embeddings.create(input="a", model="tiny").data
        assert "s3cret" not in " ".join(psutil.Process(server.process.pid).cmdline())


def test_sigterm_under_load_answers_what_was_accepted(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log") as server, concurrent.futures.ThreadPoolExecutor(16) as pool:
        # past the guards, in the queue, when the signal comes
        jobs = [pool.submit(post, server, input=["some words to embed " * 20] * 16) for _ in range(16)]
        deadline = time.monotonic() + 30
        while metric(server, "embeddings_waiting_tokens") == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        assert [job.result().status_code for job in jobs] == [200] * 16
        server.process.wait(30)
    with pytest.raises(httpx.ConnectError):
        post(server, input="a")


def test_kill_under_load_and_restart_at_the_same_port(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log") as server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(post, server, input=["words " * 50] * 32) for _ in range(8)]
        time.sleep(0.5)
        server.process.kill()
        server.process.wait()
        concurrent.futures.wait(jobs, 30)
        port = server.url.rsplit(":", 1)[1]
        again = Server(exported, tmp_path / "log2", f"--port={port}")
        try:
            assert post(again, input="a").status_code == 200
        finally:
            again.process.kill()
            again.process.wait()


def test_generated_requests_find_no_server_error(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    before = len(server.entries())
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", "--checks=not_a_server_error"),
        *("--max-examples=15", "--seed=1", "--request-timeout=30", "--phases=examples,coverage,fuzzing"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "/v1/embeddings" in httpx.get(f"{server.url}/openapi.json").text
    entries = [entry for entry in server.entries()[before:] if entry["event"] == "embeddings"]
    assert len(entries) >= 5, "requests that pass the schema reach the model"
    assert all(entry["status"] < 500 for entry in entries)
