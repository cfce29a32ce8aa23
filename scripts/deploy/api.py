"""The HTTP interface of the embeddings service: OpenAI's, with NIM's ``input_type`` and ``truncate``."""

import asyncio
import base64
import os
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from scripts.common.contract import Side
from scripts.common.job import log
from scripts.common.onnx_encoder import OnnxEncoder
from scripts.common.onnx_variants import size_on_disk
from scripts.common.search import unit_length
from scripts.deploy.batcher import Batcher, QueueFullError
from scripts.deploy.limits import DEFAULT_LIMITS, EMBEDDINGS, Gate, Guard, Limits, error_body
from scripts.deploy.metrics import Metrics
from scripts.deploy.request import MAX_INPUTS, ApiError, EmbeddingRequest, Format, check, model_names
from scripts.deploy.texts import Reader, TooLongError, Truncate, estimate

# ONNX Runtime packs the weights for each session anew; larger models are held once
LANE_BYTES = 1_500_000_000
# Requests of more characters or ids than this are read by a thread of their own, so that others need not wait
LARGE = 100_000
# As many of them may wait for that thread: text that is no text (megabytes of blanks) takes seconds to read
MOST_LARGE = 8
# What nginx logs when the client left before its answer; nobody gets to see it
CLIENT_GONE = 499


class Service:
    """Tokenizers and model behind threads of their own."""

    def __init__(self, encoder: OnnxEncoder, limits: Limits) -> None:
        self.encoder, self.limits = encoder, limits
        # the second one for large requests
        self._readers = [(Reader(encoder), ThreadPoolExecutor(1, "tokenizer")) for _ in range(2)]
        self._large = 0
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

    async def embed(self, given: str | list[Any], side: Side, truncate: Truncate) -> tuple[np.ndarray, int]:
        """Vectors ``[len(texts), dimension]`` and the number of tokens read.

        Raises:
            ApiError: A text is too long, has no tokens or foreign ones, the queue is full, or time is up.
        """
        texts: list[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        try:
            async with asyncio.timeout(self.limits.request_seconds):
                with self.batcher.reserve(estimate(texts, self.encoder.contract.max_length(side))):
                    tokens = await self._read(texts, side, truncate)
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

    async def _read(self, texts: list[Any], side: Side, truncate: Truncate) -> list[list[int]]:
        is_large = sum(map(len, texts)) > LARGE
        if is_large and self._large >= MOST_LARGE:
            raise QueueFullError
        reader, thread = self._readers[is_large]
        function = reader.texts if isinstance(texts[0], str) else reader.ids
        self._large += is_large
        try:
            return await asyncio.get_running_loop().run_in_executor(thread, function, texts, side, truncate)
        finally:
            self._large -= is_large


Result = TypeVar("Result")


async def while_connected(receive: Callable[[], Awaitable[Any]], work: Awaitable[Result]) -> Result:
    """The result of ``work``, which is cancelled when the client goes away (:class:`ApiError` 499).

    Args:
        receive: ASGI's channel of the request, read to the end of the body.
        work: What the client waits for.
    """

    async def disconnect() -> None:
        # uvicorn may tell the end of the body once more before
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(CLIENT_GONE, "the client left", code="client_gone")
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


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
    contract, service = encoder.contract, Service(encoder, limits)

    def refused(status: int) -> None:
        service.metrics.requests.labels(status).inc()
        log.info("%s", orjson.dumps({"event": "refused", "status": status}).decode())

    app.state.gate, app.state.refused = Gate(), refused
    app.add_middleware(
        Guard,
        max_bytes=limits.body_bytes,
        read_seconds=limits.body_seconds,
        api_key=api_key,
        gate=app.state.gate,
        note=refused,
    )

    @app.post(EMBEDDINGS)
    async def embeddings(request: EmbeddingRequest, connection: Request) -> Response:
        start, count, tokens, status, side = time.monotonic(), 0, 0, 500, request.input_type
        try:
            side = check(request, name, contract.dimension)
            work = service.embed(request.input, side, request.truncate)
            vectors, tokens = await while_connected(connection.receive, work)
            count = len(vectors)
            vectors = cut(vectors, request.dimensions, l2_normalize=contract.l2_normalize)
            form = request.embedding_type or request.encoding_format
            # a thread for large replies alone: handing over costs more than a small one
            if vectors.size > 65_536:
                body = await asyncio.to_thread(render, vectors, tokens, request.model, form)
            else:
                body = render(vectors, tokens, request.model, form)
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
            entry = {"event": "embeddings", "status": status, "side": side, "texts": count}
            log.info("%s", orjson.dumps({**entry, "tokens": tokens, "ms": round(1e3 * elapsed, 1)}).decode())
        return Response(body, media_type="application/json")

    _add_information(app, service, name)
    _add_health(app, service)
    _add_error_handlers(app)
    return app


def _add_information(app: FastAPI, service: Service, name: str) -> None:
    contract = service.encoder.contract
    listed = {
        served: {"id": served, "object": "model", "created": int(time.time()), "owned_by": "embed-recipe"}
        for served in model_names(name)
    }

    @app.get("/v1/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": list(listed.values())}

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        if model not in listed:
            raise ApiError(404, f"model {model[:100]!r} is not served here", param="model", code="model_not_found")
        return listed[model]

    @app.get("/v1/metadata")
    async def metadata() -> dict[str, Any]:
        fields = ("dimension", "pooling", "l2_normalize", "query_prefix", "passage_prefix")
        lengths = ("query_max_length", "passage_max_length")
        return {
            "modelInfo": [{"shortName": f"{name}:{contract.weights_sha256[:12]}", "modelUrl": ""}],
            "weights_sha256": contract.weights_sha256,
            "source_sha256": contract.source_sha256,
            "index_version": contract.index_version(),
            "contract": {field: getattr(contract, field) for field in fields + lengths},
        }


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/v1/health/live")
    async def live() -> dict[str, str]:
        return {"object": "health.response", "message": "live"}

    @app.get("/v1/health/ready")
    async def ready() -> dict[str, str]:
        if service.batcher.broken:
            raise ApiError(503, "the model no longer computes; the log says why", code="broken")
        return {"object": "health.response", "message": "ready"}


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def api_error(_: Request, error: ApiError) -> JSONResponse:
        return _error(error.status, str(error), error.param, error.code)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        _note(request, 400)
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
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        _note(request, error.status_code)
        return _error(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        log.error("request failed: %s", type(error).__name__)
        return _error(500, "the server failed on this request; its log says more")


def _note(request: Request, status: int) -> None:
    """Count and log a request for embeddings that is refused before its handler, which does so itself."""
    if request.url.path == EMBEDDINGS:
        request.app.state.refused(status)


def _error(status: int, message: str, param: str | None = None, code: str | None = None) -> JSONResponse:
    return JSONResponse(error_body(status, message, param, code), status)
