from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.lm import clip_grad_norm, make_optimizer
from softmax_bench.ops import row_sparse
from softmax_bench.ops.cpu import updates

TORCHS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


def gradients(steps: int) -> list[Tensor]:
    """Row-sparse gradients of a (10, 3) table, always on other rows."""
    return [
        row_sparse(torch.randperm(10)[:4].sort()[0], torch.randn(4, 3), 10) for _ in range(steps)
    ]


@pytest.mark.parametrize(("name", "start"), [("sgd", 0.0), ("adagrad", 0.0), ("adagrad", 0.3)])
def test_row_sparse_and_dense_steps_equal_torchs(name: str, start: float) -> None:
    ours, dense, theirs = (nn.Parameter(torch.ones(10, 3)) for _ in range(3))
    optimizer = make_optimizer(name, [ours, dense], 0.1, initial_accumulator_value=start)
    wanted = TORCHS[name](
        [theirs], lr=0.1, **({"initial_accumulator_value": start} if start else {})
    )
    for gradient in gradients(6):
        ours.grad, dense.grad, theirs.grad = gradient, gradient.to_dense(), gradient.to_dense()
        optimizer.step()
        wanted.step()
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(dense, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", TORCHS)
def test_dense_steps_equal_torchs(name: str, dtype: torch.dtype) -> None:
    ours, theirs = (nn.Parameter(torch.ones(5, 3, dtype=dtype)) for _ in range(2))
    optimizer = make_optimizer(name, [ours], 0.1)
    wanted = TORCHS[name]([theirs], lr=0.1, fused=True)
    for _ in range(4):
        ours.grad = theirs.grad = torch.randn(5, 3).to(dtype)
        optimizer.step()
        wanted.step()
    torch.testing.assert_close(ours, theirs)


def test_a_step_on_a_cpu_imports_neither_the_compiler_nor_triton() -> None:
    """Steps of torch's optimisers import the compiler, which takes longer than short trainings."""
    code = """
import sys, torch
from softmax_bench.layers import create_layer
from softmax_bench.lm import clip_grad_norm, make_optimizer
layer = create_layer("hierarchical", 4, 9, sparse=True)
optimizer = make_optimizer("adam", layer.parameters(), 0.1)
layer(torch.ones(3, 4), torch.arange(3)).backward()
clip_grad_norm(layer.parameters(), 1.0)
optimizer.step()
optimizer.zero_grad()
assert not {"torch._dynamo", "triton"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_adam_goes_on_from_a_step_that_a_gpu_counted() -> None:
    """There it is a tensor, so that a CUDA graph counts too."""
    seen = []
    for step in (2, torch.tensor(2.0, dtype=torch.float64)):
        parameter = nn.Parameter(torch.zeros(3))
        optimizer = make_optimizer("adam", [parameter], 0.1)
        mean, square = torch.tensor([0.1, -0.2, 0.3]), torch.tensor([0.1, 0.2, 0.3])
        optimizer.load_state_dict([{"step": step, "mean": mean, "square": square}])
        for _ in range(2):
            parameter.grad = torch.tensor([1.0, 2.0, 3.0])
            optimizer.step()
        seen.append(parameter.detach())
    assert torch.equal(*seen)


def test_the_layer_has_a_rate_of_its_own() -> None:
    table, matrix, other = (nn.Parameter(torch.zeros(2, 2)) for _ in range(3))
    optimizer = make_optimizer(
        "sgd", [table, matrix, other], 0.5, layer=[table, matrix], layer_rate=4.0
    )
    table.grad = row_sparse(torch.tensor([0, 1]), torch.ones(2, 2), 2)
    matrix.grad = other.grad = torch.ones(2, 2)
    optimizer.step()
    assert [float(p[0, 0].detach()) for p in (table, matrix, other)] == [-2.0, -2.0, -0.5]


def test_lazy_adam_equals_torchs() -> None:
    ours, theirs = nn.Parameter(torch.ones(10, 3)), nn.Parameter(torch.ones(10, 3))
    optimizer = make_optimizer("adam", [ours], 0.1)
    sparse = torch.optim.SparseAdam([theirs], lr=0.1)
    for gradient in gradients(6):
        ours.grad, theirs.grad = gradient, gradient
        optimizer.step()
        sparse.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 8), (40, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["adagrad", "adam", "adamw"])
def test_rows_in_parts_of_any_shape_and_type(
    name: str, dtype: torch.dtype, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every row has a gradient, lazy and dense rules are the same."""
    monkeypatch.setattr(updates, "_CHUNK", 24)
    ours, theirs = (nn.Parameter(torch.ones(shape, dtype=dtype)) for _ in range(2))
    optimizer = make_optimizer(name, [ours], 0.1)
    wanted = TORCHS[name]([theirs], lr=0.1, fused=True)  # sums in float32, as here
    for _ in range(3):
        theirs.grad = torch.randn(shape, dtype=dtype)
        ours.grad = row_sparse(torch.arange(40), theirs.grad.clone(), 40)
        optimizer.step()
        wanted.step()
    torch.testing.assert_close(ours, theirs)


def test_adamw_decays_the_rows_it_touches() -> None:
    table, other = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(2))
    optimizer = make_optimizer("adamw", [table, other], 0.1, weight_decay=0.5)
    table.grad = row_sparse(torch.tensor([1]), torch.zeros(1, 4), 3)
    other.grad = torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(table[:, 0].detach(), torch.tensor([1.0, 0.95, 1.0]))
    torch.testing.assert_close(other.detach(), torch.full((2,), 0.95))


def test_dense_and_row_sparse_parameters_side_by_side() -> None:
    table, matrix = nn.Parameter(torch.ones(10, 3)), nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer("sgd", [table, matrix], 1.0)
    table.grad = row_sparse(torch.tensor([4]), torch.ones(1, 3), 10)
    matrix.grad = torch.ones(2, 2)
    optimizer.step()
    assert table[:, 0].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    assert matrix.tolist() == [[0, 0], [0, 0]]
    optimizer.zero_grad()
    assert table.grad is None


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_equals_torchs(max_norm: float) -> None:
    table, matrix = nn.Parameter(torch.ones(10, 3)), nn.Parameter(torch.ones(2, 2))
    twins = [nn.Parameter(torch.ones(10, 3)), nn.Parameter(torch.ones(2, 2))]
    table.grad, matrix.grad = gradients(1)[0], torch.randn(2, 2)
    twins[0].grad, twins[1].grad = table.grad.to_dense(), matrix.grad.clone()
    norm = clip_grad_norm([table, matrix], max_norm)
    wanted = nn.utils.clip_grad_norm_(twins, max_norm)
    torch.testing.assert_close(norm, wanted)
    torch.testing.assert_close(table.grad.to_dense(), twins[0].grad)
    torch.testing.assert_close(matrix.grad, twins[1].grad)


def test_a_sum_of_row_gradients_is_clipped_as_a_sum() -> None:
    table = nn.Parameter(torch.zeros(4, 1))
    indices = torch.tensor([[1, 1]])
    table.grad = torch.sparse_coo_tensor(
        indices, torch.tensor([[3.0], [1.0]]), (4, 1), check_invariants=False
    )
    assert float(clip_grad_norm([table], 2.0)) == 4.0
    torch.testing.assert_close(table.grad.to_dense()[1], torch.tensor([2.0]))


def test_wrong_choices() -> None:
    parameter = nn.Parameter(torch.ones(1))
    with pytest.raises(SoftmaxBenchError, match="did you mean 'adagrad'"):
        make_optimizer("adagrade", [parameter], 0.1)
    with pytest.raises(SoftmaxBenchError, match="must be positive"):
        make_optimizer("sgd", [parameter], 0.0)
    with pytest.raises(SoftmaxBenchError, match="must be positive"):
        make_optimizer("sgd", [parameter], 0.1, layer_rate=-1.0)
    with pytest.raises(SoftmaxBenchError, match="option of adagrad, not of adam"):
        make_optimizer("adam", [parameter], 0.1, initial_accumulator_value=0.1)
    with pytest.raises(SoftmaxBenchError, match="must not be negative"):
        make_optimizer("adagrad", [parameter], 0.1, initial_accumulator_value=-0.1)
