"""The traffic to one endpoint: how many requests are under way, when to wait, when to give up, when to stop paying."""

import contextlib
import email.utils
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from scripts.common.errors import UserError
from scripts.common.replies import ReplyStore

# Seconds: the first pause after a failure, the longest, and the longest that an endpoint may ask for
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_RETRY_AFTER = 0.5, 60.0, 600.0
# Seconds: the first pause of all after an endpoint says that it is asked too often, and not for how long; and how long
# a request waits in all for an endpoint that goes on saying so
BUSY_PAUSE, PATIENCE = 2.0, 900.0
# Requests that fail one after the other, each after all its tries, before an endpoint counts as dead
DEAD_AFTER = 5
_STOPPED = "stopped before this request was sent"
# Seconds between two looks at what other jobs have spent
REFRESH = 5.0


class BudgetError(UserError):
    """The next request could pass the budget, so it was not sent."""


class FailedRequestError(UserError):
    """One request failed for good, after all its tries; others may go well."""


class RefusedRequestError(FailedRequestError):
    """The endpoint answers, but refuses this one request, as content filters do."""


class DeadEndpointError(UserError):
    """Several requests in a row failed: the run ends rather than wait for each of those that are left."""


class Traffic:
    """Gate, pause and circuit breaker of one endpoint, shared by the threads of a job.

    Args:
        parallel: Requests under way at once. Those that wait for another try do not count.
    """

    def __init__(self, parallel: int) -> None:
        self._slots = threading.BoundedSemaphore(parallel)
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._failed = self._pauses = 0

    @contextlib.contextmanager
    def slot(self, stop: threading.Event) -> Iterator[None]:
        """Hold one of the request slots, once no pause is on; :class:`FailedRequestError` when ``stop`` is set."""
        while True:
            self._slots.acquire()
            wait = self._not_before - time.monotonic()
            if wait <= 0:
                break
            self._slots.release()
            # not all at the same moment
            stop.wait(wait + random.uniform(0, min(1.0, wait)))
            if stop.is_set():
                raise FailedRequestError(_STOPPED)
        try:
            if stop.is_set():
                raise FailedRequestError(_STOPPED)
            yield
        finally:
            self._slots.release()

    def pause_all(self, asked: float | None) -> float:
        """Send nothing for a while: the endpoint said that it is asked too often.

        Args:
            asked: Seconds that it asked for; ``None`` takes a pause that doubles until a request is answered.

        Returns:
            Seconds of the pause.
        """
        with self._lock:
            now = time.monotonic()
            if asked is None:
                # those that were under way at the same time are refused for the same reason
                self._pauses += now >= self._not_before
                asked = min(LONGEST_PAUSE, BUSY_PAUSE * 2 ** min(self._pauses - 1, 10))
            self._not_before = max(self._not_before, now + asked)
            return asked

    def succeeded(self) -> None:
        """A request was answered."""
        with self._lock:
            self._failed = self._pauses = 0

    def failed(self) -> bool:
        """A request failed for good; whether the endpoint now counts as dead."""
        with self._lock:
            self._failed += 1
            return self._failed >= DEAD_AFTER

    @property
    def dead(self) -> bool:
        """Whether the endpoint counts as dead."""
        return self._failed >= DEAD_AFTER


def pause_before(attempt: int) -> float:
    """Seconds before try ``attempt`` + 1 (from 0): "full jitter" between 0 and a bound that doubles.

    Brooker 2015, "Exponential Backoff And Jitter", AWS Architecture Blog.
    """
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, 10.2.3: seconds or a date), or ``None``."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER) if math.isfinite(seconds) else None


def estimate_tokens(text: str) -> int:
    """Tokens of a text without its model's tokenizer: a quarter of its ASCII characters, and every other character.

    English prose has 4 to 5 characters a token in the vocabularies of 2026, code about 3.5; scripts other than Latin
    have 1 to 2 characters a token. The estimate is therefore high rather than low.
    """
    ascii_only = sum(map(str.isascii, text))
    return math.ceil(ascii_only / 4) + len(text) - ascii_only


def price_of(model: str, prices: Mapping[str, Mapping[str, float]], tokens: Mapping[str, Any]) -> float:
    """Money for prompt and completion tokens, by ``llm.prices`` (per million tokens); 0 for a model that has none."""
    price = prices.get(model, {})
    return sum((tokens.get(f"{side}_tokens") or 0) * price.get(side, 0.0) for side in ("prompt", "completion")) / 1e6


class Budget:
    """What may be spent on the replies of one store, over all runs and jobs that write to it.

    A request is sent when it stays within the budget at its most expensive (all of ``max_tokens`` used), together with
    those under way. Jobs that run side by side see each other's finished replies within seconds, but not what the
    others have under way, by which they may pass the budget together.

    Args:
        store: The replies that are paid for.
        max_cost: Money; ``None`` is no limit.
        max_tokens: Prompt and completion tokens together; ``None`` is no limit.
        prices: ``llm.prices``.
    """

    def __init__(
        self,
        store: ReplyStore,
        *,
        max_cost: float | None = None,
        max_tokens: int | None = None,
        prices: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self.store, self.max_cost, self.max_tokens, self.prices = store, max_cost, max_tokens, prices or {}
        self._lock = threading.Lock()
        self._reserved = {"cost": 0.0, "tokens": 0}
        self._lost = {"cost": 0.0, "tokens": 0}
        self._looked = 0.0

    def spent(self) -> tuple[float, int]:
        """Money and tokens of all replies in the store."""
        cost, tokens = 0.0, 0
        for model, usage in self.store.usage().items():
            cost += price_of(model, self.prices, usage)
            tokens += usage["prompt_tokens"] + usage["completion_tokens"]
        return cost, tokens

    @contextlib.contextmanager
    def reserve(self, model: str, prompt_tokens: int, completion_tokens: int) -> Iterator[None]:
        """Hold the most that a request can take while it is under way; :class:`BudgetError` when that is too much."""
        if self.max_cost is None and self.max_tokens is None:
            yield
            return
        cost, tokens = self._most(model, prompt_tokens, completion_tokens)
        with self._lock:
            if time.monotonic() - self._looked > REFRESH:
                self.store.refresh()
                self._looked = time.monotonic()
            self._check(cost, tokens)
            self._reserved["cost"] += cost
            self._reserved["tokens"] += tokens
        try:
            yield
        finally:
            with self._lock:
                self._reserved["cost"] -= cost
                self._reserved["tokens"] -= tokens

    def lose(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Book a request whose reply did not come in time at its most: the endpoint may have written all of it."""
        cost, tokens = self._most(model, prompt_tokens, completion_tokens)
        with self._lock:
            self._lost["cost"] += cost
            self._lost["tokens"] += tokens

    def _most(self, model: str, prompt_tokens: int, completion_tokens: int) -> tuple[float, int]:
        tokens = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        return price_of(model, self.prices, tokens), sum(tokens.values())

    def _check(self, cost: float, tokens: int) -> None:
        spent_cost, spent_tokens = self.spent()
        spent_cost, spent_tokens = spent_cost + self._lost["cost"], spent_tokens + self._lost["tokens"]
        for name, limit, used, held, more in (
            ("llm.max_cost", self.max_cost, spent_cost, self._reserved["cost"], cost),
            ("llm.max_tokens", self.max_tokens, spent_tokens, self._reserved["tokens"], tokens),
        ):
            if limit is not None and used + held + more > limit:
                raise BudgetError(
                    f"{name} is {limit:g}; {used:g} are spent, {held:g} under way, and the next request may take "
                    f"{more:g}. It was not sent. All replies so far are kept in {self.store.folder}: raise {name} "
                    "and run again to go on from here, and see plan.json for what the whole takes."
                )


def wait_and_retry(
    send: Callable[[], Any],
    *,
    traffic: Traffic,
    tries: int,
    may_retry: Callable[[Exception], tuple[bool, Mapping[str, str], bool]],
    kinds: Sequence[type[Exception]],
    stop: threading.Event,
) -> Any:
    """The answer of ``send``, tried ``tries`` times; the last error is raised.

    An endpoint that says it is asked too often uses up no try: that is no failure, but waiting for it has an end.

    Args:
        send: Sends one request.
        traffic: Slots and pauses.
        tries: How often at most.
        may_retry: Of an error: whether another try makes sense, the answer's headers, and whether it says that the
            endpoint is asked too often, so that all requests wait.
        kinds: Errors that ``send`` raises.
        stop: When set, nothing is sent any more.
    """
    attempt, patience = 0, math.inf
    while True:
        try:
            with traffic.slot(stop):
                answer = send()
        except tuple(kinds) as error:
            again, headers, busy = may_retry(error)
            attempt += not busy
            patience = min(patience, time.monotonic() + PATIENCE) if busy else patience
            if not again or attempt == tries or time.monotonic() > patience:
                raise
            asked = retry_after(headers)
            if busy:
                asked = traffic.pause_all(asked)
            # jitter comes on top of what the endpoint asks for, never instead of it
            stop.wait(pause_before(attempt - 1) if asked is None else asked + random.uniform(0, 0.1 * asked + 0.1))
        else:
            traffic.succeeded()
            return answer
