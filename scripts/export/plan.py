"""What a TensorRT plan is built with: shapes, and which layers stay in fp32. It needs no TensorRT to be tested."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError

Shape = tuple[int, ...]

# What a layer norm is made of when the graph has no single layer for it
NORM_PARTS = {"POW", "REDUCE", "SUM", "SQRT", "DIV", "PROD"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A network layer.

    Attributes:
        name: Its name; the ONNX parser keeps the module path in it.
        kind: Layer type, or the operation of an elementwise or unary layer (``POW``, ``SUM``, ``SQRT``, …).
        is_float: Whether it computes in floating point.
    """

    name: str
    kind: str
    is_float: bool = True


def sequence_lengths(options: dict[str, Any], contract: Contract) -> Shape:
    """Shortest, tuned and longest sequence of the profile, in tokens.

    Raises:
        UserError: ``trt_max_seq_len`` is shorter than the contract's longest text: such requests would fail.
    """
    needed = max(contract.query_max_length, contract.passage_max_length)
    longest = options["trt_max_seq_len"] or needed
    if longest < needed:
        raise UserError(
            f"export.trt_max_seq_len is {longest}, but the model takes up to {needed} tokens: longer texts would fail. "
            "Raise it, or set it to null."
        )
    return (
        min(options["trt_min_seq_len"], longest),
        min(options["trt_opt_seq_len"], longest),
        longest,
    )


def profile_shapes(options: dict[str, Any], contract: Contract, inputs: Sequence[str]) -> dict[str, list[Shape]]:
    """Least, tuned and greatest shape of each input: ``[batch, tokens]``, and ``[batch]`` for ``dimensions``."""
    batches = [options[f"trt_{part}_batch"] for part in ("min", "opt", "max")]
    lengths = sequence_lengths(options, contract)
    both: list[Shape] = list(zip(batches, lengths, strict=True))
    return {name: [(batch,) for batch in batches] if name == "dimensions" else both for name in inputs}


def float32_layers(layers: Sequence[Layer], prefixes: Sequence[str], *, layer_norms: bool) -> set[int]:
    """Numbers of the layers to keep in fp32: those whose name starts with a prefix and, on request, layer norms."""
    found = {
        number
        for number, layer in enumerate(layers)
        if layer.is_float and layer.kind != "CAST" and layer.name.startswith(tuple(prefixes))
    }
    return found | layer_norm_layers(layers) if layer_norms else found


def layer_norm_layers(layers: Sequence[Layer]) -> set[int]:
    """Numbers of the layers of all layer norms, with the residual sum that feeds each.

    A norm is a NORMALIZATION layer or a module with a power and a mean; the power of a GELU alone is none.
    """
    modules: dict[str, list[int]] = {}
    found = set()
    for number, layer in enumerate(layers):
        if layer.kind == "NORMALIZATION":
            found |= {number, *_sums_before(layers, number)}
        elif layer.kind in NORM_PARTS and layer.is_float and "/" in layer.name:
            modules.setdefault(re.sub(r"/[^/]*$", "", layer.name), []).append(number)
    for numbers in modules.values():
        if {"POW", "REDUCE"} <= {layers[number].kind for number in numbers}:
            found |= {*numbers, *_sums_before(layers, numbers[0])}
    return found


def _sums_before(layers: Sequence[Layer], number: int) -> list[int]:
    near = range(max(0, number - 4), number)
    return [other for other in near if layers[other].kind == "SUM" and layers[other].is_float]
