"""Top-10 by an index against top-10 by all scores: ``python -m benchmarks.screening``.

It uses the rows and hidden states of a model trained for a minute on the synthetic language,
because random rows have no neighbourhoods to find.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from softmax_bench.corpora import load_corpus
from softmax_bench.layers import create_layer
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.screening import Screen
from softmax_bench.lm import LanguageModel, make_optimizer, make_streams, train
from softmax_bench.measure import interleave
from softmax_bench.records.trial import CLIP_NORM

H, TOKENS, K = 128, 512, 10


def main() -> None:
    """Train, index, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screening", description=__doc__)
    parser.add_argument("--vocab-size", type=int, default=100_000)
    parser.add_argument("--train-tokens", type=int, default=300_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="budget of one comparison")
    options = parser.parse_args()
    layer, hidden = _trained(options.vocab_size, options.train_tokens)
    print("| probes | recall of the best 10 | ms by index | ms by all scores | faster |")
    print("| --- | --- | --- | --- | --- |")
    for probes in (1, 4, 16, 64):
        screen = Screen(layer, probes=probes)
        runs = {"index": _timed(screen.topk, hidden), "all": _timed(layer.topk, hidden)}
        timed = interleave(runs, budget_seconds=options.seconds)
        index, everything = (1e3 * timed[name]["step"].median for name in ("index", "all"))
        print(
            f"| {probes} | {screen.recall(hidden, K):.3f} | {index:.2f} | {everything:.1f} "
            f"| {everything / index:.1f} x |"
        )


def _trained(vocab_size: int, tokens: int) -> tuple[LinearOutputLayer, Tensor]:
    torch.manual_seed(0)
    corpus = load_corpus("synthetic", vocab_size=vocab_size, seed=0)
    layer = create_layer("sampled", H, vocab_size, corpus.class_counts, sparse=True)
    assert isinstance(layer, LinearOutputLayer)
    model = LanguageModel(layer, embedding_size=H)
    text = make_streams(corpus.train, 20, corpus.eos_id)
    valid = make_streams(corpus.valid[:2000], 20, corpus.eos_id)
    optimizer = make_optimizer("adagrad", model.parameters(), 0.1)
    history = train(
        model, optimizer, text, valid,
        window=20, valid_window=20, max_tokens=tokens, clip_norm=CLIP_NORM, evaluations=1,
    )  # fmt: skip
    print(f"V={vocab_size:,}, H={H}: perplexity {history[-1].valid.perplexity:.0f}\n")
    with torch.no_grad():
        inputs, _ = next(valid.windows(valid.length))
        hidden, _ = model.hidden(inputs)
    return layer, hidden.flatten(0, 1)[:TOKENS]


def _timed(topk: Callable[[Tensor, int], object], hidden: Tensor) -> Callable[[], dict[str, float]]:
    def once() -> dict[str, float]:
        begin = time.perf_counter()
        topk(hidden, K)
        return {"step": time.perf_counter() - begin}

    return once


if __name__ == "__main__":
    main()
