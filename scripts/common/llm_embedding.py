"""An embedding model at an OpenAI-compatible endpoint, with vectors kept as replies are."""

import array
import base64
import math
from collections.abc import Sequence
from typing import Any

from scripts.common.errors import UserError
from scripts.common.llm import Endpoint, RequestTooLongError

# Texts of one embedding request
EMBED_BATCH = 64


class EmbeddingModel(Endpoint):
    """An embedding model at an endpoint, in the dialect of NVIDIA's retriever models (``input_type``, ``truncate``)."""

    BODY = {"input_type": "query", "truncate": "NONE"}  # noqa: RUF012

    def embed(self, texts: Sequence[str]) -> list["array.array[float] | None"]:
        """A vector (float32) for each text, in their order, from the store where a text was sent before.

        A text that does not fit the model gets ``None``: nothing is cut.

        Raises:
            UserError: As :meth:`ChatModel.ask`; or the endpoint sends vectors that cannot be used.
        """
        request = {"provider": self.provider, "model": self.model, **self.BODY}
        keys = {text: self.store.key({**request, "input": text}) for text in texts}
        missing = [text for text, key in keys.items() if key not in self.store]
        self.usage["reused"] += len(keys) - len(missing)
        for start in range(0, len(missing), EMBED_BATCH):
            self._fetch(missing[start : start + EMBED_BATCH], keys)
        return [_unpack(self.store.get(keys[text])) for text in texts]

    def _fetch(self, texts: list[str], keys: dict[str, str]) -> None:
        """Ask for vectors and store them; a batch that is refused as too long is halved to find the one that is."""
        try:
            vectors = self._vectors(texts)
        except RequestTooLongError:
            middle = len(texts) // 2
            for part in (texts[:middle], texts[middle:]) if middle else ():
                self._fetch(part, keys)
            return
        for text, vector in zip(texts, vectors, strict=True):
            packed = base64.b64encode(array.array("f", vector).tobytes()).decode()
            self.store.put(keys[text], {"embedding": packed})

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        answer = self._send_with_retries(
            lambda: self._client.embeddings.create(
                model=self.model, input=texts, encoding_format="float", extra_body=self.BODY
            )
        )
        items = sorted(getattr(answer, "data", None) or [], key=lambda item: item.index)
        vectors = [item.embedding or [] for item in items]
        if [item.index for item in items] != list(range(len(texts))):
            raise UserError(
                f"{self.base_url} sent {len(items)} vectors for {len(texts)} texts, or numbered them wrongly."
            )
        if len({len(vector) for vector in vectors}) > 1 or not all(map(_usable, vectors)):
            raise UserError(
                f"{self.base_url} sent vectors of {self.model} that are empty, of different lengths or not finite."
            )
        self._count(answer.usage.model_dump() if answer.usage else {})
        return vectors


def _usable(vector: Sequence[float]) -> bool:
    return bool(vector) and all(value is not None and math.isfinite(value) for value in vector)


def _unpack(reply: dict[str, Any] | None) -> "array.array[float] | None":
    return None if reply is None else array.array("f", base64.b64decode(reply["embedding"]))
