"""A TensorRT plan from the exported graph.

Not run where it was written: there was no GPU and no TensorRT. What needs neither (shapes, which layers stay in fp32,
quantisation by ModelOpt up to the quantised graph) is in modules of its own and was.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from scripts.common.contract import Contract
from scripts.common.errors import UserError
from scripts.common.files import atomic_path
from scripts.common.job import job, log
from scripts.export.plan import Layer, float32_layers, profile_shapes

# Builder flags besides FP16, by export.quant_cfg
QUANTIZED_FLAGS = {"fp8": "FP8", "int8_sq": "INT8"}


def export_tensorrt(
    onnx_contract: str | Path,
    target: str | Path,
    *,
    options: dict[str, Any],
    checkpoint: str | Path | None = None,
    test_set: str | Path | None = None,
) -> None:
    """Build ``model.plan`` and put the tokenizer beside it.

    Args:
        onnx_contract: The export's contract, with ``model.onnx`` beside it.
        target: The plan.
        options: Section ``export`` of the configuration.
        checkpoint: The checkpoint's contract; needed for ``quant_cfg``.
        test_set: Folder in BEIR layout with the calibration texts; needed for ``quant_cfg``.

    Raises:
        UserError: TensorRT is missing or of another version, or cannot parse or build the graph.
    """
    trt = import_tensorrt()
    contract, target = Contract.load(onnx_contract), Path(target)
    source = Path(onnx_contract).parent
    with tempfile.TemporaryDirectory(prefix=".plan.", dir=target.parent) as folder:
        graph = source / "model.onnx"
        if options["quant_cfg"]:
            graph = Path(folder, "quantized.onnx")
            _quantize(checkpoint, test_set, graph, options)
        plan = build_plan(trt, graph, contract, options)
    with atomic_path(target) as temporary:
        temporary.write_bytes(plan)
    shutil.copytree(source / "tokenizer", target.parent / "tokenizer", dirs_exist_ok=True)
    log.info("%s: %.0f MB, TensorRT %s, %s", target, len(plan) / 1e6, trt.__version__, options["quant_cfg"] or "fp16")


def import_tensorrt() -> Any:
    """The TensorRT package, checked to be of a version that takes precision by layer."""
    try:
        import tensorrt
    except ImportError as error:
        raise UserError(
            f"export.export_to_trt=true needs the package tensorrt, which is not here ({error}). Run on a machine with "
            "an NVIDIA GPU in the environment envs/tensorrt.yaml (`snakemake --sdm conda`), or pip's extra `tensorrt`."
        ) from error
    if not hasattr(tensorrt.BuilderFlag, "FP16"):
        raise UserError(
            f"TensorRT {tensorrt.__version__} no longer takes precisions by layer. Install tensorrt>=10.13,<10.15."
        )
    return tensorrt


def build_plan(trt: Any, graph: Path, contract: Contract, options: dict[str, Any]) -> bytes:
    """Parse a graph and build it; :class:`UserError` carries what TensorRT said when either fails."""
    messages: list[str] = []
    logger = _logger(trt, messages)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, logger)
    # from a file, so that weights beside the graph are found
    if not parser.parse_from_file(str(graph)):
        errors = [str(parser.get_error(number)) for number in range(parser.num_errors)]
        raise UserError(f"TensorRT cannot parse {graph}:\n" + "\n".join(errors or messages))
    config = builder.create_builder_config()
    _set_flags(trt, config, options["quant_cfg"])
    inputs = [network.get_input(number).name for number in range(network.num_inputs)]
    profile = builder.create_optimization_profile()
    for name, (least, tuned, greatest) in profile_shapes(options, contract, inputs).items():
        profile.set_shape(name, least, tuned, greatest)
    config.add_optimization_profile(profile)
    layers = [network.get_layer(number) for number in range(network.num_layers)]
    if options["quant_cfg"] and not any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        raise UserError(f"TensorRT found no quantised layer in {graph}; the plan would not be {options['quant_cfg']}.")
    forced = float32_layers(
        [_describe(trt, layer) for layer in layers],
        options["override_layers_to_fp32"],
        layer_norms=options["override_layernorm_precision_to_fp32"],
    )
    for number in forced:
        _force_float32(trt, layers[number])
    log.info("%d of %d layers are kept in fp32", len(forced), len(layers))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise UserError("TensorRT cannot build the plan:\n" + "\n".join(messages[-20:] or ["it gave no reason"]))
    return bytes(plan)


def _quantize(checkpoint: str | Path | None, test_set: str | Path | None, graph: Path, options: dict[str, Any]) -> None:
    from scripts.export.export_onnx import open_checkpoint
    from scripts.export.quantize import CALIBRATION_TEXTS, write_quantized
    from scripts.export.samples import sample_texts

    if checkpoint is None or test_set is None:
        raise ValueError("quant_cfg needs the checkpoint and a test set")
    encoder, _ = open_checkpoint(checkpoint, options["attn_implementation"])
    write_quantized(
        encoder,
        sample_texts(test_set, CALIBRATION_TEXTS),
        graph,
        quant_cfg=options["quant_cfg"],
        batch_size=options["calibration_batch_size"],
        opset=options["opset"],
        use_dimensions=options["use_dimension_arg"],
    )


def _set_flags(trt: Any, config: Any, quant_cfg: str | None) -> None:
    # without PREFER_PRECISION_CONSTRAINTS TensorRT may pass over the layers' own precision when fp16 is faster
    names = ["FP16", "VERSION_COMPATIBLE", "PREFER_PRECISION_CONSTRAINTS"]
    for name in names + ([QUANTIZED_FLAGS[quant_cfg]] if quant_cfg else []):
        config.set_flag(getattr(trt.BuilderFlag, name))
    config.profiling_verbosity = trt.ProfilingVerbosity.LAYER_NAMES_ONLY


def _describe(trt: Any, layer: Any) -> Layer:
    floats = {trt.float32, trt.float16}
    inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
    is_float = any(item is not None and item.dtype in floats for item in inputs)
    kind = layer.type.name
    special = {"ELEMENTWISE": trt.IElementWiseLayer, "UNARY": trt.IUnaryLayer}
    if kind in special:
        # the binding hands out the base class, which does not know the operation
        layer.__class__ = special[kind]
        kind = layer.op.name
    return Layer(layer.name, kind, is_float and kind not in {"QUANTIZE", "DEQUANTIZE"})


def _force_float32(trt: Any, layer: Any) -> None:
    layer.precision = trt.float32
    for number in range(layer.num_outputs):
        if layer.get_output_type(number) in {trt.float32, trt.float16}:
            layer.set_output_type(number, trt.float32)


def _logger(trt: Any, messages: list[str]) -> Any:
    class Messages(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in {trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR}:
                messages.append(message)
                log.error("TensorRT: %s", message)
            elif severity == trt.ILogger.WARNING:
                log.warning("TensorRT: %s", message)

    return Messages()


if __name__ == "__main__":
    with job(snakemake):  # noqa: F821
        export_tensorrt(
            snakemake.input.exported,  # noqa: F821
            snakemake.output[0],  # noqa: F821
            options=snakemake.params.options,  # noqa: F821
            checkpoint=snakemake.input.checkpoint or None,  # noqa: F821
            test_set=Path(snakemake.input.corpus).parent if snakemake.input.corpus else None,  # noqa: F821
        )
