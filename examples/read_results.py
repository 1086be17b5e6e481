"""Stored results as pandas frames: ``python examples/read_results.py results/claims/ptb``.

Prints the best test perplexity of each layer, the learning rates tried for it, and the time of each
phase of its step.
"""

from __future__ import annotations

import argparse

from softmax_bench import load_results
from softmax_bench.errors import brief_errors


def main() -> None:
    """Read a folder of results and print three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", help="a folder that softmax-bench has written")
    results = load_results(parser.parse_args().results)
    if results.train.empty and results.speed.empty:
        print("These results contain neither trained models nor times of steps.")

    if not results.train.empty:  # one row per trained model
        full = results.train[results.train["max_tokens"] == results.train["max_tokens"].max()]
        best = full.loc[full.groupby("layer")["valid_perplexity"].idxmin()]
        print(best[["layer", "learning_rate", "test_perplexity", "train_seconds"]].to_string())
        rates = results.train.pivot_table("valid_perplexity", "layer", "learning_rate", "min")
        print(f"\nvalidation perplexity by learning rate\n{rates.round(1).to_string()}")

    if not results.speed.empty:  # one row per timed phase
        milliseconds = results.speed.assign(ms=1e3 * results.speed["seconds"])
        table = milliseconds.pivot_table("ms", ["vocab_size", "layer"], "phase")
        print(f"\nmilliseconds\n{table.round(2).to_string()}")


if __name__ == "__main__":
    with brief_errors("read_results.py"):
        main()
