"""The HTTP interface of the embeddings service: OpenAI's, with NIM's ``input_type`` and ``truncate``."""

import asyncio
import base64
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.exceptions import HTTPException

from scripts.common.contract import Side
from scripts.common.job import log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import size_on_disk
from scripts.common.search import unit_length
from scripts.deploy.batcher import Batcher, QueueFullError
from scripts.deploy.limits import DEFAULT_LIMITS, Gate, Guard, Limits, error_body
from scripts.deploy.metrics import Metrics
from scripts.deploy.texts import TooLongError, Truncate, given_ids, token_ids

# OpenAI's limit
MAX_INPUTS = 2048
# ONNX Runtime packs the weights for each session anew; larger models are held once
LANE_BYTES = 1_500_000_000
Text = Annotated[str, Field(min_length=1)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
# bool is an int to Python, and 1.0 one to pydantic, but neither is a token
Ids = Annotated[list[StrictInt], Field(min_length=1)]
Input = Text | Texts | Ids | Annotated[list[Ids], Field(min_length=1, max_length=MAX_INPUTS)]
Format = Literal["float", "base64"]


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``."""

    model_config = ConfigDict(extra="forbid")

    input: Input = Field(description="Text, texts, token ids of this model's tokenizer, or a list of such ids.")
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
    """Tokenizer and model, each behind a thread of its own; the tokenizer's truncation is a state, so it has one."""

    def __init__(self, encoder: OnnxEncoder, limits: Limits) -> None:
        self.encoder, self.limits = encoder, limits
        self._tokenizer = ThreadPoolExecutor(1, "tokenizer")
        self.metrics = Metrics(lambda: self.batcher.waiting_tokens)
        lane = lane_encoder(encoder)
        self.batcher = Batcher(
            encoder.forward,
            encoder.contract.dimension,
            token_budget=encoder.token_budget,
            queue_tokens=limits.queue_tokens,
            observe=self.metrics.batch,
            lanes=thread_count() if lane else 1,
            lane_forward=lane.forward if lane else None,
        )

    async def embed(self, given: Input, side: Side, truncate: Truncate) -> tuple[np.ndarray, int]:
        """Vectors ``[len(texts), dimension]`` and the number of tokens read.

        Raises:
            ApiError: A text is too long, has no tokens or foreign ones, the queue is full, or time is up.
        """
        texts: list[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        function = token_ids if isinstance(texts[0], str) else given_ids
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                tokens = await asyncio.get_running_loop().run_in_executor(
                    self._tokenizer, function, self.encoder, texts, side, truncate
                )
                lengths = [len(row) for row in tokens]
                if not all(lengths):
                    raise ApiError(400, f"input {lengths.index(0)} has nothing the model can read", param="input")
                return await self.batcher.embed(tokens), sum(lengths)
        except TooLongError as error:
            raise ApiError(400, str(error), param="input", code="context_length_exceeded") from error
        except ValueError as error:
            raise ApiError(400, str(error), param="input") from error
        except QueueFullError as error:
            raise ApiError(429, "too many texts wait; try again later", code="queue_full") from error
        except TimeoutError as error:
            message = f"no answer within {self.limits.request_seconds:g} s; send fewer texts or try again later"
            raise ApiError(504, message, code="timeout") from error


def lane_encoder(encoder: OnnxEncoder) -> OnnxEncoder | None:
    """The model once more, with one thread a batch; ``None`` where it would not pay or take too much memory."""
    if thread_count() == 1 or encoder.on_gpu or size_on_disk(encoder.folder / "model.onnx") > LANE_BYTES:
        return None
    return OnnxEncoder(encoder.contract, encoder.folder, token_budget=encoder.token_budget, threads=1)


def thread_count() -> int:
    """Threads this server may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def cut(vectors: np.ndarray, dimensions: int | None, *, l2_normalize: bool) -> np.ndarray:
    """The first ``dimensions`` values of each row, at unit length again if vectors have that."""
    if dimensions is None:
        return vectors
    kept = vectors[:, :dimensions]
    if not l2_normalize:
        return kept
    return unit_length(kept)


def render(vectors: np.ndarray, tokens: int, model: str, form: Format) -> bytes:
    """The reply as JSON; base64 holds little-endian float32."""
    rows: list[Any] = list(np.ascontiguousarray(vectors, "<f4"))
    if form == "base64":
        rows = [base64.b64encode(row.tobytes()).decode() for row in rows]
    data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = {"object": "list", "data": data, "model": model, "usage": usage}
    return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)


def create_app(encoder: OnnxEncoder, name: str, *, limits: Limits | None = None, api_key: str | None = None) -> FastAPI:
    """The application.

    Args:
        encoder: The model.
        name: Name it answers to.
        limits: What it takes on.
        api_key: Key that callers must send, or ``None`` for everybody.
    """
    app = FastAPI(title="embed-recipe", docs_url=None, redoc_url=None)
    limits = limits or DEFAULT_LIMITS
    contract, service, started = encoder.contract, Service(encoder, limits), int(time.time())
    app.state.gate = Gate()
    app.add_middleware(
        Guard,
        max_bytes=limits.body_bytes,
        read_seconds=limits.body_seconds,
        api_key=api_key,
        gate=app.state.gate,
    )

    @app.post("/v1/embeddings")
    async def embeddings(request: EmbeddingRequest) -> Response:
        start, count, tokens, status = time.monotonic(), 0, 0, 500
        try:
            _check(request, name, contract.dimension)
            vectors, tokens = await service.embed(request.input, request.input_type, request.truncate)
            count = len(vectors)
            vectors = cut(vectors, request.dimensions, l2_normalize=contract.l2_normalize)
            form = request.embedding_type or request.encoding_format
            # a thread for large replies alone: handing over costs more than a small one
            if vectors.size > 65_536:
                body = await asyncio.to_thread(render, vectors, tokens, name, form)
            else:
                body = render(vectors, tokens, name, form)
            status = 200
        except ApiError as error:
            status = error.status
            raise
        finally:
            elapsed = time.monotonic() - start
            service.metrics.requests.labels(status).inc()
            service.metrics.seconds.observe(elapsed)
            service.metrics.texts.inc(count)
            service.metrics.tokens.inc(tokens)
            entry = {"event": "embeddings", "status": status, "side": request.input_type, "texts": count}
            log.info("%s", orjson.dumps({**entry, "tokens": tokens, "ms": round(1e3 * elapsed, 1)}).decode())
        return Response(body, media_type="application/json")

    @app.get("/v1/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

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


def _check(request: EmbeddingRequest, name: str, dimension: int) -> None:
    if request.model != name:
        message = f"model {request.model!r} is not served here; the model is {name!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
    if request.dimensions is not None and request.dimensions > dimension:
        raise ApiError(400, f"dimensions must be at most {dimension}", param="dimensions")


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
            return _error(
                400, f"input must be a text, token ids, or a list of 1 to {MAX_INPUTS} of either, none empty", field
            )
        return _error(400, f"{field}: {first['msg']}" if field else first["msg"], field)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        log.error("request failed: %s", type(error).__name__)
        return _error(500, "the server failed on this request; its log says more")


def _error(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message, param, code), status)
