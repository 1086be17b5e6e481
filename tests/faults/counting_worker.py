"""A worker without torch that notes each trial it runs: ``python -m tests.faults.counting_worker``.

It takes some time, at random, so that studies on one store meet in every possible way.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

import msgspec

from softmax_bench.records.store import write_record
from softmax_bench.records.trial import trial_id
from softmax_bench.study.jobs.job import Job, TrainJob
from tests.records import train_record

RAN = "ran"
"""Name of the file in the store with one line for each trial that was run."""


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    assert isinstance(job, TrainJob)
    store, identity = Path(sys.argv[1]), trial_id(job.trial)
    with (store / RAN).open("ab", buffering=0) as file:
        file.write(f"{identity}\n".encode())
    time.sleep(random.Random(os.getpid()).random() ** 4)
    record = train_record("full", 50, 100.0)
    write_record(store, msgspec.structs.replace(record, id=identity, trial=job.trial))


if __name__ == "__main__":
    main()
