"""What a result computes beside what its original computes, on the same numbers: each output with the one in its place."""

import numpy as np
import torch
from torch.utils import _pytree

from .protocol import Refused

TOLERANCE = 1e-3
"""Of the largest value of the original, or of one where all are smaller."""


def compared(got: list[np.ndarray] | None, original: list[np.ndarray] | None) -> dict:
    """`checked` is false where one of both could not be run. A result that differs is refused."""
    if got is None or original is None:
        return {"checked": False, "max_difference": None, "outputs": None}
    if len(got) != len(original):
        raise Refused("unsupported_model_format", f"the result has {len(got)} outputs, and the original {len(original)}")
    largest = 0.0
    for a, b in zip(got, original):
        difference = difference_of(np.asarray(a), b)
        bound = TOLERANCE * max(1.0, float(np.abs(b).max(initial=0.0)))
        if not difference <= bound:
            raise Refused("unsupported_model_format", f"the result computes something else than the original (by {difference:.3g})")
        largest = max(largest, difference)
    return {"checked": True, "max_difference": float(f"{largest:.3g}"), "outputs": len(got)}


def difference_of(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape:
        raise Refused("unsupported_model_format", "the result has outputs of another shape than the original")
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def outputs_of(module: torch.nn.Module, example: tuple) -> list[np.ndarray]:
    with torch.inference_mode():
        values = [each for each in _pytree.tree_leaves(module(*example)) if each is not None]
    if not values or not all(isinstance(each, torch.Tensor) for each in values):
        raise Refused("unsupported_model_format", "the model has an output that is no tensor")
    return [each.detach().numpy() for each in values]
