"""Dynamic batching: texts of all requests that wait share batches of like length, bounded by tokens.

While batches are computed the next ones gather, so nobody waits for a timer: a lone request starts at once, and under
load batches fill by themselves. Requests take turns, so that a large one does not hold up the small ones.

A batch that is alone gets all threads. As soon as there are several, each runs on one thread of its own (a lane):
threads that share a batch wait for each other after every operator, and all of them whenever the system takes the
processor from one (tests/benchmarks/serving.py).
"""

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from scripts.common.batching import plan_batches
from scripts.common.encoder import pad
from scripts.common.job import log

# Texts are gathered up to so many batches' worth of tokens and sorted by length: more saves padding, but costs latency
GATHER = 4
# Batches below this many tokens are not split further to give every lane one
SMALLEST = 128
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


Row = tuple[_Request, int]


class Batcher:
    """The model behind worker threads, so that the event loop always has time for health checks.

    Args:
        forward: Vectors ``[batch, dimension]`` of padded ids and mask ``[batch, tokens]``; for a batch that is alone.
        dimension: Length of a vector.
        token_budget: Tokens in a batch, padding included.
        queue_tokens: Tokens that may wait; a request that comes to an empty queue is always taken.
        observe: Told of each batch: number of texts and of tokens, padding included.
        lanes: Batches computed at once.
        lane_forward: The same as ``forward`` for batches beside others, called from several threads at once.

    Attributes:
        waiting_tokens: Tokens in no batch yet, those announced by :meth:`reserve` included.
        broken: What ended a lane, after which nothing is computed any more; ``None`` while all is well.
    """

    def __init__(
        self,
        forward: Forward,
        dimension: int,
        *,
        token_budget: int,
        queue_tokens: int,
        observe: Callable[[int, int], None] = lambda _texts, _tokens: None,
        lanes: int = 1,
        lane_forward: Forward | None = None,
    ) -> None:
        self._forward, self._lane_forward = forward, lane_forward or forward
        self._dimension, self._budget, self._limit, self._lanes = dimension, token_budget, queue_tokens, lanes
        self._observe = observe
        self._requests: deque[_Request] = deque()
        self._unanswered: set[_Request] = set()
        self._planned: deque[list[Row]] = deque()
        self._workers = ThreadPoolExecutor(lanes, "model")
        # the event loop itself holds tasks weakly
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._computing = 0
        self.waiting_tokens = 0
        self.broken: BaseException | None = None

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Count so many tokens as waiting meanwhile: texts that are still read take their place in the queue.

        Raises:
            QueueFullError: Too much waits already.
        """
        self._admit(size)
        self.waiting_tokens += size
        try:
            yield
        finally:
            self.waiting_tokens -= size

    def _admit(self, size: int) -> None:
        if self.waiting_tokens and self.waiting_tokens + size > self._limit:
            raise QueueFullError

    async def embed(self, tokens: list[list[int]]) -> np.ndarray:
        """Float32 vectors ``[len(tokens), dimension]``; a caller that is cancelled takes its texts from the queue.

        Raises:
            QueueFullError: Too much waits already.
            RuntimeError: A lane broke; the log says why.
        """
        if self.broken:
            raise RuntimeError("the batcher is broken") from self.broken
        size = sum(map(len, tokens))
        self._admit(size)
        vectors = np.empty((len(tokens), self._dimension), np.float32)
        request = _Request(tokens, vectors, asyncio.get_running_loop().create_future())
        self.waiting_tokens += size
        self._requests.append(request)
        self._unanswered.add(request)
        self._wake()
        try:
            await request.done
        finally:
            self._unanswered.discard(request)
            if request in self._requests:
                self._requests.remove(request)
                self.waiting_tokens -= request.waiting
        return vectors

    def _wake(self) -> None:
        """Start one more lane if there is work; a lane that finds more than it takes starts the next."""
        if (self._planned or self._requests) and self._running < self._lanes:
            self._running += 1
            task = asyncio.create_task(self._lane())
            self._tasks.add(task)
            task.add_done_callback(self._lane_ended)

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        """A lane that broke leaves the rest without an answer: they are told so, and so is whoever asks for health."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        self.broken = error
        log.error("a lane of the batcher broke; restart the server", exc_info=error)
        for request in self._unanswered:
            if not request.done.done():
                request.done.set_exception(RuntimeError("the batcher is broken"))

    async def _lane(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._next():
            self._wake()
            alone = not (self._computing or self._planned or self._requests)
            forward = self._forward if alone else self._lane_forward
            self._computing += 1
            try:
                vectors, size = await loop.run_in_executor(self._workers, _compute, forward, batch)
                self._observe(len(batch), size)
            except Exception as error:  # the requests of this batch fail, not the server
                for request, _ in batch:
                    if not request.done.done():
                        request.done.set_exception(error)
                continue
            finally:
                self._computing -= 1
            for (request, row), vector in zip(batch, vectors, strict=True):
                request.vectors[row] = vector
                request.finished += 1
                if request.finished == len(request.tokens) and not request.done.done():
                    request.done.set_result(None)
        # at once, not when the task is seen to be done: a request in between would wait for ever
        self._running -= 1

    def _next(self) -> list[Row]:
        """The next batch, without texts nobody waits for any more; empty when there is none."""
        while True:
            if not self._planned:
                self._plan()
                if not self._planned:
                    return []
            batch = [(request, row) for request, row in self._planned.popleft() if not request.done.done()]
            if batch:
                return batch

    def _plan(self) -> None:
        """Gather texts and sort them into batches, at least one for each lane unless they get too small."""
        taken = self._gather(max(GATHER, 2 * self._lanes) * self._budget)
        lengths = [len(request.tokens[row]) for request, row in taken]
        share = -(-sum(lengths) // self._lanes)
        budget = min(self._budget, max(SMALLEST, share)) if self._lanes > 1 else self._budget
        self._planned.extend([taken[i] for i in indices] for indices in plan_batches(lengths, budget))

    def _gather(self, tokens: int) -> list[Row]:
        """The next texts, one of each request in turn; requests with nothing left leave the queue."""
        taken: list[Row] = []
        size = 0
        while self._requests and size < tokens:
            request = self._requests.popleft()
            taken.append((request, request.started))
            length = len(request.tokens[request.started])
            size += length
            self.waiting_tokens -= length
            request.started += 1
            if request.started < len(request.tokens):
                self._requests.append(request)
        return taken


def _compute(forward: Forward, batch: list[Row]) -> tuple[np.ndarray, int]:
    ids, mask = pad([request.tokens[row] for request, row in batch])
    return forward(ids, mask), ids.size
