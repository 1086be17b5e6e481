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

    def _refusal(self, what: str) -> SoftmaxBenchError:
        """An error that names the layer, since a model may have several."""
        return SoftmaxBenchError(f"{type(self).__name__}: {what}")

    def _check_tensor(self, what: str, given: object) -> None:
        if not isinstance(given, Tensor):
            raise self._refusal(f"{what} must be a torch.Tensor, not {type(given).__name__}")

    def _flatten(self, hidden: Tensor) -> Tensor:
        self._check_tensor("hidden", hidden)
        if hidden.dim() == 0 or hidden.shape[-1] != self.in_features:
            scores = hidden.dim() > 1 and hidden.shape[-1] == self.num_classes
            raise self._refusal(
                f"hidden must have shape (..., {self.in_features}), not {tuple(hidden.shape)}"
                + (": give hidden states; the layer computes the scores itself" if scores else "")
            )
        if not hidden.is_floating_point():
            raise self._refusal(f"hidden must be floating-point, not {hidden.dtype}")
        parameter = next(self.parameters())
        self._check_device("hidden", hidden, parameter)
        return hidden.reshape(-1, self.in_features).to(parameter.dtype)

    def _check_device(self, what: str, given: Tensor, parameter: Tensor) -> None:
        if given.device != parameter.device:
            raise self._refusal(
                f"{what} is on {given.device}, but the layer's parameters are on "
                f"{parameter.device}: move one of them with .to(device)"
            )

    def _check_target(self, hidden: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Flatten the targets, set ignored ones to class 0, and return which are kept."""
        self._check_tensor("target", target)
        if target.shape != hidden.shape[:-1]:
            raise self._refusal(
                f"target must have the shape {tuple(hidden.shape[:-1])} of the hidden states, "
                f"not {tuple(target.shape)}"
            )
        if target.dtype not in (torch.int64, torch.int32):
            raise self._refusal(
                f"target must be class ids in int64 or int32, not {target.dtype}: convert it by "
                "target.long()"
            )
        self._check_device("target", target, hidden)
        flat = target.reshape(-1).long()
        kept = flat != self.ignore_index
        ids = torch.where(kept, flat, 0)
        if not _may_look(ids):
            ids = ids.clamp(0, self.num_classes - 1)
        elif ids.numel():
            low, high = (int(x) for x in ids.aminmax())
            if low < 0 or high >= self.num_classes:
                wrong = low if low < 0 else high
                raise self._refusal(
                    f"target {wrong} is not a class: ids go from 0 to {self.num_classes - 1} "
                    f"(or ignore_index={self.ignore_index} to ignore a token)"
                )
        return ids, kept

    def _check_positives(self, hidden: Tensor, target: Tensor) -> None:
        """Check that there are K positives for each token."""
        if target.shape[:-1] != hidden.shape[:-1]:
            tokens = tuple(hidden.shape[:-1])
            raise self._refusal(
                f"target must have the shape {tokens} of the hidden states, or {(*tokens, 'K')} "
                f"with K positives each, not {tuple(target.shape)}"
            )
        if target.shape[-1] >= self.num_classes > 1:
            raise self._refusal(
                f"target has {target.shape[-1]} positives per token, of {self.num_classes} "
                "classes: it must hold their ids, not a 0 or 1 for each class"
            )

    def _positive_shares(self, target: Tensor) -> Tensor:
        """Share of each positive in its token's loss, one over their number, flattened."""
        kept = target != self.ignore_index
        return (kept.double() / kept.sum(-1, keepdim=True).clamp(min=1)).reshape(-1)

    def _marked(self, values: Tensor, target: Tensor) -> Tensor:
        """NaN for targets outside the classes, if nothing has checked them."""
        if _may_look(target) or torch.compiler.is_compiling():
            return values
        wrong = (target < 0) | (target >= self.num_classes)
        wrong = wrong & (target != self.ignore_index)
        return torch.where(wrong if values.dim() else wrong.any(), torch.nan, values)

    def _check_loss(self, loss: Tensor, hidden: Tensor, given: torch.dtype) -> None:
        """Reject a loss that is not finite because of the hidden states, ``given`` in that dtype.

        In float16 it is accepted, because ``GradScaler`` finds its scale by steps that overflow.
        """
        # Anything not finite in the input shows in the loss, and checking one number is cheap.
        if not _may_look(loss) or bool(loss.isfinite()):
            return
        if torch.float16 in (given, hidden.dtype):
            return
        bad = int((~hidden.isfinite().all(-1)).sum())
        if bad:
            raise self._refusal(
                f"{bad} of {hidden.shape[0]} hidden states are NaN or infinite: the model before "
                "the output layer has diverged; try a lower learning rate or clip gradients"
            )


def _may_look(tensor: Tensor) -> bool:
    """Whether reading numbers is free; on an accelerator it would stall the queue."""
    if torch.compiler.is_compiling():
        return False
    return tensor.device.type == "cpu" or torch.is_anomaly_enabled()
