"""What the server counts, in Prometheus' text format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Metrics:
    """Counters of one server; ``waiting`` is asked for the tokens in the queue."""

    def __init__(self, waiting: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        kind = {"registry": self.registry}
        self.requests = Counter("embeddings_requests", "Requests for embeddings by HTTP status", ["status"], **kind)
        self.texts = Counter("embeddings_texts", "Texts embedded", **kind)
        self.tokens = Counter("embeddings_tokens", "Tokens read, without padding", **kind)
        self.seconds = Histogram("embeddings_request_seconds", "Time to answer a request", buckets=SECONDS, **kind)
        self.batch_tokens = Histogram("embeddings_batch_tokens", "Tokens in a batch, padded", buckets=TOKENS, **kind)
        self.batch_texts = Histogram("embeddings_batch_texts", "Texts in a batch", buckets=TEXTS, **kind)
        Gauge("embeddings_waiting_tokens", "Tokens in the queue", **kind).set_function(waiting)
        ProcessCollector(registry=self.registry)

    def batch(self, texts: int, tokens: int) -> None:
        """Note a batch that was computed."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)

    def text(self) -> bytes:
        """The exposition, version 0.0.4 of the format."""
        return generate_latest(self.registry)
