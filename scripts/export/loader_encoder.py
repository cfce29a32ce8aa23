"""The graph of the folder ``sentence_transformers/``, with what its loaders do after it."""

import numpy as np

from scripts.common.onnx_encoder import OnnxEncoder


class LoaderEncoder(OnnxEncoder):
    """Token states by ONNX Runtime, pooled and normalised under the contract as sentence-transformers and others do."""

    def forward(self, ids: np.ndarray, mask: np.ndarray, dimensions: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`OnnxEncoder.forward`; this graph has no input ``dimensions``."""
        if dimensions is not None:
            raise ValueError("the loaders' graph has no `dimensions` input")
        states = self.session.run(["last_hidden_state"], {"input_ids": ids, "attention_mask": mask})[0]
        vectors = pool(states, mask, self.contract.pooling)
        if self.contract.l2_normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return vectors


def pool(states: np.ndarray, mask: np.ndarray, mode: str) -> np.ndarray:
    """Token states ``[batch, tokens, width]``, padded on the right, as vectors ``[batch, width]``."""
    if mode == "avg":
        return (states * mask[..., None]).sum(axis=1, dtype=np.float32) / mask.sum(axis=1, keepdims=True)
    rows = np.arange(len(states))
    return states[rows, mask.sum(axis=1) - 1 if mode == "last" else 0].astype(np.float32)
