"""HTTP back end of the encoder: NIM, vLLM or this project's server, through the ``openai`` client."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from scripts.common.contract import Contract, Side
from scripts.common.encoder import Encoder
from scripts.common.errors import UserError
from scripts.common.llm import check_egress, read_key

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
    """

    def __init__(
        self,
        contract: Contract,
        *,
        allowed: Sequence[str],
        key_variable: str | None = None,
        batch_size: int = 32,
        timeout: float = 60,
    ) -> None:
        import openai

        if contract.url is None:
            raise UserError("the contract of a served model has no url; delete it and run again.")
        check_egress(contract.url, allowed)
        self.contract, self.batch_size = contract, batch_size
        self._client = openai.OpenAI(
            base_url=f"{contract.url.rstrip('/')}/v1", api_key=read_key(key_variable) or "none", timeout=timeout
        )

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
            rows[bad] = self.request([texts[row] for row in bad], side, retries - 1)
        return rows

    def _vectors(self, texts: Sequence[str], side: Side) -> np.ndarray:
        import openai

        served_prefix = self.contract.backend == "nim"
        body: dict[str, Any] = {"input_type": side, "truncate": "END"} if served_prefix else {}
        sent = list(texts) if served_prefix else [self.contract.text(text, side) for text in texts]
        try:
            answer = self._client.embeddings.create(
                model=self.contract.model, input=sent, encoding_format="float", extra_body=body
            )
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.contract.url} does not answer ({error.__cause__ or error}). Start the server (`snakemake deploy`) "
                "or correct eval.nim_url; vectors so far are kept."
            ) from error
        except openai.APIStatusError as error:
            raise UserError(f"{self.contract.url} answered {error.status_code}: {error.message[:300]}") from error
        items = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in items] != list(range(len(texts))):
            raise UserError(
                f"{self.contract.url} sent {len(items)} vectors for {len(texts)} texts, or numbered them wrongly."
            )
        width = self.contract.dimension or max((len(item.embedding or []) for item in items), default=0)
        rows = np.full((len(texts), width), np.nan, np.float32)
        for row, item in zip(rows, items, strict=True):
            values = np.array([np.nan if value is None else value for value in item.embedding or []], np.float32)
            if len(values) not in (0, width):
                raise UserError(f"{self.contract.url} sent a vector of {len(values)} dimensions, expected {width}.")
            row[: len(values)] = values
        return rows
