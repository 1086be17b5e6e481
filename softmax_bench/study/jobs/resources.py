"""The resources that a job needs on another machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from softmax_bench.corpora.subwords import split_suffix
from softmax_bench.records.trial import FidelityTrial, NgramTrial
from softmax_bench.study.jobs.job import Job, needs_quiet, trials_of


@dataclass(frozen=True)
class Resources:
    """The resources that a job needs."""

    threads: int
    gpus: int
    bytes: int | None
    """None if the study sets no limit."""
    whole_node: bool
    """Whether nothing else may run there, because the job measures times."""


def resources_of(job: Job) -> Resources:
    """The resources to request for a job."""
    first = trials_of(job)[0]
    trial = first.model if isinstance(first, FidelityTrial) else first
    threads, device = (1, "cpu") if isinstance(trial, NgramTrial) else (trial.threads, trial.device)
    return Resources(
        threads=threads,
        gpus=int(device.startswith("cuda")),
        bytes=job.limits.bytes,
        whole_node=needs_quiet(job),
    )


def with_absolute_paths(job: Job) -> Job:
    """The same job with absolute paths, so that it can run from any folder."""
    text = job.text
    if text is None:
        return job
    data_dir = text.data_dir or os.environ.get("SOFTMAX_BENCH_DATA")
    source, _ = split_suffix(text.spec)
    is_path = source != "synthetic" and Path(source).exists()
    absolute = msgspec.structs.replace(
        text,
        spec=str(Path(text.spec).absolute()) if is_path else text.spec,
        data_dir=None if not data_dir else str(Path(data_dir).absolute()),
    )
    return msgspec.structs.replace(job, text=absolute)
