"""``softmax-bench plan``."""

from __future__ import annotations

from softmax_bench.cli.output import make_console
from softmax_bench.cli.study_options import StudyRequest, read_texts, study_command


@study_command
def plan(request: StudyRequest) -> None:
    """Print a study's trials, which of them are finished, and the time and memory of the rest."""
    study = request.read()
    import torch

    from softmax_bench.measure import measure_machine
    from softmax_bench.records.store import read_store
    from softmax_bench.study.plan.estimate import Estimator
    from softmax_bench.study.plan.grid import plan_study, threads_of
    from softmax_bench.study.plan.plan_table import print_plan

    console = make_console()
    texts = read_texts(study, request.data_dir, console)
    contents = read_store(request.store)
    contents.refuse_later()
    steps = plan_study(study, texts)(contents.records, contents.failures)
    torch.set_num_threads(threads_of(study))
    estimator = Estimator(
        measure_machine(torch.device(study.device)), texts, steps, contents.records
    )
    print_plan(steps, estimator, study, console)
