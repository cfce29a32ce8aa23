"""Dynamic batching: texts of all requests that wait share batches of like length, bounded by tokens.

While one group of batches is computed the next one gathers, so nobody waits for a timer: a lone request starts at once,
and under load batches fill by themselves. Requests take turns, so that a large one does not hold up the small ones.
"""

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scripts.common.batching import plan_batches
from scripts.common.encoder import pad

# Texts are gathered up to so many batches' worth of tokens and sorted by length: more saves padding, but costs latency
GATHER = 4
Forward = Callable[[np.ndarray, np.ndarray], np.ndarray]


class QueueFullError(Exception):
    """More tokens wait than the server can answer in reasonable time."""


@dataclasses.dataclass(eq=False)
class _Request:
    tokens: list[list[int]]
    vectors: np.ndarray
    done: asyncio.Future[None]
    started: int = 0
    finished: int = 0

    @property
    def waiting(self) -> int:
        """Tokens of texts that are in no batch yet."""
        return sum(map(len, self.tokens[self.started :]))


class Batcher:
    """The model behind one worker thread, so that the event loop always has time for health checks.

    Args:
        forward: Vectors ``[batch, dimension]`` of padded ids and mask ``[batch, tokens]``.
        dimension: Length of a vector.
        token_budget: Tokens in a batch, padding included.
        queue_tokens: Tokens that may wait; a request that comes to an empty queue is always taken.
        observe: Told of each batch: number of texts and of tokens, padding included.
    """

    def __init__(
        self,
        forward: Forward,
        dimension: int,
        *,
        token_budget: int,
        queue_tokens: int,
        observe: Callable[[int, int], None] = lambda _texts, _tokens: None,
    ) -> None:
        self._forward, self._dimension, self._budget, self._limit = forward, dimension, token_budget, queue_tokens
        self._observe = observe
        self._requests: deque[_Request] = deque()
        self._worker = ThreadPoolExecutor(1, "model")
        self._task: asyncio.Task[None] | None = None
        self.waiting_tokens = 0

    async def embed(self, tokens: list[list[int]]) -> np.ndarray:
        """Float32 vectors ``[len(tokens), dimension]``; a caller that is cancelled takes its texts from the queue.

        Raises:
            QueueFullError: Too much waits already.
        """
        size = sum(map(len, tokens))
        if self.waiting_tokens and self.waiting_tokens + size > self._limit:
            raise QueueFullError
        vectors = np.empty((len(tokens), self._dimension), np.float32)
        request = _Request(tokens, vectors, asyncio.get_running_loop().create_future())
        self.waiting_tokens += size
        self._requests.append(request)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        try:
            await request.done
        finally:
            if request in self._requests:
                self._requests.remove(request)
                self.waiting_tokens -= request.waiting
        return vectors

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while taken := self._gather():
            lengths = [len(request.tokens[row]) for request, row in taken]
            for indices in plan_batches(lengths, self._budget):
                batch = [taken[i] for i in indices if not taken[i][0].done.done()]
                if not batch:
                    continue
                ids, mask = pad([request.tokens[row] for request, row in batch])
                try:
                    vectors = await loop.run_in_executor(self._worker, self._forward, ids, mask)
                except Exception as error:  # the requests of this batch fail, not the server
                    for request, _ in batch:
                        if not request.done.done():
                            request.done.set_exception(error)
                    continue
                self._observe(len(batch), ids.size)
                for (request, row), vector in zip(batch, vectors, strict=True):
                    request.vectors[row] = vector
                    request.finished += 1
                    if request.finished == len(request.tokens) and not request.done.done():
                        request.done.set_result(None)

    def _gather(self) -> list[tuple[_Request, int]]:
        """The next texts, one of each request in turn; requests with nothing left leave the queue."""
        taken: list[tuple[_Request, int]] = []
        size = 0
        while self._requests and size < GATHER * self._budget:
            request = self._requests.popleft()
            taken.append((request, request.started))
            length = len(request.tokens[request.started])
            size += length
            self.waiting_tokens -= length
            request.started += 1
            if request.started < len(request.tokens):
                self._requests.append(request)
        return taken
