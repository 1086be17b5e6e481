"""Learning curves as TensorBoard events, while training runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.study.jobs.job import Evaluated, Event, job_id
from softmax_bench.study.plan.plan import Step
from softmax_bench.study.run.watcher import Watcher

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard(Watcher):
    """Writes each model's curves to ``FOLDER/<identity>``, with its title as text.

    Args:
        folder: The folder to pass to ``tensorboard --logdir``.

    Raises:
        SoftmaxBenchError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise SoftmaxBenchError(
                f"--tensorboard needs the package tensorboard ({error}): pip install "
                "'softmax-bench[tensorboard]'"
            ) from error
        self._folder = folder

    def reported(self, step: Step, event: Event) -> None:
        """Add a point to the curves of an evaluated model."""
        if isinstance(event, Evaluated):
            with self._writer(step) as writer:
                writer.add_scalar("train loss", event.train_loss, event.tokens)
                writer.add_scalar("valid perplexity", event.valid_perplexity, event.tokens)

    def started(self, step: Step) -> None:
        """Add the title of the model."""
        with self._writer(step) as writer:
            writer.add_text("model", step.title)

    def _writer(self, step: Step) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder / job_id(step.job)))
