"""Every layer under torch's own DistributedDataParallel, optimiser and clipping."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from softmax_bench.layers import create_layer, layer_names
from tests.parallel.processes import check


@check
def every_layer_trains_under_torchs_data_parallel() -> None:
    for spec in layer_names():
        torch.manual_seed(0)
        layer = create_layer(spec, 6, 50, torch.arange(50))
        # torch's adaptive softmax gives a tail without a target no gradient.
        unused = spec == "torch_adaptive"
        copies = DistributedDataParallel(layer, find_unused_parameters=unused)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.05)
        torch.manual_seed(dist.get_rank())
        hidden, target = torch.randn(9, 6), torch.randint(50, (9,))
        before = layer.target_log_prob(hidden, target).mean()
        for _ in range(30):
            optimizer.zero_grad()
            copies(hidden, target).backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 1.0)
            optimizer.step()
        assert layer.target_log_prob(hidden, target).mean() > before, spec
        for name, parameter in layer.named_parameters():
            other = parameter.detach().clone()
            dist.broadcast(other, src=0)
            assert torch.equal(other, parameter), (spec, name)
