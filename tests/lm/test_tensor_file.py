from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.lm.tensor_file import read_tensors, write_tensors

TENSORS = st.sampled_from(
    [
        torch.tensor(1.5, dtype=torch.float64),
        torch.zeros(0, 3),
        torch.arange(6).view(2, 3).t(),
        torch.arange(10.0)[3:7],
        torch.tensor([True, False]),
        torch.ones(3, dtype=torch.bfloat16),
    ]
)
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | TENSORS
)
KEYS = st.text() | st.integers()


def nested(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(of, max_size=4)
        | st.lists(of, max_size=4).map(tuple)
        | st.dictionaries(KEYS, of, max_size=4)
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@given(st.recursive(LEAVES, nested, max_leaves=12))
def test_round_trip(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "file"
        write_tensors(path, {"a": "b"}, content)
        assert same(read_tensors(path, {"a": "b"}), content)


def test_what_is_no_number(tmp_path: Path) -> None:
    write_tensors(tmp_path / "file", {}, [math.nan, -math.inf])
    nan, infinite = read_tensors(tmp_path / "file", {})
    assert math.isnan(nan)
    assert infinite == -math.inf
