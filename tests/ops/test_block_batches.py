"""Blocks in batches: each block once, each token in a slot of its own among those of its block."""

from __future__ import annotations

import random

import torch
from hypothesis import given
from hypothesis import strategies as st

from softmax_bench.ops.cpu import block_batches
from softmax_bench.ops.cpu.block_batches import in_batches, slots

counts_of_blocks = st.lists(st.integers(1, 50), max_size=30)


@given(counts_of_blocks, st.sampled_from([1, 50, 10_000]), st.sampled_from([1, 100]))
def test_batches_hold_every_block_once_and_little_else(
    counts: list[int], size: int, width: int
) -> None:
    batches = in_batches(counts, size, width)
    assert [b.first + i for b in batches for i in range(b.blocks)] == list(range(len(counts)))
    for batch in batches:
        own = counts[batch.first : batch.first + batch.blocks]
        assert batch.tokens == max(own)
        if batch.blocks > 1:
            assert batch.blocks * size * width <= block_batches._IN_CACHE
            assert (batch.slots - sum(own)) * size * width <= block_batches._EMPTY


@given(counts_of_blocks, st.randoms(use_true_random=False))
def test_every_token_has_a_slot_among_those_of_its_block(
    counts: list[int], shuffling: random.Random
) -> None:
    tokens = [block for block, count in enumerate(counts) for _ in range(count)]
    shuffling.shuffle(tokens)
    place = torch.tensor(tokens, dtype=torch.int64)
    batches = in_batches(counts, 100, 300)
    source, sink = slots(place.argsort(), torch.tensor(counts, dtype=torch.int64), batches)
    of_slot = [
        batch.first + block
        for batch in batches
        for block in range(batch.blocks)
        for _ in range(batch.tokens)
    ]
    assert place[source].tolist() == of_slot
    used = sink < len(tokens)
    assert sorted(sink[used].tolist()) == list(range(len(tokens)))
    assert torch.equal(sink[used], source[used])
