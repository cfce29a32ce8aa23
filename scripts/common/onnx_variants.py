"""Variants of an exported graph for ONNX Runtime: fused operators, half precision, eight-bit integers.

Every function reads one ``model.onnx`` and writes another one. Inputs, outputs and axes stay as they are; what changes
is what the graph computes with, so each variant is to be compared with its source (:func:`cosines`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.common.errors import UserError
from scripts.common.files import atomic_path
from scripts.common.job import log

# A protobuf file ends at 2 GiB; weights beyond that lie in a file beside the graph
PROTOBUF_LIMIT = 2**31 - 2**24
# Architectures whose layers ONNX Runtime's optimizer knows by the pattern of BERT
BERT_FAMILY = {"bert", "camembert", "roberta", "xlm-roberta", "distilbert"}
# Only products with weights are quantised. Shape inference knows no fused operator; what those give is float32 (1)
QUANTISE_OPTIONS = {"MatMulConstBOnly": True, "DefaultTensorType": 1}
# Token ids and mask, each [batch, tokens] int64
Batch = tuple[np.ndarray, np.ndarray]


def fuse(source: Path, target: Path) -> dict[str, int]:
    """Write the graph with attention, layer norms and GELU as single operators of ONNX Runtime.

    Args:
        source: ``model.onnx`` with ``config.json`` beside it, exported with eager attention: the operators that
            PyTorch writes for ``sdpa`` are not recognised.
        target: The fused graph, which only ONNX Runtime reads.

    Returns:
        How many operators of each kind were fused; all are 0 for architectures without such operators, whose graph is
        copied with constants folded.

    Raises:
        UserError: The graph cannot be read.
    """
    from onnxruntime.transformers.optimizer import optimize_model

    config = json.loads((source.parent / "config.json").read_text(encoding="utf-8"))
    family = config.get("model_type")
    heads = config.get("num_attention_heads") or config.get("n_heads") or 0
    width = config.get("hidden_size") or config.get("dim") or 0
    # level 0: the optimizer's own run of ONNX Runtime infers types, and fails on graphs with symbolic axes
    model = optimize_model(
        str(source),
        model_type="bert",
        num_heads=heads if family in BERT_FAMILY else 0,
        hidden_size=width if family in BERT_FAMILY else 0,
        opt_level=0,
        use_gpu=False,
    )
    found = {name: count for name, count in model.get_fused_operator_statistics().items() if count}
    _save(model.model, target)
    log.info("%s: fused %s", target.name, ", ".join(f"{count} {name}" for name, count in found.items()) or "nothing")
    return found


def to_half(source: Path, target: Path) -> None:
    """Write the graph with float16 weights and arithmetic; inputs and outputs keep their types.

    Sums over tokens (pooling), lengths and their lower bounds stay in float32, as float16 has not their range.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    half = convert_float_to_float16(
        model,
        keep_io_types=True,
        disable_shape_infer=True,
        op_block_list=["ReduceSum", "ReduceL2", "Clip", "Range"],
    )
    _save(half, target)


def quantize_dynamic(source: Path, target: Path, *, reduce_range: bool = False) -> None:
    """Write the graph with int8 weights, one scale a channel; activations are scaled as they come.

    Args:
        source: A graph, best a fused one.
        target: The quantised graph.
        reduce_range: Use 7 bits of the weights. Processors with AVX2 or AVX-512 but without VNNI add two products in
            16 bits, which 8-bit weights can overflow.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as quantize

    with atomic_path(target) as temporary:
        quantize(
            str(source),
            str(temporary),
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
            use_external_data_format=_is_large(source),
            extra_options=QUANTISE_OPTIONS,
        )


def quantize_static(source: Path, target: Path, batches: Sequence[Batch], *, reduce_range: bool = False) -> None:
    """Write the graph with int8 weights and with activations scaled once, from the texts given.

    Args:
        source: A graph.
        target: The quantised graph.
        batches: ``(ids, mask)``, each ``[batch, tokens]`` int64, of real texts.
        reduce_range: See :func:`quantize_dynamic`.

    Raises:
        UserError: There are no texts to calibrate with.
    """
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize

    if not batches:
        raise UserError("int8 quantisation with fixed scales needs texts to calibrate with, and the test set has none.")
    wanted = _graph_inputs(source)

    class Texts(CalibrationDataReader):
        def __init__(self) -> None:
            # the cut by `dimensions` comes after all that is quantised
            feeds = (
                {"input_ids": ids, "attention_mask": mask, "dimensions": mask.sum(axis=1)} for ids, mask in batches
            )
            self._feeds = ({name: feed[name] for name in wanted} for feed in feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    with atomic_path(target) as temporary:
        quantize(
            str(source),
            str(temporary),
            Texts(),
            quant_format=QuantFormat.QDQ,
            # attention scores and softmax lose most; weights times activations cost most
            op_types_to_quantize=["MatMul", "Attention", "Gemm"],
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            per_channel=True,
            reduce_range=reduce_range,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=_is_large(source),
            extra_options=QUANTISE_OPTIONS,
        )


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine of each row of two ``[texts, dimension]`` arrays, float64; a row without length gives -1, as does NaN."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (one * other).sum(axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return np.nan_to_num(found, nan=-1.0)


def cosine_facts(values: np.ndarray) -> dict[str, float]:
    """Distribution of cosines: least, first percentile, median and mean."""
    return {
        "min": float(values.min()),
        "p1": float(np.percentile(values, 1)),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
    }


def size_on_disk(path: Path) -> int:
    """Bytes of a graph, weights beside it included."""
    return sum(part.stat().st_size for part in path.parent.iterdir() if part.name in {path.name, f"{path.name}.data"})


def _is_large(source: Path) -> bool:
    return size_on_disk(source) > PROTOBUF_LIMIT


def _save(model: Any, target: Path) -> None:
    import onnx

    # the optimizer adds operators of this domain without naming it, on which shape inference fails afterwards
    domains = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(
        onnx.helper.make_opsetid(name, 1) for name in {node.domain for node in model.graph.node} - domains - {"ai.onnx"}
    )
    if model.ByteSize() <= PROTOBUF_LIMIT:
        with atomic_path(target) as temporary:
            temporary.write_bytes(model.SerializeToString())
        return
    target.with_name(f"{target.name}.data").unlink(missing_ok=True)
    onnx.save_model(
        model, target, save_as_external_data=True, all_tensors_to_one_file=True, location=f"{target.name}.data"
    )


def _graph_inputs(source: Path) -> set[str]:
    import onnx

    return {item.name for item in onnx.load(source, load_external_data=False).graph.input}
