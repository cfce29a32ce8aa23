"""The handler most people would write: sentence-transformers behind FastAPI. A peer of tests/benchmarks/serving.py."""

import argparse
from typing import Any

import uvicorn
from fastapi import FastAPI
from sentence_transformers import SentenceTransformer

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--max-length", type=int, required=True)
arguments = parser.parse_args()
model = SentenceTransformer(arguments.model, device="cpu")
model.max_seq_length = arguments.max_length
app = FastAPI()


@app.get("/v1/health/ready")
def ready() -> dict[str, str]:
    """Loaded before this can answer."""
    return {"message": "ready"}


@app.post("/v1/embeddings")
def embeddings(body: dict[str, Any]) -> dict[str, Any]:
    """Not async, so that FastAPI runs it in its thread pool."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = model.encode(texts, normalize_embeddings=True)
    data = [{"object": "embedding", "index": i, "embedding": row.tolist()} for i, row in enumerate(vectors)]
    return {"object": "list", "data": data, "model": body["model"], "usage": {"prompt_tokens": 0, "total_tokens": 0}}


uvicorn.run(app, host="127.0.0.1", port=arguments.port, log_level="error")
