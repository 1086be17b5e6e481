"""Compiles every kernel that training steps launch for one GPU, which need not be here.

Steps run on CPU tensors, and a launch compiles instead: so no kernel and no type is left out. A
process of its own runs it, because whether kernels are interpreted is decided once a process.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import softmax_bench.lm.optimizers
import softmax_bench.ops.all_classes
import softmax_bench.ops.dispatch
from softmax_bench import ops
from softmax_bench.layers import create_layer
from softmax_bench.lm import clip_grad_norm, make_optimizer

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.int64: "i64", torch.int32: "i32", torch.int8: "i8",
}  # fmt: skip
SPECS = [
    "hierarchical", "hierarchical_kary", "two_level", "adaptive(cutoffs=[90, 200])", "sampled",
    "blackout", "nce", "nce(shared=False)",
]  # fmt: skip
target = TARGETS[sys.argv[1]]
compiled: dict[str, str] = {}


def compile_instead(kernel: Any, *args: Any, grid: Any, warmup: Any, **options: Any) -> None:
    given = dict(zip(kernel.arg_names, args, strict=False))
    given |= {name: options.pop(name) for name in list(options) if name in kernel.arg_names}
    signature, constants = {}, {}
    for parameter in kernel.params:
        value = given[parameter.name]
        is_one = isinstance(value, int) and value == 1
        if parameter.is_constexpr or is_one or value is None:  # as Triton does
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + TYPES[value.dtype]
        else:
            signature[parameter.name] = "fp32" if isinstance(value, float) else "i32"
    name = f"{kernel.fn.__module__}.{kernel.fn.__name__}"
    key = f"{name} {signature} {constants} {options}"
    if key not in compiled:
        compiled[key] = name
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        made = triton.compile(source, target=target, options=options)
        assert made.metadata.shared <= 48 * 1024, (key, made.metadata)
        assert "cubin" in made.asm or "hsaco" in made.asm


JITFunction.run = compile_instead
for module in (
    softmax_bench.ops.dispatch, softmax_bench.ops.all_classes, softmax_bench.lm.optimizers,
):  # fmt: skip
    vars(module)["on_cuda"] = lambda tensor: True
for dtype in (torch.float32, torch.bfloat16):
    for spec in SPECS:
        layer = create_layer(spec, 64, 300, dtype=dtype, sparse=True)
        parameters = list(layer.parameters())
        for rule in ("sgd", "adagrad", "adam") if spec == "sampled" else ("adagrad",):
            optimizer = make_optimizer(rule, parameters, 0.1)
            hidden = torch.zeros(80, 64, dtype=dtype, requires_grad=True)
            layer._token_losses(hidden, torch.arange(80)).sum().backward()
            layer._weighted_loss(hidden, torch.arange(80), torch.ones(80, dtype=dtype)).backward()
            clip_grad_norm(parameters, 1.0)
            optimizer.step()
for dtype in (torch.float64, torch.float32, torch.bfloat16):
    hidden, weight, bias = (
        torch.zeros(*shape, dtype=dtype) for shape in ((9, 8), (5000, 8), (5000,))
    )
    ids, coefficient, class_weight = torch.arange(9), torch.ones(9), torch.ones(5000)
    hidden.requires_grad_()
    ops.pair_scores(hidden, weight, bias, torch.arange(10), ids).sum().backward()
    ops.linear_cross_entropy(hidden, weight, None, ids, coefficient)
    ops.linear_cross_entropy(
        hidden, weight, bias, ids, coefficient,
        penalty=1e-4, label_smoothing=0.1, soft_cap=30.0, class_weight=class_weight,
    )  # fmt: skip
    all_terms = ops.Terms(30.0, class_weight, mean=True, expected=True, best=True)
    for terms, offset in ((ops.Terms(), None), (all_terms, bias)):
        sums = ops.token_sums(hidden, weight, offset, ids, terms)
        torch.cat([x for x in sums if x is not None and x.requires_grad]).sum().backward()
print(*sorted(set(compiled.values())), sep="\n")
