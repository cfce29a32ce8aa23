"""ONNX Runtime back end of the encoder: no PyTorch, so that a server starts fast and small."""

import os
from pathlib import Path

import numpy as np

from scripts.common.contract import Contract
from scripts.common.encoder import LocalEncoder
from scripts.common.errors import UserError

# Activations of so many tokens stay in a core's cache: 512 ran 10 to 25 % faster than 2,048 on two AVX-512 cores
ONNX_TOKEN_BUDGET = 512


class OnnxEncoder(LocalEncoder):
    """Runs ``model.onnx``, which pools and normalises in the graph."""

    def __init__(
        self, contract: Contract, folder: Path, *, token_budget: int = ONNX_TOKEN_BUDGET, threads: int | None = None
    ) -> None:
        """Open the graph of ``folder``.

        Args:
            contract: The export's contract.
            folder: Folder with ``model.onnx`` and ``tokenizer.json``.
            token_budget: Tokens in a batch, padding included.
            threads: Threads of one batch; ``None`` takes those of the job (``OMP_NUM_THREADS``), or all cores.

        Raises:
            UserError: The graph is missing or ONNX Runtime cannot load it.
        """
        import onnxruntime

        super().__init__(contract, folder, token_budget)
        self.folder = folder
        path = folder / "model.onnx"
        if not path.is_file():
            raise UserError(f"{path} does not exist. Run `snakemake --until export` first.")
        options = onnxruntime.SessionOptions()
        # ONNX Runtime does not read this variable; unset, it takes all cores
        options.intra_op_num_threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0)
        available = onnxruntime.get_available_providers()
        wanted = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # its errors share no other base class
            raise UserError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error
        self.on_gpu = "CUDAExecutionProvider" in self.session.get_providers()
        self.has_dimensions = any(item.name == "dimensions" for item in self.session.get_inputs())

    def forward(self, ids: np.ndarray, mask: np.ndarray, dimensions: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`LocalEncoder.forward`; row ``i`` keeps its first ``dimensions[i]`` values, the rest are zero."""
        feed = {"input_ids": ids, "attention_mask": mask}
        if self.has_dimensions:
            whole = np.full(len(ids), self.contract.dimension)
            feed["dimensions"] = (whole if dimensions is None else dimensions).astype(np.int64)
        elif dimensions is not None:
            raise ValueError("this export has no `dimensions` input; export with use_dimension_arg=true")
        return self.session.run(["embeddings"], feed)[0]
