"""A quantised graph by NVIDIA's ModelOpt, calibrated on the user's own texts."""

from pathlib import Path

import numpy as np

from scripts.common.contract import Side
from scripts.common.encoder import TorchEncoder, pad
from scripts.common.errors import UserError
from scripts.common.job import log

# ModelOpt's configuration for each export.quant_cfg
CONFIGURATIONS = {"fp8": "FP8_DEFAULT_CFG", "int8_sq": "INT8_SMOOTHQUANT_CFG"}
# As many texts as the original recipe takes (from cnn_dailymail; here they are the user's)
CALIBRATION_TEXTS = 512
Batches = list[tuple[np.ndarray, np.ndarray]]


def write_quantized(
    encoder: TorchEncoder,
    texts: dict[Side, list[str]],
    target: Path,
    *,
    quant_cfg: str,
    batch_size: int,
    opset: int,
    use_dimensions: bool,
) -> None:
    """Quantise the encoder's model in place and write its graph, with quantise and dequantise nodes, to ``target``.

    Args:
        encoder: The checkpoint.
        texts: Calibration texts by side.
        target: ONNX file.
        quant_cfg: ``fp8`` or ``int8_sq``.
        batch_size: Texts per calibration batch.
        opset: ONNX opset.
        use_dimensions: Whether the graph has the input ``dimensions``.

    Raises:
        UserError: ModelOpt is missing, or put no quantisation into the graph.
    """
    try:
        import modelopt.torch.quantization as mtq
    except ImportError as error:
        raise UserError(
            f"export.quant_cfg={quant_cfg} needs NVIDIA's ModelOpt ({error}). Run in the environment "
            "envs/tensorrt.yaml (`snakemake --sdm conda`), or install the extra `tensorrt`."
        ) from error
    import onnx
    import torch

    from scripts.common.onnx_graph import EmbeddingGraph, write_graph

    device = "cuda" if torch.cuda.is_available() else "cpu"
    graph = EmbeddingGraph(encoder.model, encoder.contract).to(device).eval()

    def calibrate(module: torch.nn.Module) -> None:
        with torch.no_grad():
            for ids, mask in calibration_batches(encoder, texts, batch_size):
                module(torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device))

    log.info("calibrating %s on %d texts of the test set", quant_cfg, sum(map(len, texts.values())))
    mtq.quantize(graph, getattr(mtq, CONFIGURATIONS[quant_cfg]), forward_loop=calibrate)
    write_graph(graph, target, opset=opset, use_dimensions=use_dimensions)
    nodes = onnx.load(target, load_external_data=False).graph.node
    if not any(node.op_type.endswith("QuantizeLinear") for node in nodes):
        raise UserError(f"ModelOpt left the graph unquantised: it does not support this model with {quant_cfg}.")


def calibration_batches(encoder: TorchEncoder, texts: dict[Side, list[str]], size: int) -> Batches:
    """Padded ``(ids, mask)`` of texts as the model sees them, ``size`` a batch."""
    batches: Batches = []
    for side, given in texts.items():
        tokens = encoder.tokenize(given, side)
        batches += [pad(tokens[start : start + size]) for start in range(0, len(tokens), size)]
    return batches
