"""Output layers too large for one device, and training by several processes.

* :class:`ParallelFullSoftmax`, :class:`ParallelSampledSoftmax`, :class:`ParallelNCE`: the classes
  are sharded over processes, with the losses and gradients of a single process.
* :class:`DataParallel`: replicas of a whole model, with support for row-sparse gradients;
  :func:`clip_grad_norm` clips both.
* :func:`joined_processes`: the process group around them.

``torchrun --nproc-per-node 2 -m softmax_bench.parallel`` trains with both; docs/parallel.md plans
sizes beyond.
"""

from softmax_bench.parallel.create import create_parallel_layer
from softmax_bench.parallel.full import ParallelFullSoftmax
from softmax_bench.parallel.layer import ParallelOptions, ParallelOutputLayer
from softmax_bench.parallel.nce import ParallelNCE
from softmax_bench.parallel.processes import joined_processes
from softmax_bench.parallel.sampled import ParallelSampledSoftmax
from softmax_bench.parallel.training.clip import clip_grad_norm
from softmax_bench.parallel.training.data import DataParallel

__all__ = [
    "DataParallel",
    "ParallelFullSoftmax",
    "ParallelNCE",
    "ParallelOptions",
    "ParallelOutputLayer",
    "ParallelSampledSoftmax",
    "clip_grad_norm",
    "create_parallel_layer",
    "joined_processes",
]
