"""Limits and faults of the server: every refusal has its status, and others are served meanwhile."""

import concurrent.futures
import dataclasses
import json
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from scripts.common.config import defaults
from scripts.common.encoder import open_encoder
from scripts.deploy.api import create_app
from scripts.deploy.limits import Limits
from tests.deploy.conftest import Server, running
from tests.deploy.test_server import metric, post

# takes seconds on one thread, so that others come while it waits
LARGE = ["some words to embed " * 25] * 300


def connect(server: Server) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)))


def in_background(server: Server, **body: Any) -> concurrent.futures.Future[httpx.Response]:
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        return pool.submit(post, server, **body)
    finally:
        pool.shutdown(wait=False)


def wait_for_queue(server: Server) -> None:
    deadline = time.monotonic() + 30
    while metric(server, "embeddings_waiting_tokens") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_queue_refuses_with_429_and_takes_requests_again_afterwards(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log", "--queue-tokens=1000") as server:
        large = in_background(server, input=LARGE)
        wait_for_queue(server)
        refused = post(server, input=LARGE[:50])
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert httpx.get(f"{server.url}/v1/health/ready").status_code == 200
        assert large.result().status_code == 200
        assert post(server, input=LARGE[:50]).status_code == 200


def test_an_answer_that_takes_too_long_is_504_and_leaves_the_queue(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log", "--request-seconds=0.3") as server:
        late = post(server, input=LARGE)
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        assert metric(server, "embeddings_waiting_tokens") == 0
        assert post(server, input="a").status_code == 200


def test_slow_bodies_get_408_and_connections_without_headers_are_closed(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log", "--body-seconds=0.5", "--header-seconds=0.5") as server:
        silent, half, slow = (connect(server) for _ in range(3))
        half.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nX-Slow")
        slow.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert post(server, input="a").status_code == 200
        answers = []
        for connection in (silent, half, slow):
            connection.settimeout(10)
            answers.append(connection.recv(10_000))
            connection.close()
        assert answers[:2] == [b"", b""]
        assert answers[2].startswith(b"HTTP/1.1 408")


def test_a_slow_loris_does_not_take_the_servers_connections(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log", "--header-seconds=2") as server:
        flood = [connect(server) for _ in range(400)]
        stop = threading.Event()

        def drip() -> None:
            while not stop.wait(0.3):
                for connection in flood:
                    try:
                        connection.sendall(b"X: y\r\n")
                    except OSError:
                        continue

        for connection in flood:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\n")
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            for _ in range(5):
                start = time.monotonic()
                assert post(server, input="a").status_code == 200
                assert time.monotonic() - start < 2
            deadline = time.monotonic() + 20
            # dripping headers does not restart the clock
            while len(psutil.Process(server.process.pid).net_connections()) > 10:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            stop.set()
            thread.join()
            for connection in flood:
                connection.close()


def test_while_draining_new_requests_get_503_and_accepted_ones_their_answer(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log") as server:
        large = in_background(server, input=LARGE)
        wait_for_queue(server)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        refused = post(server, input="a")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert httpx.get(f"{server.url}/v1/health/ready").status_code == 503
        assert httpx.get(f"{server.url}/v1/health/live").status_code == 200
        assert large.result().status_code == 200
        server.process.wait(10)


def test_under_load_sigterm_loses_nothing_that_was_accepted(exported: Path, tmp_path: Path) -> None:
    """Clients that keep asking see answers, then 503 or a closed door; no answer breaks off."""
    seen: list[int | str] = []

    def client() -> None:
        with httpx.Client(timeout=60) as session:
            while True:
                try:
                    reply = session.post(f"{server.url}/v1/embeddings", json={"model": "tiny", "input": LARGE[:4]})
                    seen.append(reply.status_code)
                    json.loads(reply.content)
                except httpx.ConnectError:
                    return
                # an idle kept connection is closed as the request sets out; it was not accepted
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                    seen.append(type(error).__name__)
                    return
                if reply.status_code == 503:
                    return

    with running(exported, tmp_path / "log") as server:
        threads = [threading.Thread(target=client) for _ in range(16)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        server.process.wait(30)
        accepted = [entry["status"] for entry in server.entries() if entry["event"] == "embeddings"]
    assert seen.count(200) == accepted.count(200) == len(accepted) > 16
    assert set(seen) <= {200, 503, "RemoteProtocolError", "ReadError", "WriteError"}


def test_a_hundred_thousand_inputs_and_ten_megabytes_leave_the_server_quick(server: Server) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    for _ in range(3):
        assert post(server, input=["a"] * 100_000).status_code == 400
        assert post(server, input="a" * 10_000_000).status_code == 413
        # faulty in each of a million elements
        for faulty in ([1, *["a"] * 1_000_000], [["a"] * 1_000_000], ["a", *[1] * 1_000_000]):
            start = time.monotonic()
            assert post(server, input=faulty).status_code == 400
            assert time.monotonic() - start < 3
        assert post(server, input="a", **{f"k{number}": 1 for number in range(400_000)}).status_code == 400
    assert post(server, input="a").status_code == 200
    assert psutil.Process(server.process.pid).memory_info().rss - before < 200_000_000


def test_a_client_that_leaves_is_not_computed_for(exported: Path, tmp_path: Path) -> None:
    with running(exported, tmp_path / "log") as server:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/embeddings", json={"model": "tiny", "input": LARGE * 4}, timeout=1)
        deadline = time.monotonic() + 5
        while not server.entries():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.entries()[0]["status"] == 499
        assert metric(server, "embeddings_waiting_tokens") == 0


def test_endless_texts_do_not_hold_up_short_ones(server: Server) -> None:
    """Whole ones of 7 MB would take seconds each on the tokenizer's thread."""
    long = [in_background(server, input="some words to embed " * 350_000) for _ in range(4)]
    start = time.monotonic()
    assert [job.result().status_code for job in long] == [200] * 4
    assert time.monotonic() - start < 8


def test_megabytes_of_blanks_are_refused_beyond_some_and_hold_up_nobody(server: Server) -> None:
    blanks = [in_background(server, input=" " * 1_000_000 + "a") for _ in range(24)]
    while not any(job.running() for job in blanks):
        time.sleep(0.01)
    start = time.monotonic()
    assert post(server, input="a").status_code == 200
    assert time.monotonic() - start < 3
    assert {job.result().status_code for job in blanks} == {200, 429}


def test_a_server_whose_model_no_longer_computes_is_not_ready(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.testclient import TestClient

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("scripts.deploy.batcher.plan_batches", broken)
    app = create_app(open_encoder(exported / "contract.json"), "tiny")
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/v1/health/ready").status_code == 200
        assert client.post("/v1/embeddings", json={"model": "tiny", "input": "a"}).status_code == 500
        assert client.get("/v1/health/ready").status_code == 503
        assert client.get("/v1/health/live").status_code == 200


def test_what_stops_a_server_waits_for_its_longest_request() -> None:
    limits = Limits(request_seconds=300)
    assert limits.arguments() == ["--request-seconds=300"]
    assert limits.stop_seconds > limits.drain_seconds >= limits.body_seconds + limits.request_seconds
    assert defaults()["deploy"]["limits"] == dataclasses.asdict(Limits())


@pytest.mark.slow
def test_memory_stays_flat(server: Server) -> None:
    """The long run is ``python -m tests.benchmarks.memory``; this sees a leak of some kilobytes a request."""
    from tests.benchmarks.memory import drive

    facts = drive(server.url, "tiny", requests=3000, clients=8, process=psutil.Process(server.process.pid))
    assert facts["errors"] == 0
    assert facts["growth_bytes_per_request"] < 3000
