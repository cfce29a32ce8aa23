"""One way to a language model: an OpenAI-compatible endpoint, with replies kept and keys kept out of sight."""

import ipaddress
import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from scripts.common.errors import UserError
from scripts.common.replies import ReplyStore

LOCAL = "local"
Messages = list[dict[str, str]]


def check_egress(base_url: str, allowed: Sequence[str]) -> None:
    """Refuse to send text to a host that is neither loopback nor named in ``allow_egress``.

    Raises:
        UserError: The host is not allowed; the message names it and the option.
    """
    host = urlsplit(base_url).hostname or ""
    if not is_loopback(host) and host not in allowed:
        raise UserError(
            f"document text would leave this machine for {host}, which allow_egress does not name. If your data policy "
            f"permits that, add it: allow_egress: [{host}]"
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
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"environment variable {variable} is not set: export it with the endpoint's API key.")
    return key


class ChatModel:
    """A model at an endpoint, asked through a reply store.

    Args:
        provider: Name of the provider; part of a reply's key, its address is not.
        model: Model name.
        base_url: Address, usually ending in ``/v1``.
        key_variable: Environment variable with the API key.
        allowed: Hosts that text may go to.
        store: Where replies are kept.
        sampling: ``temperature``, ``top_p``.
        timeout: Seconds for one reply.
        max_retries: Tries after 429, 5xx and dropped connections (the client waits with jitter, as Retry-After says).
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
        sampling: dict[str, float],
        timeout: float,
        max_retries: int,
    ) -> None:
        import openai

        check_egress(base_url, allowed)
        self.provider, self.model, self.base_url = provider, model, base_url
        self.key_variable = key_variable
        self.store = store
        self.sampling = sampling
        self.usage = {"requests": 0, "reused": 0, "prompt_tokens": 0, "completion_tokens": 0}
        self._client = openai.OpenAI(
            base_url=base_url, api_key=read_key(key_variable) or "none", timeout=timeout, max_retries=max_retries
        )

    def ask(
        self, messages: Messages, *, max_tokens: int, schema: dict[str, Any] | None = None, seed: int = 0
    ) -> dict[str, Any]:
        """The reply to ``messages``: ``{"content", "finish_reason", "usage"}``, from the store when it was asked before.

        Args:
            messages: Chat messages.
            max_tokens: Length limit of the reply.
            schema: JSON Schema the reply must follow (strict ``response_format``).
            seed: Sampling seed; a retry with another seed is another request.

        Raises:
            UserError: The endpoint is dead, refuses the key, or does not know the model.
        """
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
        key = self.store.key({"provider": self.provider, **request})
        reply = self.store.get(key)
        if reply is not None:
            self.usage["reused"] += 1
            return reply
        reply = self._send(request)
        self.store.put(key, reply)
        self.usage["requests"] += 1
        for name in ("prompt_tokens", "completion_tokens"):
            self.usage[name] += reply["usage"].get(name) or 0
        return reply

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        import openai

        try:
            answer = self._client.chat.completions.create(**request)
        except openai.AuthenticationError as error:
            raise UserError(f"{self.base_url} refused the key in {self.key_variable}: it is invalid or expired.") from error
        except openai.NotFoundError as error:
            raise UserError(f"{self.base_url} does not know model {self.model} ({error.status_code}).") from error
        except openai.APITimeoutError as error:
            raise UserError(f"{self.base_url} gave no reply in time. Raise llm.timeout, or ask less at once.") from error
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.base_url} does not answer ({error.__cause__ or error}). Start that server or correct "
                f"llm.providers.{self.provider}.base_url, then run again: replies so far are kept."
            ) from error
        except openai.APIStatusError as error:
            raise UserError(
                f"{self.base_url} answered {error.status_code} to model {self.model}: {error.message[:300]}"
            ) from error
        if not answer.choices:
            raise UserError(f"{self.base_url} answered without choices: it is not an OpenAI-compatible chat endpoint.")
        choice = answer.choices[0]
        return {
            "content": choice.message.content or "",
            "finish_reason": choice.finish_reason,
            "usage": answer.usage.model_dump(include={"prompt_tokens", "completion_tokens"}) if answer.usage else {},
        }
