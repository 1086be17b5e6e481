"""Compiles the dense kernels for one GPU, which need not be here: a process of its own runs it."""

from __future__ import annotations

import sys
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from softmax_bench.ops.cuda import score_rows

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
OPTIONS: list[dict[str, Any]] = [
    {"CAP": 0.0, "SMOOTHING": 0.0, "PENALTY": 0.0},
    {"CAP": 30.0, "SMOOTHING": 0.1, "PENALTY": 1e-4},
]
target = TARGETS[sys.argv[1]]
for kernel in (score_rows.loss_kernel, score_rows.sums_kernel, score_rows.gradient_kernel):
    for kind in ("bf16", "fp64"):
        for options in OPTIONS:
            everything = options["CAP"] > 0
            sums = "fp64" if kind == "fp64" else "fp32"
            constants: dict[str, Any] = {
                **options,
                "ACC": getattr(tl, "float64" if kind == "fp64" else "float32"),
                "BLOCK": score_rows.BLOCK,
                "HAS_BIAS": everything,
                "WEIGHTED": everything,
                "MEAN": everything,
                "EXPECTED": everything,
                "BEST": everything,
            }
            if not everything:
                constants.update(B=None, U=None, U_MEAN=None)
            pointers = {"S": kind, "B": kind, "T": "i64", "BEST_OUT": "i64"}
            names = kernel.arg_names
            constants = {name: value for name, value in constants.items() if name in names}
            signature = {
                name: "constexpr"
                if name in constants
                else "i32"
                if name in ("V", "stride")
                else "*" + pointers.get(name, sums)
                for name in names
            }
            positions = {(names.index(name),): value for name, value in constants.items()}
            source = ASTSource(fn=kernel, signature=signature, constexprs=positions)
            made = triton.compile(source, target=target, options={"num_warps": score_rows.WARPS})
            assert made.metadata.shared <= 48 * 1024, made.metadata
            assert "cubin" in made.asm or "hsaco" in made.asm
print("compiled")
