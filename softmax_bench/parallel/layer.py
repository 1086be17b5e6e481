"""Output layers whose rows are sharded over processes: parameters, inference, state dict."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Literal, Unpack, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import CommonOptions
from softmax_bench.layers.gumbel import draw
from softmax_bench.layers.linear import SCORES_AT_ONCE, LinearOutputLayer
from softmax_bench.ops import Terms, TokenSums, accumulator
from softmax_bench.parallel.cost import Sent, Step
from softmax_bench.parallel.exchange import (
    all_reduce_max,
    broadcast_from_first,
    gathered,
    own_part,
    padded,
    shared,
    side_by_side,
    total,
)
from softmax_bench.parallel.vocabulary import ShardedClasses

Tokens = Literal["shared", "divided"]


class ParallelOptions(CommonOptions, total=False):
    """Constructor arguments of every parallel layer, besides its sizes and its own options."""

    mesh: DeviceMesh | None
    tokens: Tokens


class ParallelOutputLayer(LinearOutputLayer):
    """Scores ``h . w_j + b_j``, each computed by the process that has class j.

    Every method is a collective, which all processes must call alike. Loss, gradients and
    distribution are those of a single process with all rows. ``weight`` (V / P, H) and ``bias``
    (V / P,) are this process's rows; they are plain tensors with a plain optimiser, because
    ``DTensor`` has no row-sparse gradients. The state dict contains the same rows;
    :meth:`whole_state` and :meth:`load_whole_state` convert it to and from that of the
    single-process layer.

    Args:
        mesh: The processes, in one dimension (default: all of the default group).
        tokens: With ``"shared"``, all processes pass the same hidden states and targets and get the
            same results (tensor parallelism). With ``"divided"``, each passes any number of its own
            and gets their results, with the loss over all (for data-parallel encoders). The
            gradients of hidden states are complete in both cases.
        **common: As for every output layer; ``class_counts`` are those of all classes. The device
            must be that of the mesh.

    Raises:
        SoftmaxBenchError: No processes have been started, or an option is invalid.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        mesh: DeviceMesh | None = None,
        tokens: Tokens = "shared",
        **common: Unpack[CommonOptions],
    ) -> None:
        if tokens not in get_args(Tokens):
            raise SoftmaxBenchError(f"tokens must be 'shared' or 'divided', not {tokens!r}")
        mesh = all_processes(common.get("device")) if mesh is None else mesh
        self.vocabulary = ShardedClasses(num_classes, mesh)
        self.tokens: Tokens = tokens
        common["device"] = mesh.device_type
        super().__init__(in_features, num_classes, **common)

    def _num_rows(self) -> int:
        return self.vocabulary.num_rows

    @property
    def mesh(self) -> DeviceMesh:
        """The processes that the classes are sharded over."""
        return self.vocabulary.mesh

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """As in the single-process layer, with rows from a separate generator on each process."""
        device = self.weight.device
        seed = broadcast_from_first(torch.randint(2**62, (), device=device), self.mesh)
        generator = torch.Generator(device).manual_seed(int(seed) + self.vocabulary.rank)
        bound = 1 / math.sqrt(self.in_features)
        self.weight.uniform_(-bound, bound, generator=generator)
        if self.bias is not None:
            self.bias.copy_(self.vocabulary.shard(self._initial_bias()))

    def divided_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of which every process has its own rows; the others are the same on all."""
        yield from (p for p in (self.weight, self.bias) if p is not None)

    @torch.no_grad()
    def whole_state(self) -> dict[str, Tensor]:
        """The state dict of the single-process layer, on every process and in its memory."""
        return {
            name: self.vocabulary.collect(value) if name in ("weight", "bias") else value
            for name, value in self.state_dict().items()
        }

    def load_whole_state(self, state: Mapping[str, Tensor]) -> None:
        """Take this process's rows from the state dict of the single-process layer.

        Raises:
            SoftmaxBenchError: It has another number of classes.
        """
        for name in ("weight", "bias"):
            if name in state and len(state[name]) != self.num_classes:
                raise SoftmaxBenchError(
                    f"{name!r} has {len(state[name])} rows, and the layer {self.num_classes} "
                    "classes: the state must be that of a single-process layer"
                )
        self.load_state_dict(
            {
                name: self.vocabulary.shard(value) if name in ("weight", "bias") else value
                for name, value in state.items()
            }
        )

    @abstractmethod
    def traffic(self, num_tokens: int) -> Sent:
        """What each process sends in a training step on ``num_tokens`` targets in all."""

    # Tokens

    def _spread(self, hidden: Tensor, *of_tokens: Tensor) -> tuple[Tensor, ...]:
        """Hidden states of all processes, and what belongs to each of them."""
        if self.tokens == "shared":
            return shared(hidden, self.mesh), *of_tokens
        length = all_reduce_max(hidden.shape[0], self.mesh)
        return (
            gathered(padded(hidden, length), self.mesh),
            *(side_by_side(padded(other, length), 0, self.mesh) for other in of_tokens),
        )

    def _own(self, of_all: Tensor, num_tokens: int) -> Tensor:
        """The part that belongs to this process's tokens."""
        if self.tokens == "shared":
            return of_all
        return own_part(of_all, self.mesh)[:num_tokens]

    def _num_targets(self, kept: Tensor) -> Tensor:
        number = kept.sum()
        if self.tokens == "divided":
            dist.all_reduce(number, group=self.mesh.get_group())
        return number

    def _sum(self, losses: Tensor) -> Tensor:
        own = losses.sum()
        if self.tokens == "shared":
            return own
        of_all = own.detach().clone()
        dist.all_reduce(of_all, group=self.mesh.get_group())
        return own + (of_all - own.detach())

    # Sums over all classes

    def _score_sums(self, hidden: Tensor, target: Tensor, terms: Terms) -> TokenSums:
        of_all, targets = self._spread(hidden, target)
        here, rows = self.vocabulary.located(targets)
        if terms.class_weight is not None:
            terms = terms._replace(class_weight=self.vocabulary.shard(terms.class_weight))
        sums = super()._score_sums(of_all, rows, terms)
        largest = sums.log_z.detach().clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX, self.mesh.get_group())
        share = (sums.log_z - largest).exp()  # of this process's classes in Z, but for a factor
        parts = {"log_z": share, "target_score": torch.where(here, sums.target_score, 0.0)}
        if sums.mean_score is not None:
            parts["mean_score"] = sums.mean_score * (self.vocabulary.num_rows / self.num_classes)
        if sums.expected_score is not None:
            parts["expected_score"] = share * sums.expected_score
        joined = dict(zip(parts, total(torch.stack([*parts.values()]), self.mesh), strict=True))
        if sums.expected_score is not None:
            joined["expected_score"] = joined["expected_score"] / joined["log_z"]
        joined["log_z"] = largest + joined["log_z"].log()
        own = self._own(torch.stack([*joined.values()], 1), hidden.shape[0]).unbind(1)
        best = sums.best
        if best is not None:
            best = self._own(self._best(of_all, best), hidden.shape[0])
        return TokenSums(**dict(zip(joined, own, strict=True)), best=best)

    @torch.no_grad()
    def _best(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """The class with the highest score, given the best row of each process."""
        scores = super()._target_scores(hidden.to(self.weight.dtype), rows)
        columns = scores.unsqueeze(1), self.vocabulary.classes(rows).unsqueeze(1)
        of_processes, classes = (side_by_side(of, 1, self.mesh) for of in columns)
        return classes.gather(1, of_processes.argmax(1, keepdim=True)).squeeze(1)

    def _normalizer(self, hidden: Tensor) -> Tensor:
        nothing = hidden.new_zeros(hidden.shape[0]).long()
        return self._score_sums(hidden, nothing, Terms()).log_z

    # Inference

    def _log_prob(self, hidden: Tensor) -> Tensor:
        (of_all,) = self._spread(hidden)
        scores = self._scores(of_all)
        missing = self.vocabulary.max_rows - self.vocabulary.num_rows
        columns = F.pad(scores, (0, missing)).unsqueeze(2)
        everything = side_by_side(columns, 2, self.mesh).flatten(1)[:, : self.num_classes]
        return self._own(everything.log_softmax(1), hidden.shape[0])

    def _topk(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        (of_all,) = self._spread(hidden)
        here = min(k, self.vocabulary.num_rows)
        best = [scores.topk(here) for scores in self._scores_by_chunks(of_all)]
        values = F.pad(torch.cat([scores for scores, _ in best]), (0, k - here), value=-math.inf)
        classes = self.vocabulary.classes(torch.cat([rows for _, rows in best]))
        candidates = side_by_side(F.pad(classes, (0, k - here)), 1, self.mesh)
        values, place = side_by_side(values, 1, self.mesh).topk(k)
        number = hidden.shape[0]
        values = self._own(values, number) - self._normalizer(hidden).unsqueeze(1)
        return values, self._own(candidates.gather(1, place), number)

    def _sample(self, hidden: Tensor) -> Tensor:
        """Draw a process in proportion to its share of Z, then one of its classes."""
        # The processes' generators need not agree: the first one's chooses a process, and only that
        # process draws the class.
        (of_all,) = self._spread(hidden)
        # Equally wide on all, so that equal generators stay equal, or dropout would differ.
        missing = self.vocabulary.max_rows - self.vocabulary.num_rows
        parts = []
        for scores in self._scores_by_chunks(of_all):
            wide = F.pad(scores.float(), (0, missing), value=-math.inf)
            parts.append((draw(wide), wide.logsumexp(1)))
        drawn, log_z = (torch.cat(part) for part in zip(*parts, strict=True))
        chosen = broadcast_from_first(
            draw(side_by_side(log_z.unsqueeze(1), 1, self.mesh)), self.mesh
        )
        classes = self.vocabulary.classes(drawn) * (chosen == self.vocabulary.rank)
        dist.all_reduce(classes, group=self.mesh.get_group())
        return self._own(classes, hidden.shape[0])

    def _scores_by_chunks(self, hidden: Tensor) -> Iterator[Tensor]:
        for some in hidden.split(max(1, SCORES_AT_ONCE // self.vocabulary.max_rows)):
            yield self._scores(some)

    @torch.no_grad()
    def _target_scores(self, hidden: Tensor, target: Tensor) -> Tensor:
        """The score of one class per token, without gradients."""
        of_all, targets = self._spread(hidden, target)
        positions, rows = self.vocabulary.owned(targets)
        own = torch.linalg.vecdot(of_all[positions], self.weight[rows])
        if self.bias is not None:
            own = own + self.bias[rows]
        scores = own.new_zeros(targets.shape).index_copy_(0, positions, own)
        dist.all_reduce(scores, group=self.mesh.get_group())
        return self._own(scores, hidden.shape[0])

    def flops(self, num_tokens: int) -> float:
        """Operations of one process."""
        return self.cost(num_tokens).flops

    def _step(self, num_tokens: int) -> Step:
        """A training step of this layer, for the cost model."""
        return Step(
            tokens=num_tokens,
            rows=self.vocabulary.num_rows,
            width=self.in_features,
            processes=self.vocabulary.size,
            divided=self.tokens == "divided",
            bias=self.bias is not None,
            number_bytes=self.weight.element_size(),
            sum_bytes=accumulator(self.weight.dtype).itemsize,
        )


def all_processes(device: torch.device | str | None) -> DeviceMesh:
    """A mesh of all processes.

    Raises:
        SoftmaxBenchError: There is no default process group.
    """
    if not dist.is_initialized():
        raise SoftmaxBenchError(
            "the processes must be joined first, with "
            "softmax_bench.parallel.joined_processes() in a program started by torchrun"
        )
    kind = torch.device("cpu" if device is None else device).type
    return init_device_mesh(kind, (dist.get_world_size(),))
