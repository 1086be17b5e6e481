"""How the results were measured, in sentences that apply to these results."""

from __future__ import annotations

import pandas as pd

from softmax_bench.records.frames import Results
from softmax_bench.report.tables.fidelity import latest_fidelity
from softmax_bench.report.tables.selection import best_trials, latest_speed
from softmax_bench.report.tables.tuning import tuning_table


def method(results: Results) -> list[str]:
    """Sentences on training, evaluation, timing, memory and fidelity, where there are results."""
    return [*_training(results), *_timing(results), *_fidelity(results)]


def _training(results: Results) -> list[str]:
    best = best_trials(results)
    if best.empty:
        return []
    first = best.iloc[0]
    seeds = best.groupby(["vocab_size", "layer"])["seed"].nunique()
    sentences = [
        f"One language model ({first['encoder']}, hidden size {first['hidden_size']}) was trained "
        f"with each layer on the same {first['train_tokens']:,} tokens in the same order, "
        + _several(seeds, "seed")
        + ".",
        "Perplexity is exact and normalised over all classes for every layer, however it was "
        f"trained, on all {first['test_tokens']:,} tokens of the test text.",
    ]
    part = best["curve_tokens"].dropna().astype(int)
    if not part.empty:
        sentences.append(
            f"Learning curves are evaluated on {_several(part, 'token')} spread over the "
            "validation text."
        )
    tuned = tuning_table(results)
    if not tuned.empty:
        sentences.append(
            "Each layer has its own learning rate: the best of "
            f"{_several(tuned['trials'], 'trial')} by validation perplexity after "
            f"{tuned['tokens'].max():,} tokens each. Lower and higher rates did worse for "
            f"{tuned['bracketed'].sum()} of {len(tuned)}."
        )
    if (best["train_seconds"] != best["clock_seconds"]).any():
        sentences.append(
            "Training time is the number of tokens times the time per token of a step, with "
            "encoder and layer timed alone; evaluation is not counted."
        )
    if seeds.max() > 1:
        sentences.append("Intervals of perplexity are 95 % Student intervals over the seeds.")
    return sentences


def _timing(results: Results) -> list[str]:
    speed = latest_speed(results)
    if speed.empty:
        return []
    steps = speed[speed["phase"] == "step"]
    first = steps.iloc[0]
    clipping = ", clipping" if pd.notna(first["clip_norm"]) else ""  # absent in older records
    sentences = [
        f"A step consists of sampling, forward, backward{clipping} and the optimiser "
        f"({first['optimizer']}) on {first['num_tokens']:,} random hidden states of size "
        f"{first['hidden_size']}, in {first['dtype']}, on {first['threads']} "
        f"thread{'s' if first['threads'] > 1 else ''}; targets follow Zipf's law.",
        "The layers of one V were timed in alternation, step by step, so that disturbances affect "
        "all of them. A time is the median of "
        + _several(steps["repetitions"], "repetition")
        + ", and its interval is a 95 % bootstrap interval of the median.",
        "Memory is the peak held by tensors, as counted by the allocator.",
    ]
    if pd.notna(first["encoder"]):
        sentences.append(
            f"As in training, each step follows one of an encoder ({first['encoder']}), whose time "
            "is not included."
        )
    if "machine_flops" in steps and steps["machine_flops"].notna().any():
        flops, width = steps["machine_flops"].median(), steps["machine_bytes"].median()
        sentences.append(
            f"Just before, a large matrix product ran at {flops / 1e9:,.0f} GFLOP/s and a large "
            f"copy moved {width / 1e9:,.0f} GB/s; these rates define what is possible."
        )
    return sentences


def _fidelity(results: Results) -> list[str]:
    _, divergences = latest_fidelity(results)
    if divergences.empty:
        return []
    first = divergences.iloc[0]
    return [
        f"Fidelity is measured on a full model of {first['corpus']}: {first['num_draws']} draws "
        f"of a layer's gradient at {first['num_states']:,} of its hidden states are compared with "
        "the exact gradient, and what a layer learns from its hidden states is compared with the "
        f"model itself, on {first['tokens']:,} tokens of the test text."
    ]


def _several(counts: pd.Series, what: str) -> str:
    low, high = int(counts.min()), int(counts.max())
    if low == high:
        return f"{low:,} {what}{'s' if low > 1 else ''}"
    return f"{low:,} to {high:,} {what}s"
