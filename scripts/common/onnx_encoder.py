"""ONNX Runtime back end of the encoder: no PyTorch, so that a server starts fast and small."""

from pathlib import Path

import numpy as np

from scripts.common.contract import Contract
from scripts.common.encoder import CPU_TOKEN_BUDGET, LocalEncoder
from scripts.common.errors import UserError


class OnnxEncoder(LocalEncoder):
    """Runs ``model.onnx``, which pools and normalises in the graph."""

    def __init__(
        self, contract: Contract, folder: Path, *, token_budget: int = CPU_TOKEN_BUDGET, threads: int = 0
    ) -> None:
        import onnxruntime

        super().__init__(contract, folder, token_budget)
        path = folder / "model.onnx"
        if not path.is_file():
            raise UserError(f"{path} does not exist. Run `snakemake --until export` first.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        available = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        self.has_dimensions = any(item.name == "dimensions" for item in self.session.get_inputs())

    def forward(self, ids: np.ndarray, mask: np.ndarray, dimensions: int | None = None) -> np.ndarray:
        """See :meth:`LocalEncoder.forward`; ``dimensions`` cuts every row before it is normalised."""
        feed = {"input_ids": ids, "attention_mask": mask}
        if self.has_dimensions:
            feed["dimensions"] = np.full(len(ids), dimensions or self.contract.dimension, np.int64)
        elif dimensions not in (None, self.contract.dimension):
            raise ValueError("this export has no `dimensions` input; export with use_dimension_arg=true")
        return self.session.run(["embeddings"], feed)[0]
