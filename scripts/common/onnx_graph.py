"""The embedding graph: transformer, pooling, cut and normalisation in one module, and its way into an ONNX file."""

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.onnx_variants import PROTOBUF_LIMIT
from scripts.common.pooling import normalize, pool


class Pooling(torch.nn.Module):
    """Pooling as a module of its own, so that its nodes can be named (export.override_layers_to_fp32)."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """See :func:`scripts.common.pooling.pool`."""
        return pool(hidden, mask, self.mode)


class EmbeddingGraph(torch.nn.Module):
    """Token ids to vectors under a contract."""

    output = "embeddings"

    def __init__(self, model: torch.nn.Module, contract: Contract) -> None:
        super().__init__()
        self.model = model
        self.pooling_module = Pooling(contract.pooling)
        self.l2_normalize = contract.l2_normalize

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, dimensions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Float32 vectors ``[batch, width]``.

        Args:
            input_ids: ``[batch, tokens]`` int64.
            attention_mask: ``[batch, tokens]`` int64, 1 for real tokens.
            dimensions: ``[batch]`` int64. A row keeps its first so many values and is normalised over them; the rest
                are zero, so that rows may differ and the width stays.
        """
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = self.pooling_module(hidden, attention_mask)
        if dimensions is not None:
            kept = torch.arange(vectors.shape[1], device=vectors.device).unsqueeze(0) < dimensions.unsqueeze(1)
            vectors = vectors * kept.to(vectors.dtype)
        return normalize(vectors) if self.l2_normalize else vectors


class TokenGraph(torch.nn.Module):
    """Token ids to token states, for loaders that pool themselves."""

    output = "last_hidden_state"

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Float32 states ``[batch, tokens, width]`` of ids and mask, each ``[batch, tokens]`` int64."""
        return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()


def example_inputs(graph: EmbeddingGraph | TokenGraph, *, use_dimensions: bool) -> tuple[torch.Tensor, ...]:
    """A padded batch to trace with: a full mask would let the model leave out its masking."""
    device = next(graph.parameters()).device
    ids = torch.arange(1, 22, device=device).view(3, 7)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    inputs = (ids * mask, mask)
    return (*inputs, torch.tensor([1, 2, 3], device=device)) if use_dimensions else inputs


def write_graph(graph: EmbeddingGraph | TokenGraph, target: Path, *, opset: int, use_dimensions: bool) -> None:
    """Trace the graph into ``target``, with ``<target>.data`` beside it when the weights need that.

    Raises:
        UserError: The model cannot be traced, or has an operator that this opset lacks.
    """
    names = ["input_ids", "attention_mask", "dimensions"][: 3 if use_dimensions else 2]
    tokens = {0: "batch_size", 1: "seq_length"}
    axes = dict.fromkeys(names[:2], tokens)
    axes[graph.output] = {0: "batch_size", 1: "embedding_dim"} if isinstance(graph, EmbeddingGraph) else tokens
    if use_dimensions:
        axes["dimensions"] = {0: "batch_size"}
    # weights beyond the limit are first written as one file each
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        traced = Path(folder, "model.onnx")
        try:
            with torch.inference_mode(), _quiet_tracing():
                torch.onnx.export(
                    graph.eval(),
                    example_inputs(graph, use_dimensions=use_dimensions),
                    str(traced),
                    dynamo=False,
                    opset_version=opset,
                    input_names=names,
                    output_names=[graph.output],
                    dynamic_axes=axes,
                )
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"this model cannot be exported with export.opset={opset}: {str(error).strip().splitlines()[0]} "
                "Try another export.opset, or export.attn_implementation=eager."
            ) from error
        gather_weights(traced, target)


def gather_weights(traced: Path, target: Path, limit: int = PROTOBUF_LIMIT) -> None:
    """Move a traced graph to ``target``; weights of more than ``limit`` bytes become one file, ``<target>.data``."""
    import onnx

    if sum(path.stat().st_size for path in traced.parent.iterdir()) <= limit:
        traced.replace(target)
        return
    model = onnx.load(traced)
    onnx.save_model(
        model, target, save_as_external_data=True, all_tensors_to_one_file=True, location=f"{target.name}.data"
    )


@contextlib.contextmanager
def _quiet_tracing() -> Iterator[None]:
    # What these warn of (a value that became a constant) is what the parity gate looks for, with texts of all lengths
    with warnings.catch_warnings():
        for category in (DeprecationWarning, UserWarning, torch.jit.TracerWarning):
            warnings.simplefilter("ignore", category)
        yield
