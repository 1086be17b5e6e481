"""Exact softmax over all classes against other installed implementations: steps and evaluation."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.gpu.case import Case, Figures
from benchmarks.gpu.clock import median_seconds, peak_gib
from softmax_bench import ops

SIZES = (
    (8192, 2048, 131072, torch.bfloat16),
    (8192, 2304, 262144, torch.bfloat16),
    (8192, 4096, 32768, torch.bfloat16),
    (8192, 768, 50304, torch.bfloat16),
    (4096, 4096, 128256, torch.bfloat16),
    (16384, 2048, 131072, torch.bfloat16),
    (8192, 5120, 151936, torch.bfloat16),
    (8192, 1024, 32000, torch.float32),
)
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """One case for each size and competitor."""
    sizes = ((64, 16, 300, torch.float32),) if small else SIZES
    for size in sizes:
        name = "N={} H={} V={} {}".format(*size[:3], str(size[3]).removeprefix("torch."))
        yield Case(f"three bare products {name}", partial(_floor, *size, device))
        for racer, loss in _racers(small=small):
            yield Case(f"{racer} {name}", partial(_race, racer, loss, *size, device))
        for racer, evaluate in _EVALUATIONS.items():
            yield Case(f"{racer} {name}", partial(_evaluate, racer, evaluate, *size, device))


def _racers(*, small: bool) -> Iterator[tuple[str, Loss]]:
    yield "softmax-bench", _ours
    yield "softmax-bench, save_memory", partial(_ours, save_memory=True)
    yield "torch eager", _eager
    if not small:
        torch.compiler.reset()  # each size is compiled by itself, at its best
        yield "torch.compile", torch.compile(_eager, dynamic=False)
    if hasattr(F, "linear_cross_entropy"):
        yield "torch linear_cross_entropy", F.linear_cross_entropy
    if importlib.util.find_spec("liger_kernel"):
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        yield "Liger-Kernel", lambda h, w, t: LigerFusedLinearCrossEntropyLoss()(w, h, t)
    if importlib.util.find_spec("cut_cross_entropy"):
        from cut_cross_entropy import linear_cross_entropy

        yield "cut-cross-entropy", linear_cross_entropy
    if importlib.util.find_spec("quack"):
        from quack.linear_cross_entropy import chunked_linear_cross_entropy

        yield "Quack", lambda h, w, t: chunked_linear_cross_entropy(h, w, t, reduction="mean")


def _ours(hidden: Tensor, weight: Tensor, target: Tensor, *, save_memory: bool = False) -> Tensor:
    share = torch.full(target.shape, 1 / target.shape[0], device=target.device)
    return ops.linear_cross_entropy(hidden, weight, None, target, share, save_memory=save_memory)


def _one_product(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    scores = torch.empty(2048, weight.shape[0], device=weight.device, dtype=weight.dtype)
    for h in hidden.split(2048):
        torch.mm(h, weight.t(), out=scores[: len(h)])
    return scores


def _our_likelihood(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return ops.linear_nll(hidden, weight, None, target)[0]


_EVALUATIONS: dict[str, Loss] = {
    "evaluation: one bare product": _one_product,
    "evaluation: softmax-bench": _our_likelihood,
}


def _eager(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(hidden, weight).float(), target)


def _operands(
    tokens: int, width: int, classes: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width, device=device, dtype=dtype).requires_grad_()
    weight = (torch.randn(classes, width, device=device, dtype=dtype) / width**0.5).requires_grad_()
    return hidden, weight, torch.randint(classes, (tokens,), device=device)


def _race(
    racer: str, loss: Loss, tokens: int, width: int, classes: int, dtype: torch.dtype,
    device: torch.device,
) -> Figures:  # fmt: skip
    hidden, weight, target = _operands(tokens, width, classes, dtype, device)

    def run() -> None:
        hidden.grad = weight.grad = None
        loss(hidden, weight, target).backward()

    with _as_trained(dtype):
        seconds = median_seconds(run, device, seconds=0.5)
        hidden.grad = weight.grad = None
        peak = peak_gib(run, device)
    return _row(racer, tokens, width, classes, dtype, seconds, peak)


@torch.no_grad()
def _evaluate(
    racer: str, evaluate: Loss, tokens: int, width: int, classes: int, dtype: torch.dtype,
    device: torch.device,
) -> Figures:  # fmt: skip
    operands = _operands(tokens, width, classes, dtype, device)
    with _as_trained(dtype):
        seconds = median_seconds(lambda: evaluate(*operands), device, seconds=0.3)
        peak = peak_gib(lambda: evaluate(*operands), device)
    return _row(racer, tokens, width, classes, dtype, seconds, peak)


def _floor(
    tokens: int, width: int, classes: int, dtype: torch.dtype, device: torch.device
) -> Figures:
    hidden, weight, _ = _operands(tokens, width, classes, dtype, device)
    hidden, weight = hidden.detach(), weight.detach()
    scores = torch.empty(min(tokens, 2048), classes, device=device, dtype=dtype)
    gradients = torch.empty_like(hidden), torch.empty_like(weight)

    def run() -> None:
        for h, out in zip(hidden.split(2048), gradients[0].split(2048), strict=True):
            torch.mm(h, weight.t(), out=scores[: len(h)])
            torch.mm(scores[: len(h)], weight, out=out)
            torch.mm(scores[: len(h)].t(), h, out=gradients[1])

    with _as_trained(dtype):
        seconds = median_seconds(run, device, seconds=0.5)
    held = sum(x.nbytes for x in gradients) / 2**30
    return _row("three bare products", tokens, width, classes, dtype, seconds, held)


@contextmanager
def _as_trained(dtype: torch.dtype) -> Iterator[None]:
    """In float32, products use TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if dtype == torch.float32 else before)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _row(
    racer: str, tokens: int, width: int, classes: int, dtype: torch.dtype, seconds: float,
    peak: float,
) -> Figures:  # fmt: skip
    return {
        "racer": racer,
        "tokens": tokens,
        "width": width,
        "classes": classes,
        "type": str(dtype).removeprefix("torch."),
        "ms": 1e3 * seconds,
        "GiB at peak": peak,
    }
