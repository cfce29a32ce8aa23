"""Is the service up, and does it give sound vectors?"""

import http.client
import json
import math
import time
import urllib.request
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.job import log
from scripts.deploy.service import SMOKE_TEXT, Service

# The first looks come fast, later ones at the configured interval
FIRST_PAUSE = 0.1
UNIT_TOLERANCE = 1e-3


def is_ready(service: Service) -> bool:
    """Whether a service says that it is ready."""
    return _get(f"{service.url}{service.health_path}") is not None


def served_models(url: str, key: str | None = None) -> list[str]:
    """Names the service answers to."""
    try:
        return [model["id"] for model in json.loads(_get(f"{url}/v1/models", key) or b"{}")["data"]]
    except (ValueError, KeyError, TypeError):
        return []


def wait_until_ready(service: Service, *, timeout: float, interval: float) -> None:
    """Wait for a started service.

    Args:
        service: The service.
        timeout: Longest wait in seconds.
        interval: Longest pause between two looks, in seconds.

    Raises:
        UserError: It ended, or was not ready in time.
    """
    start, pause = time.monotonic(), FIRST_PAUSE
    while not is_ready(service):
        reason = service.ended()
        if reason:
            raise UserError(f"{reason} before it was ready.")
        if time.monotonic() - start > timeout:
            raise UserError(
                f"the service at {service.url} was not ready after {timeout:g} s. If it only needs longer, raise "
                "deploy.health_check_timeout."
            )
        time.sleep(min(pause, interval))
        pause *= 1.5
    log.info("ready after %.1f s", time.monotonic() - start)


def smoke_test(
    url: str, model: str, contract: Contract | None, key: str | None = None, *, knows_sides: bool = True
) -> None:
    """Ask for one query's vector and look at it.

    Args:
        url: Address, without ``/v1``.
        model: Name the service answers to.
        contract: What to expect, where it is known.
        key: Key of the service, if it wants one.
        knows_sides: Whether it takes ``input_type``.

    Raises:
        UserError: No answer, an error, or a vector of the wrong dimension, with other than finite values, or not of
            unit length where the contract says so.
    """
    import openai

    # a proxy of the environment would be asked for loopback addresses too
    direct = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=key or "none", max_retries=0, timeout=60, http_client=direct
    ) as client:
        try:
            extra = {"input_type": "query"} if knows_sides else {}
            answer = client.embeddings.create(
                input=[SMOKE_TEXT], model=model, encoding_format="float", extra_body=extra
            )
        except openai.APIStatusError as error:
            raise UserError(f"smoke test: {url} answered {error.status_code}: {error.message[:300]}") from error
        except openai.APIConnectionError as error:
            # what a transport says of a header that it refuses has the key in it
            reason = type(error.__cause__ or error).__name__ if key else error.__cause__ or error
            raise UserError(f"smoke test: {url} does not answer ({reason}).") from None
    problems = vector_problems(answer.data[0].embedding if answer.data else [], contract)
    if problems:
        raise UserError(f"smoke test: {url} sent a vector {' and '.join(problems)}.")


def vector_problems(vector: list[Any], contract: Contract | None) -> list[str]:
    """What is wrong with a vector under a contract, in words."""
    if not vector:
        return ["without values"]
    if not all(isinstance(value, (int, float)) and math.isfinite(value) for value in vector):
        return ["with values that are no finite numbers"]
    problems = []
    if contract and len(vector) != contract.dimension:
        problems.append(f"of {len(vector)} dimensions instead of {contract.dimension}")
    length = math.hypot(*vector)
    if contract and contract.l2_normalize and abs(length - 1) > UNIT_TOLERANCE:
        problems.append(f"of length {length:.4f} instead of 1")
    return problems


def _get(url: str, key: str | None = None) -> bytes | None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    if key:
        opener.addheaders.append(("Authorization", f"Bearer {key}"))
    try:
        with opener.open(url, timeout=5) as reply:
            return reply.read()
    except (OSError, http.client.HTTPException, ValueError):
        return None
