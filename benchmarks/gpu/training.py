"""Perplexity as the vocabulary grows, against the true entropy of the synthetic language."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu.case import Case, Figures
from softmax_bench.corpora.synthetic import SyntheticLanguage
from softmax_bench.layers import create_layer
from softmax_bench.lm import LanguageModel, make_optimizer, train
from softmax_bench.lm.streams import make_streams
from softmax_bench.records.trial import CLIP_NORM

IN_A_GRAPH = ("full", "hierarchical", "sampled", "nce", "adaptive")
"""Trained once more with each step as a CUDA graph."""
SPECS = ("full", "hierarchical", "sampled", "nce", "adaptive", "two_level")
BATCH, WINDOW = 128, 35


def cases(device: torch.device, *, small: bool) -> Iterator[Case]:
    """Small vocabularies first; full softmax up to 10^5 classes only."""
    tokens, width = (2_000, 16) if small else (1_000_000, 512)
    for size in (100, 300) if small else (10**4, 10**5, 10**6):
        for spec in SPECS if size <= 10**5 else SPECS[1:]:
            for in_graph in (False, True) if spec in IN_A_GRAPH else (False,):
                yield Case(
                    f"{spec} V={size}" + " in a graph" * in_graph,
                    partial(_figures, spec, size, tokens, width, device, in_graph),
                )


def _figures(
    spec: str, size: int, tokens: int, width: int, device: torch.device, in_graph: bool
) -> Figures:
    torch.manual_seed(0)
    language = SyntheticLanguage(size)
    text = language.draw(tokens, np.random.default_rng(1)).astype(np.int64)
    held_out = language.draw(tokens // 10, np.random.default_rng(2)).astype(np.int64)
    counts = np.bincount(text, minlength=size)
    layer = create_layer(spec, width, size, counts, sparse=True)
    model = LanguageModel(layer, encoder="lstm", embedding_size=width).to(device)
    parameters = list(model.parameters())
    optimizer = make_optimizer("adagrad", parameters, 0.1)
    streams = [make_streams(x, BATCH, 0).to(device) for x in (text, held_out)]
    begin = time.perf_counter()
    history = train(
        model, optimizer, *streams,
        window=WINDOW, valid_window=WINDOW, max_tokens=tokens, clip_norm=CLIP_NORM, evaluations=1,
        cuda_graph=in_graph,
    )  # fmt: skip
    truth = -float(language.log_prob(held_out).mean())
    nats = history[-1].valid.nats
    return {
        "layer": spec + ", in a graph" * in_graph,
        "classes": size,
        "tokens": tokens,
        "perplexity": float(np.exp(nats)),
        "excess nats over the true entropy": nats - truth,
        "training seconds": history[-1].seconds,
        "seconds with evaluation": time.perf_counter() - begin,
    }
