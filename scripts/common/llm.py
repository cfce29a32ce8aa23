"""One way to a language model: an OpenAI-compatible endpoint, with replies kept and keys kept out of sight."""

import contextlib
import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from scripts.common.errors import UserError
from scripts.common.files import without_half_pairs
from scripts.common.job import log
from scripts.common.llm_traffic import (
    DEAD_AFTER,
    Budget,
    DeadEndpointError,
    FailedRequestError,
    RefusedRequestError,
    Traffic,
    estimate_tokens,
    price_of,
    wait_and_retry,
)
from scripts.common.redaction import redacted_url
from scripts.common.replies import ReplyStore

LOCAL = "local"
Messages = list[dict[str, str]]

# How replies are held to a form, from the strictest; an endpoint that refuses one is asked with the next
FORMATS = ("json_schema", "json_object", "none")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Statuses below 500 of a passing trouble, as in OpenAI's own client
_PASSING = {408, 409, 429}
# Statuses that no other request will escape: no money, no such address
_FOR_ALL = {402, 404, 405}
# How vLLM, NIM, llama.cpp and OpenAI say that a request does not fit the model
_TOO_LONG = re.compile(
    r"(context|input|prompt|sequence).{0,40}(length|size|window)|too (long|large|many tokens)|"
    r"(maximum|exceed).{0,60}(tokens?|length|context)",
    re.IGNORECASE,
)


class RequestTooLongError(UserError):
    """This one request does not fit the model; shorter ones do."""


def check_egress(base_url: str, allowed: Sequence[str], size: int | None = None) -> None:
    """Refuse to send text to a host that is neither loopback nor named in ``allow_egress``.

    Args:
        base_url: Address of the endpoint.
        allowed: ``allow_egress``.
        size: Bytes of text that would be sent, where that is known.

    Raises:
        UserError: The host is not allowed; the message names it, the bytes and the option.
    """
    host = urlsplit(base_url).hostname or ""
    if not is_loopback(host) and host not in allowed:
        amount = "" if size is None else f" (about {size:,} bytes)"
        raise UserError(
            f"document text{amount} would leave this machine for {host}, which allow_egress does not name. Nothing was "
            f"sent. If your data policy permits that, add it: allow_egress: [{host}]"
        )


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_key(variable: str | None) -> str | None:
    """An API key from the environment; :class:`UserError` names the variable (never the key) when it is not set."""
    if variable is None:
        return None
    if not _VARIABLE.fullmatch(variable):
        raise UserError(
            "what stands for the name of the API key's environment variable is no such name, and is not shown, as it "
            "may be the key itself: export the key, and write the variable's name into the configuration."
        )
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"environment variable {variable} is not set: export it with the endpoint's API key.")
    if not key.isascii() or not key.isprintable() or " " in key:
        # such a key cannot be a header, and the error about that would show it
        raise UserError(f"environment variable {variable} holds no API key: white space or other signs are in it.")
    return key


def open_client(
    base_url: str, *, key_variable: str | None, allowed: Sequence[str], timeout: float, max_retries: int
) -> Any:
    """An ``openai.OpenAI`` that sends text to the host of ``base_url`` and to no other.

    It follows no redirect, and reaches loopback without the proxy that the environment may name.

    Raises:
        UserError: The host is not allowed, or the key is not set.
    """
    check_egress(base_url, allowed)
    import openai

    direct = is_loopback(urlsplit(base_url).hostname or "")
    return openai.OpenAI(
        base_url=base_url,
        api_key=read_key(key_variable) or "none",
        timeout=timeout,
        max_retries=max_retries,
        # one connection for each request under way: their number is bounded elsewhere
        http_client=openai.DefaultHttpxClient(follow_redirects=False, trust_env=not direct),
    )


def endpoint_options(
    config: Mapping[str, Any], provider: str, place: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What :class:`Endpoint` takes from the configuration for a provider.

    Args:
        config: The whole configuration.
        provider: A key of ``llm.providers``.
        place: ``base_url`` and ``api_key_env``, where they are not those of ``llm.providers``.
    """
    place = place or config["llm"]["providers"][provider]
    return {
        "provider": provider,
        "base_url": place["base_url"],
        "key_variable": place["api_key_env"],
        "allowed": config["allow_egress"],
        "timeout": config["llm"]["timeout"],
        "max_retries": config["llm"]["max_retries"],
    }


class Endpoint:
    """A model at an endpoint, asked through a reply store.

    Args:
        provider: Name of the provider; part of a reply's key, its address is not.
        model: Model name.
        base_url: Address, usually ending in ``/v1``.
        key_variable: Environment variable with the API key.
        allowed: Hosts that text may go to.
        store: Where replies are kept.
        timeout: Seconds for one reply.
        max_retries: Tries after 408, 409, 5xx, time-outs and dropped connections, with growing pauses with jitter, and
            none shorter than Retry-After says. After 429 and 503 a request waits its turn, however often, for
            ``llm_traffic.PATIENCE`` seconds at most.
        parallel: Requests under way at once.
        budget: What may be spent; ``None`` is no limit.
    """

    def __init__(
        self,
        *,
        provider: str,
        model: str,
        base_url: str,
        key_variable: str | None,
        allowed: Sequence[str],
        store: ReplyStore,
        timeout: float,
        max_retries: int,
        parallel: int = 4,
        budget: Budget | None = None,
    ) -> None:
        self.provider, self.model, self.base_url = provider, model, base_url
        self.key_variable = key_variable
        self.store = store
        self.budget = budget or Budget(store)
        self.usage = {"requests": 0, "reused": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self.stopped = threading.Event()
        self._counting = threading.Lock()
        self._tries = max_retries + 1
        self._traffic = Traffic(parallel)
        # the pauses are ours: the client's own do not give a slot free, nor tell the other threads
        self._client = open_client(base_url, key_variable=key_variable, allowed=allowed, timeout=timeout, max_retries=0)

    def stop(self) -> None:
        """Send nothing more; threads that wait for a slot or a pause end."""
        self.stopped.set()

    def cost(self) -> float:
        """Money for the requests of this process."""
        return price_of(self.model, self.budget.prices, self.usage)

    def _send_with_retries(self, send: Callable[[], Any]) -> Any:
        """The answer of ``send``; :class:`UserError` after the last try, :class:`DeadEndpointError` after too many."""
        import openai

        if self._traffic.dead:
            raise DeadEndpointError(self._dead())
        try:
            with self._explained():
                return wait_and_retry(
                    send,
                    traffic=self._traffic,
                    tries=self._tries,
                    may_retry=_may_retry,
                    kinds=[openai.APIError, ValueError],
                    stop=self.stopped,
                )
        except (RefusedRequestError, RequestTooLongError):
            # who refuses one request lives
            self._traffic.succeeded()
            raise
        except FailedRequestError as error:
            if not self.stopped.is_set() and self._traffic.failed():
                raise DeadEndpointError(f"{self._dead()} The last one: {error}") from error
            raise

    def _dead(self) -> str:
        return (
            f"{redacted_url(self.base_url)} counts as dead: {DEAD_AFTER} requests in a row failed for good, each after "
            "llm.max_retries, so the others were not sent. Run again once it answers: replies so far are kept."
        )

    def _count(self, usage: dict[str, Any]) -> None:
        with self._counting:
            self.usage["requests"] += 1
            for name in ("prompt_tokens", "completion_tokens"):
                self.usage[name] += usage.get(name) or 0

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the client's errors into :class:`UserError` with the fix, and never with the key."""
        import openai

        try:
            yield
        except openai.AuthenticationError:
            # servers quote the key they refuse, so nothing of the answer is shown
            raise UserError(self._key_refused()) from None
        except openai.NotFoundError as error:
            raise UserError(
                f"{redacted_url(self.base_url)} does not know model {self.model} (404). Correct the model's name, or "
                f"llm.providers.{self.provider}.base_url, which usually ends in /v1."
            ) from error
        except openai.APITimeoutError as error:
            raise FailedRequestError(
                f"{redacted_url(self.base_url)} gave no reply in time. Raise llm.timeout, or ask less at once."
            ) from error
        except openai.APIConnectionError as error:
            cure = (
                "The bundled generator has ended; its log is logs/llm_server.log. Run"
                if self.provider == LOCAL
                else f"Start that server or correct llm.providers.{self.provider}.base_url, then run"
            )
            raise FailedRequestError(
                f"{redacted_url(self.base_url)} does not answer ({error.__cause__ or error}). {cure} again: replies so "
                "far are kept."
            ) from error
        except openai.APIStatusError as error:
            text = self._without_key(detail(error))
            kind = FailedRequestError
            if 400 <= error.status_code < 500 and error.status_code not in _PASSING | _FOR_ALL:
                may_be_long = error.status_code in {400, 413, 422}
                kind = RequestTooLongError if may_be_long and _TOO_LONG.search(text) else RefusedRequestError
            raise kind(
                f"{redacted_url(self.base_url)} answered {error.status_code} to model {self.model}: {text[:300]}"
            ) from None
        except (openai.APIError, ValueError) as error:
            raise FailedRequestError(
                f"{redacted_url(self.base_url)} answered something that is no JSON of OpenAI's form "
                f"({type(error).__name__}). Correct llm.providers.{self.provider}.base_url if that goes on."
            ) from None

    def _key_refused(self) -> str:
        if self.key_variable is None:
            return (
                f"{redacted_url(self.base_url)} wants a key: name its variable in "
                f"llm.providers.{self.provider}.api_key_env."
            )
        return f"{redacted_url(self.base_url)} refused the key in {self.key_variable}: it is invalid or expired."

    def _without_key(self, text: str) -> str:
        return text if self.key_variable is None else text.replace(self._client.api_key, "***")


def _may_retry(error: Exception) -> tuple[bool, Mapping[str, str], bool]:
    """Whether another try makes sense, the answer's headers, and whether the endpoint is asked too often.

    A body that is no JSON (an ``APIResponseValidationError`` or ``ValueError``) is
    what a proxy in trouble sends.
    """
    import openai

    if isinstance(error, openai.APIConnectionError):
        return True, {}, False
    if isinstance(error, openai.APIStatusError):
        code = error.status_code
        return code in _PASSING or code >= 500, error.response.headers, code in {429, 503}
    return True, {}, False


def detail(error: Any) -> str:
    """What an ``openai.APIStatusError`` says; newer clients leave out a body that is not in OpenAI's own form."""
    return error.message if " - " in error.message or not error.body else f"{error.message} - {error.body}"


class ChatModel(Endpoint):
    """A chat model.

    Args:
        sampling: ``temperature``, ``top_p``.
        **endpoint: See :class:`Endpoint`.
    """

    def __init__(self, *, sampling: dict[str, float], **endpoint: Any) -> None:
        super().__init__(**endpoint)
        self.sampling = sampling
        self._format = 0

    def ask(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        seed: int = 0,
        form: str = "",
    ) -> dict[str, Any]:
        """The reply to ``messages`` (``content``, ``finish_reason``, ``usage``), stored if it was asked before.

        Args:
            messages: Chat messages.
            max_tokens: Length limit of the reply.
            schema: JSON Schema the reply must follow (strict ``response_format``). An endpoint that refuses that is
                asked for any JSON object, or freely, so ``messages`` or ``form`` must describe the form as well.
            seed: Sampling seed; a retry with another seed is another request.
            form: The form of the reply in words, put behind the last message where the endpoint refuses the schema; no
                part of the request's key, as the schema says the same.

        Raises:
            RequestTooLongError: The messages do not fit the model.
            UserError: The endpoint is dead, refuses the key, or does not know the model.
        """
        request = self._request(messages, max_tokens, schema, seed)
        key = self._key(request)
        reply = self.store.get(key)
        if reply is not None:
            self.usage["reused"] += 1
            return reply
        prompt = sum(estimate_tokens(message["content"]) for message in messages)
        with self.budget.reserve(self.model, prompt, max_tokens):
            start = time.monotonic()
            reply = self._send_with_retries(lambda: self._send_booked(request, form, prompt))
            if not reply["usage"]:
                # an endpoint that does not count is not free
                reply["usage"] = {"prompt_tokens": prompt, "completion_tokens": estimate_tokens(reply["content"])}
            self.store.put(key, {"model": self.model, **reply, "seconds": round(time.monotonic() - start, 3)})
        self._count(reply["usage"])
        return reply

    def _request(self, messages: Messages, max_tokens: int, schema: dict[str, Any] | None, seed: int) -> dict[str, Any]:
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "seed": seed,
            **self.sampling,
        }
        if schema is not None:
            request["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "reply", "strict": True, "schema": schema},
            }
        return request

    def _key(self, request: dict[str, Any]) -> str:
        return self.store.key({"provider": self.provider, **request})

    def _send_booked(self, request: dict[str, Any], form: str, prompt_tokens: int) -> dict[str, Any]:
        import httpx
        import openai

        try:
            return self._send(request, form)
        except openai.APITimeoutError as error:
            if not isinstance(error.__cause__, httpx.ConnectTimeout):
                self.budget.lose(self.model, prompt_tokens, request["max_tokens"])
            raise

    def _send(self, request: dict[str, Any], form: str) -> dict[str, Any]:
        answer = self._complete(request, form)
        if not getattr(answer, "choices", None) or answer.choices[0].message is None:
            raise ValueError("no choices")
        choice = answer.choices[0]
        return {
            # a cut reply may end with half a surrogate pair
            "content": without_half_pairs(choice.message.content or ""),
            "finish_reason": choice.finish_reason,
            "usage": answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) if answer.usage else {},
        }

    def was_asked(
        self, messages: Messages, *, max_tokens: int, schema: dict[str, Any] | None = None, seed: int = 0
    ) -> bool:
        """Whether the reply is in the store, so that asking costs nothing."""
        return self._key(self._request(messages, max_tokens, schema, seed)) in self.store

    def _complete(self, request: dict[str, Any], form: str) -> Any:
        """Send a request; when the endpoint refuses the reply's format, ask from now on with a weaker one."""
        import openai

        level = self._format
        sent = dict(request)
        if FORMATS[level] == "json_object" and "response_format" in sent:
            sent["response_format"] = {"type": "json_object"}
        elif FORMATS[level] == "none":
            sent.pop("response_format", None)
        if level and form and "response_format" in request:
            *before, last = request["messages"]
            sent["messages"] = [*before, {**last, "content": f"{last['content']}\n\n{form}"}]
        try:
            return self._client.chat.completions.create(**sent)
        # some servers answer 500 where they mean 400
        except (openai.BadRequestError, openai.UnprocessableEntityError, openai.InternalServerError) as error:
            if "response_format" not in sent or not re.search("response_format|schema|grammar", detail(error)):
                raise
        # several threads may find out at once
        self._format = max(self._format, level + 1)
        log.warning("%s refuses %s; asking for %s", self.base_url, FORMATS[level], FORMATS[level + 1])
        return self._complete(request, form)
