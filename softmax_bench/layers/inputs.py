"""Checks of an output layer's inputs, before the computation or, on an accelerator, by a NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from softmax_bench.classes.kept_buffers import KeptBuffers
from softmax_bench.errors import SoftmaxBenchError


class CheckedInputs(KeptBuffers):
    """A module that takes hidden states and one class id for each."""

    in_features: int
    num_classes: int
    ignore_index: int

    def _flatten(self, hidden: Tensor) -> Tensor:
        if hidden.dim() == 0 or hidden.shape[-1] != self.in_features:
            raise SoftmaxBenchError(
                f"hidden must have shape (..., {self.in_features}), not {tuple(hidden.shape)}"
            )
        if not hidden.is_floating_point():
            raise SoftmaxBenchError(f"hidden must be floating-point, not {hidden.dtype}")
        dtype = next(self.parameters()).dtype
        return hidden.reshape(-1, self.in_features).to(dtype)

    def _check_target(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Flatten the targets, set ignored ones to class 0, and return which are kept."""
        if target.shape != hidden.shape[:-1]:
            raise SoftmaxBenchError(
                f"target must have the shape {tuple(hidden.shape[:-1])} of the hidden states, "
                f"not {tuple(target.shape)}"
            )
        if target.dtype not in (torch.int64, torch.int32):
            raise SoftmaxBenchError(f"target must be int64 class ids, not {target.dtype}")
        flat = target.reshape(-1).long()
        kept = flat != self.ignore_index
        ids = torch.where(kept, flat, 0)
        if not _may_look(ids):
            ids = ids.clamp(0, self.num_classes - 1)
        elif ids.numel():
            low, high = (int(x) for x in ids.aminmax())
            if low < 0 or high >= self.num_classes:
                wrong = low if low < 0 else high
                raise SoftmaxBenchError(
                    f"target {wrong} is not a class: ids go from 0 to {self.num_classes - 1} "
                    f"(or {self.ignore_index} to ignore a token)"
                )
        return ids, kept

    def _marked(self, values: Tensor, target: Tensor) -> Tensor:
        """NaN for targets outside the classes, if nothing has checked them."""
        if _may_look(target) or torch.compiler.is_compiling():
            return values
        wrong = (target < 0) | (target >= self.num_classes)
        wrong = wrong & (target != self.ignore_index)
        return torch.where(wrong if values.dim() else wrong.any(), torch.nan, values)

    def _check_loss(self, loss: Tensor, hidden: Tensor) -> None:
        # Anything not finite in the input shows in the loss, and checking one number is cheap.
        if not _may_look(loss) or bool(loss.isfinite()):
            return
        bad = int((~hidden.isfinite().all(-1)).sum())
        if bad:
            raise SoftmaxBenchError(
                f"{bad} of {hidden.shape[0]} hidden states are NaN or infinite: the model before "
                "the output layer has diverged; try a lower learning rate or clip gradients"
            )


def _may_look(tensor: Tensor) -> bool:
    """Whether reading numbers is free; on an accelerator it would stall the queue."""
    if torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" or torch.is_anomaly_enabled()
