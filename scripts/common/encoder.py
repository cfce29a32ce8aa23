"""The encoder: texts to vectors under a contract, with PyTorch, ONNX Runtime or an HTTP endpoint behind it."""

import abc
import collections
import contextlib
import copy
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.batching import padded_tokens, plan_batches
from scripts.common.contract import Contract, Side, weights_digest
from scripts.common.errors import UserError
from scripts.common.models import resolve_model
from scripts.common.tokens import fast_tokenizer

# Tokens of a batch for each thread that computes it: a CPU core's cache, not its memory, limits it. 512 ran fastest on
# two cores, each with batches of its own (tests/benchmarks/encoding.py)
CPU_TOKEN_BUDGET = 512
# Tokens of a batch on a GPU where the configuration does not say
GPU_TOKEN_BUDGET = 32_768
# Batches on a CPU at once; Python's share in a batch lets more of them wait for each other
MOST_STREAMS = 8
# Texts that are tokenized and sorted by length together: token ids of a whole corpus as Python lists would fill memory
WINDOW = 16_384


class Encoder(abc.ABC):
    """Texts to vectors of one contract."""

    contract: Contract

    @abc.abstractmethod
    def batches(self, texts: Sequence[str], side: Side) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield ``(indices into texts, float32 vectors [len(indices), dimension])`` until every text had its turn."""

    def encode(self, texts: Sequence[str], side: Side) -> np.ndarray:
        """Float32 vectors ``[len(texts), dimension]``."""
        vectors = np.empty((len(texts), self.contract.dimension), np.float32)
        for indices, rows in self.batches(texts, side):
            vectors[indices] = rows
        return vectors

    def diagnostics(self) -> dict[str, int]:
        """What the back end counted while it computed, for the record; most count nothing."""
        return {}


class LocalEncoder(Encoder):
    """An encoder that tokenizes here and runs length-sorted, token-budgeted batches."""

    def __init__(self, contract: Contract, folder: Path, token_budget: int) -> None:
        self.contract = contract
        self.token_budget = token_budget
        self.tokenizer = fast_tokenizer(folder)
        # batches that are computed at once
        self.parallel = 1
        # what was computed so far: tokens of texts, and padding on top
        self.tokens = self.padding = 0

    @abc.abstractmethod
    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors ``[batch, dimension]`` of padded int64 token ids and mask ``[batch, tokens]``."""

    def tokenize(self, texts: Sequence[str], side: Side) -> list[list[int]]:
        """Token ids per text, prefix in front, cut to the contract's length, special tokens in."""
        self.tokenizer.enable_truncation(self.contract.max_length(side))
        found: list[list[int]] = []
        for start in range(0, len(texts), 4096):
            block = [self.contract.text(text, side) for text in texts[start : start + 4096]]
            found.extend(encoding.ids for encoding in self.tokenizer.encode_batch_fast(block))
        return found

    def batches(self, texts: Sequence[str], side: Side) -> Iterator[tuple[list[int], np.ndarray]]:
        """See :meth:`Encoder.batches`; within a window of texts the longest come first."""
        for start in range(0, len(texts), WINDOW):
            tokens = self.tokenize(texts[start : start + WINDOW], side)
            lengths = [len(row) for row in tokens]
            # a model without special tokens makes none of an empty text; its vector is zero, like to nothing
            empty = [i for i, length in enumerate(lengths) if not length]
            if empty:
                yield [start + i for i in empty], np.zeros((len(empty), self.contract.dimension), np.float32)
            filled = [i for i, length in enumerate(lengths) if length]
            plan = plan_batches([lengths[i] for i in filled], self.token_budget)
            plan = [[filled[i] for i in batch] for batch in plan]
            self.tokens += sum(lengths)
            self.padding += padded_tokens(lengths, plan) - sum(lengths)
            inputs = (pad([tokens[i] for i in batch]) for batch in plan)
            for batch, rows in zip(plan, self._forward_all(inputs), strict=True):
                yield [start + i for i in batch], rows

    def _forward_all(self, inputs: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[np.ndarray]:
        """Vectors of each batch, in order."""
        if self.parallel == 1:
            yield from (self.forward(*given) for given in inputs)
            return
        with self._workers() as workers:
            waiting: collections.deque = collections.deque()
            for given in inputs:
                waiting.append(workers.submit(self.forward, *given))
                if len(waiting) > 2 * self.parallel:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    @contextlib.contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        """Threads that call :meth:`forward`."""
        with ThreadPoolExecutor(self.parallel) as workers:
            yield workers


class TorchEncoder(LocalEncoder):
    """PyTorch back end."""

    def __init__(
        self,
        contract: Contract,
        folder: Path,
        *,
        device: str,
        token_budget: int = GPU_TOKEN_BUDGET,
        attention: str | None = None,
        model: Any = None,
        num_gpus: int = 1,
    ) -> None:
        """Load the model of ``folder``, or take ``model``, which then is that model with other weights.

        With ``num_gpus`` above 1, as many of the GPUs that are there compute batches side by side, each with a copy of
        the model. On a CPU the threads of PyTorch are shared out among batches that are computed side by side.
        """
        import torch

        self.device = pick_device(device)
        streams = min(torch.get_num_threads(), MOST_STREAMS)
        # of one batch
        self.threads = torch.get_num_threads() // streams
        super().__init__(contract, folder, token_budget if self.device == "cuda" else CPU_TOKEN_BUDGET * self.threads)
        self.model = (load_model(folder, contract, attention) if model is None else model).eval().to(self.device)
        self._torch = torch
        devices = [self.device]
        # a single one is the process's current GPU, which is another for each rank of a training
        if self.device == "cuda" and (count := min(num_gpus, torch.cuda.device_count())) > 1:
            devices = [f"cuda:{number}" for number in range(count)]
        self.replicate(devices if self.device == "cuda" else ["cpu"] * streams)

    def replicate(self, devices: Sequence[str]) -> None:
        """Compute on these devices side by side; the first one has the model itself, each other device a copy."""
        models = {devices[0]: self.model.to(devices[0])}
        self.parallel = len(devices)
        self._free: queue.SimpleQueue = queue.SimpleQueue()
        for device in devices:
            if device not in models:
                models[device] = copy.deepcopy(self.model).to(device)
            self._free.put((models[device], device))

    @contextlib.contextmanager
    def _workers(self) -> Iterator[ThreadPoolExecutor]:
        """See :meth:`LocalEncoder._workers`; on a CPU each of them computes with its share of the threads."""
        torch = self._torch
        before = torch.get_num_threads()
        start = None if self.device == "cuda" else partial(torch.set_num_threads, self.threads)
        try:
            with ThreadPoolExecutor(self.parallel, initializer=start) as workers:
                yield workers
        finally:
            # what a worker sets for itself is the start of threads to come as well
            torch.set_num_threads(before)

    def forward(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """See :meth:`LocalEncoder.forward`. bfloat16 matrix products on a GPU, float32 on a CPU."""
        from scripts.common.pooling import normalize, pool

        torch = self._torch
        model, device = self._free.get()
        try:
            token_ids, token_mask = (torch.from_numpy(array).to(device) for array in (ids, mask))
            autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")
            with torch.inference_mode(), autocast:
                hidden = model(input_ids=token_ids, attention_mask=token_mask).last_hidden_state
                vectors = pool(hidden, token_mask, self.contract.pooling)
            return (normalize(vectors) if self.contract.l2_normalize else vectors).float().cpu().numpy()
        finally:
            self._free.put((model, device))


def pad(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded int64 ids and mask ``[len(rows), longest]``; padding ids are 0 and masked."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


def open_encoder(
    contract_file: str | Path,
    *,
    device: str = "auto",
    token_budget: int = GPU_TOKEN_BUDGET,
    attention: str | None = None,
    endpoint: dict[str, Any] | None = None,
    num_gpus: int = 1,
) -> Encoder:
    """The encoder for a contract file, with the back end that the contract names.

    Args:
        contract_file: ``contract.json``.
        device: ``auto``, ``cpu`` or ``cuda``.
        token_budget: Tokens in a batch on a GPU.
        attention: Attention kernel, or ``None`` for the best there is.
        endpoint: How a served model is reached, see :class:`scripts.common.endpoint_encoder.EndpointEncoder`.
        num_gpus: GPUs that compute side by side, as far as they are there.

    Raises:
        UserError: The model is missing, or its weights are not those the contract was written for.
    """
    contract = Contract.load(contract_file)
    if contract.url is not None:
        from scripts.common.endpoint_encoder import EndpointEncoder

        return EndpointEncoder(contract, **(endpoint or {"allowed": []}))
    beside = Path(contract_file).parent
    if contract.backend == "onnx" and not (beside / contract.model).is_dir():
        raise UserError(
            f"the graph of {contract_file} is no longer in {beside / contract.model} (was the cache deleted?). "
            "Delete that contract file and run again."
        )
    folder = resolve_model(contract.model, contract.revision, relative_to=beside)
    require_weights(contract, folder, contract_file)
    if contract.backend == "onnx":
        from scripts.common.onnx_encoder import OnnxEncoder

        return OnnxEncoder(contract, folder)
    return TorchEncoder(
        contract, folder, device=device, token_budget=token_budget, attention=attention, num_gpus=num_gpus
    )


def require_weights(contract: Contract, folder: Path, contract_file: str | Path) -> None:
    """:class:`UserError` unless a model folder has the weights that a contract was written for."""
    if weights_digest(folder) != contract.weights_sha256:
        raise UserError(
            f"the weights in {folder} are not those of {contract_file}. "
            "If the model was replaced on purpose, delete that contract file and run again."
        )


def pick_device(wanted: str) -> str:
    """``cuda`` or ``cpu``; :class:`UserError` when a GPU is asked for and there is none."""
    import torch

    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise UserError("vectors.device is cuda, but PyTorch sees no GPU. Use auto or cpu, or check the driver.")
    return "cuda" if present and wanted != "cpu" else "cpu"


def load_model(folder: Path, contract: Contract, attention: str | None = None) -> Any:
    """The transformer of a folder, in float32."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    try:
        transformers.utils.logging.disable_progress_bar()
        return transformers.AutoModel.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=attention or best_attention(),
            trust_remote_code=contract.trust_remote_code,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"the model in {folder} cannot be loaded: {error}") from error


def best_attention() -> str:
    """``flash_attention_2`` where a GPU and the package are there, else ``sdpa``."""
    import importlib.util

    import torch

    fast = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return "flash_attention_2" if fast else "sdpa"
