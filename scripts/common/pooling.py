"""Token states to one vector: the one place where pooling is written for PyTorch (encoder, training and export)."""

import torch


def pool(hidden: torch.Tensor, mask: torch.Tensor, mode: str) -> torch.Tensor:
    """Pool token states.

    Args:
        hidden: ``[batch, tokens, width]`` last hidden states.
        mask: ``[batch, tokens]``, 1 for real tokens. Padding may stand on either side.
        mode: ``avg`` (mean of real tokens), ``cls`` (first real token) or ``last`` (last real token).

    Returns:
        ``[batch, width]`` float32 vectors.
    """
    hidden = hidden.float()
    if mode == "avg":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
    # position numbers keep this free of data-dependent shapes, so that it exports
    positions = torch.arange(mask.shape[1], device=mask.device).unsqueeze(0) + 1
    if mode == "last":
        index = (positions * mask).argmax(dim=1)
    elif mode == "cls":
        index = ((mask.shape[1] + 1 - positions) * mask).argmax(dim=1)
    else:
        raise ValueError(f"unknown pooling {mode!r}: use avg, cls or last")
    return hidden.gather(1, index.view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])).squeeze(1)


def normalize(vectors: torch.Tensor) -> torch.Tensor:
    """Rows scaled to unit length; a zero row stays zero."""
    return torch.nn.functional.normalize(vectors, p=2, dim=-1, eps=1e-12)
