"""The HTTP interface of the embeddings service: OpenAI's, with NIM's ``input_type`` and ``truncate``."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from scripts.common.batching import plan_batches
from scripts.common.contract import Side
from scripts.common.encoder import pad
from scripts.common.job import log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.deploy.texts import TooLongError, Truncate, token_ids

# OpenAI's limit
MAX_INPUTS = 2048
Text = Annotated[str, Field(min_length=1)]
Format = Literal["float", "base64"]


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="forbid")

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
    model: str
    input_type: Side = Field("passage", description="Which prefix and length apply; OpenAI's clients send none.")
    truncate: Truncate = Field("END", description="What happens to texts that are too long; NONE makes them an error.")
    dimensions: int | None = Field(None, ge=1, description="Keep so many values (Matryoshka), normalised again.")
    encoding_format: Format = "float"
    embedding_type: Format | None = Field(None, description="NIM's older name of encoding_format.")
    user: str | None = Field(None, description="Accepted as OpenAI's clients may send it; not used or logged.")


class ApiError(Exception):
    """An error of the request, answered in OpenAI's form."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


class Service:
    """The model behind one worker thread, so that the event loop always has time for health checks.

    Requests take turns batch by batch: a large one does not hold up the small ones.
    """

    def __init__(self, encoder: OnnxEncoder) -> None:
        self.encoder = encoder
        self._worker = ThreadPoolExecutor(1, "model")

    async def embed(self, texts: list[str], side: Side, truncate: Truncate) -> tuple[np.ndarray, int]:
        """Vectors ``[len(texts), dimension]`` and the number of tokens read.

        Raises:
            TooLongError: See :func:`scripts.deploy.texts.token_ids`.
            ApiError: A text has no tokens.
        """
        tokens = await self._run(token_ids, self.encoder, texts, side, truncate)
        lengths = [len(row) for row in tokens]
        if not all(lengths):
            raise ApiError(400, f"input {lengths.index(0)} has nothing the model can read", param="input")
        vectors = np.empty((len(texts), self.encoder.contract.dimension), np.float32)
        for indices in plan_batches(lengths, self.encoder.token_budget):
            vectors[indices] = await self._run(self.encoder.forward, *pad([tokens[i] for i in indices]))
        return vectors, sum(lengths)

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function, *arguments)


def cut(vectors: np.ndarray, dimensions: int | None, *, l2_normalize: bool) -> np.ndarray:
    """The first ``dimensions`` values of each row, at unit length again if vectors have that."""
    if dimensions is None:
        return vectors
    kept = vectors[:, :dimensions]
    if not l2_normalize:
        return kept
    return kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), 1e-12)


def render(vectors: np.ndarray, tokens: int, model: str, form: Format) -> bytes:
    """The reply as JSON; base64 holds little-endian float32."""
    rows: list[Any] = vectors.tolist()
    if form == "base64":
        rows = [base64.b64encode(row.tobytes()).decode() for row in vectors.astype("<f4")]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": model, "usage": usage}).encode()


def create_app(encoder: OnnxEncoder, name: str) -> FastAPI:
    """The application.

    Args:
        encoder: The model.
        name: Name it answers to.
    """
    app = FastAPI(title="embed-recipe", docs_url=None, redoc_url=None)
    contract, service, started = encoder.contract, Service(encoder), int(time.time())

    @app.post("/v1/embeddings")
    async def embeddings(request: EmbeddingRequest) -> Response:
        start = time.monotonic()
        if request.model != name:
            message = f"model {request.model!r} is not served here; the model is {name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        if request.dimensions is not None and request.dimensions > contract.dimension:
            raise ApiError(400, f"dimensions must be at most {contract.dimension}", param="dimensions")
        texts = [request.input] if isinstance(request.input, str) else request.input
        try:
            vectors, tokens = await service.embed(texts, request.input_type, request.truncate)
        except TooLongError as error:
            raise ApiError(400, str(error), param="input", code="context_length_exceeded") from error
        vectors = cut(vectors, request.dimensions, l2_normalize=contract.l2_normalize)
        form = request.embedding_type or request.encoding_format
        body = await asyncio.to_thread(render, vectors, tokens, name, form)
        elapsed = 1e3 * (time.monotonic() - start)
        log.info("%d %s texts, %d tokens, %.0f ms", len(texts), request.input_type, tokens, elapsed)
        return Response(body, media_type="application/json")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": name, "object": "model", "created": started, "owned_by": "embed-recipe"}
        return {"object": "list", "data": [model]}

    @app.get("/v1/health/live")
    async def live() -> dict[str, str]:
        return {"object": "health.response", "message": "live"}

    @app.get("/v1/health/ready")
    async def ready() -> dict[str, str]:
        return {"object": "health.response", "message": "ready"}

    @app.get("/v1/metadata")
    async def metadata() -> dict[str, Any]:
        fields = ("dimension", "pooling", "l2_normalize", "query_prefix", "passage_prefix")
        lengths = ("query_max_length", "passage_max_length")
        return {
            "modelInfo": [{"shortName": f"{name}:{contract.weights_sha256[:12]}", "modelUrl": ""}],
            "weights_sha256": contract.weights_sha256,
            "contract": {field: getattr(contract, field) for field in fields + lengths},
        }

    _add_error_handlers(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return _error(error.status, str(error), error.param, error.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        field = next((str(part) for part in first["loc"][1:]), None)
        if first["type"] == "json_invalid":
            return _error(400, "the body is not valid JSON")
        if field == "input":
            return _error(400, f"input must be a text or a list of 1 to {MAX_INPUTS} texts, none of them empty", field)
        return _error(400, f"{field}: {first['msg']}" if field else first["msg"], field)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        log.error("request failed: %s", type(error).__name__)
        return _error(500, "the server failed on this request; its log says more")


def _error(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": param, "code": code}}, status)
