"""What a reader of the results must know before believing them."""

from __future__ import annotations

from softmax_bench.records.frames import Results
from softmax_bench.report.tables.disturbed import disturbances, disturbed_sizes
from softmax_bench.report.tables.summary import KEY, best_trials, latest_speed, one_configuration

_WIDE = 0.05
"""Half an interval of a step time, relative, beyond which a reader is told."""


def warnings(results: Results) -> list[str]:
    """Reasons to doubt, a sentence each."""
    found = []
    for kind, frame in (("train", results.train), ("speed", results.speed)):
        found += one_configuration(frame, kind)[1]
    if not results.train.empty:
        if results.train["learning_rate"].nunique() == 1:
            found.append(
                "all layers were trained with one learning rate, which suits some better than "
                "others; with several (--learning-rates) each finds its own"
            )
        seeds = best_trials(results).groupby(KEY)["seed"].nunique().min()
        if seeds == 1:
            found.append(
                "one seed: a few per cent of perplexity may be chance; --set seeds=0,1,2 shows how "
                "much"
            )
        elif seeds == 2:
            found.append("two seeds: their intervals are wide, and may be wider than they look")
    found += _imprecise(results)
    found += _disturbances(results)
    found += [f"{row.title} failed: {row.reason}" for row in results.failures.itertuples()]
    found += _gaps(results)
    machines = results.environments[["processor", "cores", "accelerator"]].drop_duplicates()
    if len(machines) > 1:
        found.append(f"the records come from {len(machines)} different machines")
    commits = results.environments["git_commit"].dropna().unique()
    if len(commits) > 1:
        found.append(f"the records come from {len(commits)} versions of the code")
    return found


def _imprecise(results: Results) -> list[str]:
    """Step times of which the budget bought too few, a sentence a vocabulary size."""
    speed = latest_speed(results)
    if speed.empty:
        return []
    steps = speed[speed["phase"] == "step"]
    half = (steps["high"] - steps["low"]) / 2 / steps["seconds"]
    found = []
    for size, rows in steps[half > _WIDE].groupby("vocab_size"):
        known = ", ".join(
            f"{row.layer} to {half[place]:.0%} ({row.repetitions} repetitions)"
            for place, row in zip(rows.index, rows.itertuples(), strict=True)
        )
        found.append(f"step times at V = {size:,} are known only roughly, {known}: a larger "
                     "--time-budget makes them sharper")  # fmt: skip
    return found


def _gaps(results: Results) -> list[str]:
    """Layers that some vocabulary sizes lack, for which the others have a result."""
    found = []
    for what, frame in (("trained", best_trials(results)), ("timed", latest_speed(results))):
        if frame.empty:
            continue
        sizes = set(frame["vocab_size"])
        for layer, rows in frame.groupby("layer"):
            missing = sorted(sizes - set(rows["vocab_size"]))
            if missing:
                listed = ", ".join(f"{size:,}" for size in missing)
                found.append(f"{layer} was not {what} at V = {listed}, where others were")
    return found


def _disturbances(results: Results) -> list[str]:
    """What else the machine did meanwhile: two sentences a vocabulary size, at most."""
    found = [
        f"timing at V = {size:,} was disturbed: {', '.join(reasons)}"
        for size, reasons in disturbed_sizes(latest_speed(results)).items()
    ]
    best = best_trials(results)
    for size, reasons in disturbed_sizes(best).items():
        layers = best[best["vocab_size"] == size].groupby("layer")
        disturbed = [str(layer) for layer, trials in layers if disturbances(trials)]
        of = "" if len(disturbed) == layers.ngroups else f" of {', '.join(disturbed)}"
        found.append(
            f"training{of} at V = {size:,} was disturbed: {', '.join(reasons)}; its seconds (time "
            "to the target, perplexity in equal time) are not to be trusted"
        )
    return found
