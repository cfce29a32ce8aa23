"""HTTP back end of the encoder: NIM, vLLM or this project's server, through the ``openai`` client."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from scripts.common.contract import Contract, Side
from scripts.common.encoder import Encoder
from scripts.common.errors import UserError
from scripts.common.llm import open_client

INVALID_RETRIES = 3


class EndpointEncoder(Encoder):
    """A served model.

    Args:
        contract: Names model and address; with back end ``nim`` the server puts the prefixes in front (``input_type``),
            with ``vllm`` they are put here.
        allowed: Hosts that text may go to.
        key_variable: Environment variable with the key.
        batch_size: Texts a request.
        timeout: Seconds for one reply.
        max_retries: Tries after 429, 5xx and dropped connections.
    """

    def __init__(
        self,
        contract: Contract,
        *,
        allowed: Sequence[str],
        key_variable: str | None = None,
        batch_size: int = 32,
        timeout: float = 60,
        max_retries: int = 4,
    ) -> None:
        if contract.url is None:
            raise UserError("the contract of a served model has no url; delete it and run again.")
        self.contract, self.batch_size = contract, batch_size
        # requests made because vectors of another one held invalid values
        self.invalid_retry_requests = 0
        # users name the server, or copy the address that other clients want
        server = contract.url.rstrip("/").removesuffix("/v1")
        self._client = open_client(
            f"{server}/v1", key_variable=key_variable, allowed=allowed, timeout=timeout, max_retries=max_retries
        )

    def diagnostics(self) -> dict[str, int]:
        """How many requests were made because vectors of another one held invalid values."""
        return {"invalid_embedding_retry_requests": self.invalid_retry_requests}

    def batches(self, texts: Sequence[str], side: Side) -> Iterator[tuple[list[int], np.ndarray]]:
        """See :meth:`Encoder.batches`; texts go in their order."""
        for start in range(0, len(texts), self.batch_size):
            indices = list(range(start, min(start + self.batch_size, len(texts))))
            yield indices, self.request([texts[i] for i in indices], side)

    def request(self, texts: Sequence[str], side: Side, retries: int = INVALID_RETRIES) -> np.ndarray:
        """Vectors of one request, in the order of the texts; rows with invalid values are asked for again.

        Raises:
            UserError: The endpoint is dead, or sends too few, too many, wrongly numbered or invalid vectors.
        """
        rows = self._vectors(texts, side)
        bad = [row for row, vector in enumerate(rows) if not np.isfinite(vector).all()]
        if bad and not retries:
            raise UserError(f"{self.contract.url} sends vectors with NaN or missing values, also when asked again.")
        if bad:
            self.invalid_retry_requests += 1
            rows[bad] = self.request([texts[row] for row in bad], side, retries - 1)
        return rows

    def _vectors(self, texts: Sequence[str], side: Side) -> np.ndarray:
        import openai

        body: dict[str, Any]
        if self.contract.backend == "nim":
            sent, body = list(texts), {"input_type": side, "truncate": "END"}
        else:
            # vLLM refuses texts that are too long unless it is told where to cut them
            sent = [self.contract.text(text, side) for text in texts]
            body = {"truncate_prompt_tokens": self.contract.max_length(side)}
        try:
            answer = self._client.embeddings.create(
                model=self.contract.model, input=sent, encoding_format="float", extra_body=body
            )
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.contract.url} does not answer ({error.__cause__ or error}). Start the server "
                "(`snakemake deploy`) or correct eval.nim_url; vectors so far are kept."
            ) from error
        except openai.APIStatusError as error:
            raise UserError(f"{self.contract.url} answered {error.status_code}: {error.message[:300]}") from error
        except (openai.APIError, ValueError) as error:
            raise UserError(
                f"{self.contract.url} sent no valid JSON ({error}). Is that an embeddings server?"
            ) from error
        # the client checks no types: a page of a proxy comes back as a string
        items = {getattr(item, "index", None): item.embedding or [] for item in getattr(answer, "data", None) or []}
        if set(items) != set(range(len(texts))) or len(answer.data) != len(texts):
            raise UserError(
                f"{self.contract.url} sent {len(items)} vectors for {len(texts)} texts, or numbered them wrongly."
            )
        width = self.contract.dimension or max(map(len, items.values()), default=0)
        rows = np.full((len(texts), width), np.nan, np.float32)
        for row, values in items.items():
            if len(values) not in (0, width):
                raise UserError(f"{self.contract.url} sent a vector of {len(values)} dimensions, expected {width}.")
            try:
                rows[row, : len(values)] = [np.nan if value is None else value for value in values]
            except (TypeError, ValueError) as error:
                raise UserError(f"{self.contract.url} sent a vector that is no list of numbers: {error}") from error
        return rows
