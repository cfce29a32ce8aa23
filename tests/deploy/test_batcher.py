"""Batching across requests: turns, bounds, cancellation and failures, with arithmetic in the model's place."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scripts.deploy.batcher import Batcher, QueueFullError


def sums(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.stack([(ids * mask).sum(1), mask.sum(1)], axis=1).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=6), min_size=1),
    st.integers(1, 40),
)
def test_every_request_gets_its_own_rows_within_the_budget(requests: list[list[list[int]]], budget: int) -> None:
    seen: list[tuple[int, int]] = []

    async def run() -> list[np.ndarray]:
        batcher = Batcher(
            sums, 2, token_budget=budget, queue_tokens=10**6, observe=lambda texts, tokens: seen.append((texts, tokens))
        )
        found = await asyncio.gather(*(batcher.embed(rows) for rows in requests))
        assert batcher.waiting_tokens == 0
        return found

    for rows, vectors in zip(requests, asyncio.run(run()), strict=True):
        assert vectors.tolist() == [[sum(row), len(row)] for row in rows]
    assert all(tokens <= budget or texts == 1 for texts, tokens in seen)


def test_a_large_request_does_not_hold_up_a_small_one() -> None:
    order: list[str] = []

    async def run() -> None:
        batcher = Batcher(sums, 2, token_budget=4, queue_tokens=10**6)

        async def ask(name: str, count: int) -> None:
            await batcher.embed([[1, 2]] * count)
            order.append(name)

        await asyncio.gather(ask("large", 500), ask("small", 1))

    asyncio.run(run())
    assert order == ["small", "large"]


def test_queue_is_bounded_but_takes_any_request_when_empty() -> None:
    gate = threading.Event()

    def slow(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        gate.wait(10)
        return sums(ids, mask)

    async def run() -> None:
        batcher = Batcher(slow, 2, token_budget=2, queue_tokens=10)
        first = asyncio.create_task(batcher.embed([[1, 1]] * 50))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await batcher.embed([[1, 1]])
        gate.set()
        assert len(await first) == 50
        assert len(await batcher.embed([[1, 1]])) == 1

    asyncio.run(run())


def test_a_cancelled_request_leaves_the_queue() -> None:
    computed: list[int] = []

    def note(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        computed.append(len(ids))
        return sums(ids, mask)

    async def run() -> None:
        batcher = Batcher(note, 2, token_budget=1, queue_tokens=10**6)
        task = asyncio.create_task(batcher.embed([[1]] * 10_000))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert batcher.waiting_tokens == 0
        assert len(await batcher.embed([[1]])) == 1

    asyncio.run(run())
    assert sum(computed) < 10_000


def test_texts_that_are_still_read_take_their_place_in_the_queue() -> None:
    async def run() -> None:
        batcher = Batcher(sums, 2, token_budget=2, queue_tokens=10)
        # an empty queue takes any request
        with batcher.reserve(50):
            assert batcher.waiting_tokens == 50
            with pytest.raises(QueueFullError), batcher.reserve(1):
                pass
        assert batcher.waiting_tokens == 0
        assert len(await batcher.embed([[1]])) == 1

    asyncio.run(run())


def test_when_a_lane_breaks_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    async def run() -> None:
        batcher = Batcher(sums, 2, token_budget=2, queue_tokens=10)
        assert batcher.broken is None
        monkeypatch.setattr("scripts.deploy.batcher.plan_batches", broken)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="broken"):
                await asyncio.wait_for(batcher.embed([[1, 1]]), 5)
        assert isinstance(batcher.broken, MemoryError)

    asyncio.run(run())


def test_a_fault_of_the_model_fails_its_batch_and_not_the_server() -> None:
    def fragile(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        if (ids == 13).any():
            raise RuntimeError("bad batch")
        return sums(ids, mask)

    async def run() -> None:
        batcher = Batcher(fragile, 2, token_budget=1, queue_tokens=10**6)
        bad, good = await asyncio.gather(batcher.embed([[13]]), batcher.embed([[1]]), return_exceptions=True)
        assert isinstance(bad, RuntimeError)
        assert good.tolist() == [[1, 1]]

    asyncio.run(run())
