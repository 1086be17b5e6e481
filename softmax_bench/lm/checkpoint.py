"""Checkpoints, from which killed training resumes bit for bit."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.files import remove_unfinished
from softmax_bench.lm.optimizers import Optimizer
from softmax_bench.lm.tensor_file import UselessFileError, read_tensors, write_tensors
from softmax_bench.lm.training_state import Progress, TrainingState

_log = logging.getLogger(__name__)

SECONDS_BETWEEN = 30.0
"""The most training time that a kill can cost."""
_SHARE = 0.05
"""Maximum share of the time for writing checkpoints; large ones are written less often."""


class Checkpoint:
    """The checkpoint file of one training run; each checkpoint atomically replaces the last.

    Only one process at a time may train with it.

    It contains parameters and buffers, the optimiser's state, torch's random generators and the
    :class:`TrainingState`. That is the whole state of training, provided that layers and encoders
    keep theirs in buffers and draw only from torch's generators.

    Args:
        path: The file. Its folder is created when it is first written.
        identity: What must be equal to resume: trial, version of the code ...
        every: Seconds between two checkpoints.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, str], *, every: float = SECONDS_BETWEEN
    ) -> None:
        self.path = path
        self.identity = identity
        self.every = every
        self.resumed = 0
        """How often training has resumed from the file, over all its processes."""
        self._next = time.monotonic() + every

    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        return time.monotonic() >= self._next

    def save(self, model: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
        """Write a checkpoint.

        Raises:
            SoftmaxBenchError: It cannot be written; the previous checkpoint still exists.
        """
        begin = time.monotonic()
        content = {
            "model": memory(model),
            "optimizer": optimizer.state_dict(),
            "generators": _generators(),
            "carried": state.carried,
            "losses": torch.stack(state.losses) if state.losses else None,
            "history": msgspec.to_builtins(state.history),
            "tokens": state.tokens,
            "seconds": state.seconds,
            "best": state.best,
            "window": state.window,
            "resumed": self.resumed,
        }
        try:
            write_tensors(self.path, self.identity, content)
        except OSError as error:
            raise SoftmaxBenchError(
                f"the checkpoint {self.path} cannot be written: {error}; training stops here, and "
                "resumes from the previous checkpoint when it is started again"
            ) from error
        now = time.monotonic()
        self._next = now + max(self.every, (now - begin) / _SHARE)

    def load(self, model: nn.Module, optimizer: Optimizer) -> TrainingState:
        """Restore everything; return the initial state if there is no checkpoint.

        A checkpoint that is damaged or from another run is set aside, and a message is logged.
        """
        remove_unfinished(self.path)
        try:
            content = read_tensors(self.path, self.identity)
        except FileNotFoundError:
            return TrainingState()
        except UselessFileError as error:
            self._set_aside(str(error))
            return TrainingState()
        device = next(model.parameters()).device
        recall(model, content["model"])
        optimizer.load_state_dict(content["optimizer"])
        _set_generators(content["generators"])
        self.resumed = content["resumed"] + 1
        losses = content["losses"]
        return TrainingState(
            tokens=content["tokens"],
            seconds=content["seconds"],
            window=content["window"],
            carried=_to(content["carried"], device),
            losses=[] if losses is None else list(losses.to(device).unbind()),
            best=content["best"],
            history=msgspec.convert(content["history"], list[Progress]),
        )

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_name(f"{self.path.name}.set-aside")
        self.path.replace(aside)
        _log.warning(
            "the checkpoint %s %s; it is kept as %s, and training starts anew",
            self.path, reason, aside.name,
        )  # fmt: skip


def memory(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, including those that ``state_dict`` leaves out."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: value.detach() for name, value in named}


@torch.no_grad()
def recall(module: nn.Module, remembered: Mapping[str, Tensor]) -> None:
    """Copy the :func:`memory` of a module into another one of the same construction."""
    device = next(module.parameters()).device
    for name, value in remembered.items():
        owner, _, leaf = name.rpartition(".")
        part = module.get_submodule(owner)
        current: Tensor | None = getattr(part, leaf)
        if current is not None and current.shape == value.shape and current.dtype == value.dtype:
            current.copy_(value)  # in place, because others may share it
        else:
            setattr(part, leaf, value.to(device if current is None else current.device, copy=True))


def _generators() -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _to(state: Any, device: torch.device) -> Any:
    if isinstance(state, tuple):
        return tuple(_to(part, device) for part in state)
    return state.to(device) if isinstance(state, Tensor) else state
