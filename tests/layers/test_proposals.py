"""Proposals that follow the model: their claimed probabilities, and what they are good for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from torch.nn import functional as F

from softmax_bench.errors import SoftmaxBenchError
from softmax_bench.layers import create_layer
from softmax_bench.layers.batch.in_batch import InBatchSoftmax
from softmax_bench.layers.batch.partial_fc import PartialFC
from softmax_bench.layers.linear import LinearOutputLayer
from softmax_bench.layers.proposals.base import ProposalSoftmax, draw_columns, log_share
from softmax_bench.layers.proposals.midx import quantise
from softmax_bench.layers.proposals.rff import RandomFourierSoftmax
from softmax_bench.layers.proposals.tree import first_beyond

H = 6
ADAPTIVE = [
    "kernel",
    "kernel(dimensions=3)",
    "rff",
    "rff(nu=4.0, features=32)",
    "midx(codewords=4)",
]


def layer_of(spec: str, classes: int, spread: float = 3.0) -> ProposalSoftmax:
    torch.manual_seed(0)
    counts = torch.randint(0, 30, (classes,))
    layer = create_layer(spec, H, classes, counts, dtype=torch.float64)
    assert isinstance(layer, ProposalSoftmax)
    with torch.no_grad():
        layer.weight.mul_(spread)
    return layer


@pytest.mark.parametrize("spec", ADAPTIVE)
@pytest.mark.parametrize("classes", [1, 2, 5, 37])
def test_draws_follow_the_claimed_probabilities(spec: str, classes: int) -> None:
    layer = layer_of(spec, classes)
    layer.num_samples = 20_000
    hidden, target = torch.randn(2, H, dtype=torch.float64), torch.randint(classes, (2,))
    proposed = layer.propose(hidden, target)
    for classes_drawn, claimed, of_target, own in zip(*proposed, target, strict=True):
        frequency = classes_drawn.bincount(minlength=classes).double() / layer.num_samples
        q = torch.zeros(classes, dtype=torch.float64)
        q[own] = of_target.exp()
        q[classes_drawn] = claimed.exp()
        torch.testing.assert_close(q[own], of_target.exp())
        # The same class has the same probability in every draw of it.
        torch.testing.assert_close(q[classes_drawn], claimed.exp())
        assert float(q.sum()) <= 1 + 1e-9
        missed = 1 - float(q.sum())  # of classes that were never drawn
        assert missed < 0.01
        error = (q * (1 - q) / layer.num_samples).sqrt() + 1e-9
        assert float(((frequency - q) / error).abs().max()) < 5


@pytest.mark.parametrize("spec", ADAPTIVE)
@pytest.mark.parametrize("classes", [1, 2, 37, 3000])
def test_what_is_claimed_of_all_classes_adds_up_to_one(spec: str, classes: int) -> None:
    layer, hidden = layer_of(spec, classes), torch.randn(1, H, dtype=torch.float64)
    _, _, log_q = layer.propose(hidden.expand(classes, -1), torch.arange(classes))
    assert float(log_q.exp().sum()) == pytest.approx(1)


def test_random_features_make_no_class_almost_impossible() -> None:
    """Else its rare draws have enormous weights: an estimate without bias that never settles."""
    layer = layer_of("rff(nu=3.0, features=4)", 3000)
    assert isinstance(layer, RandomFourierSoftmax)
    hidden = torch.randn(1, H, dtype=torch.float64)
    _, _, log_q = layer.propose(hidden.expand(3000, -1), torch.arange(3000))
    least = prior_of(layer).log() - layer.nu * (layer.depth + 1)
    assert bool((log_q > least - 1e-9).all())


MILLION = 10**6


def prior_of(layer: ProposalSoftmax) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach().double().softmax(0)


def plain_kernel(layer: ProposalSoftmax, hidden: Tensor) -> Tensor:
    """``100 (h . (w - mean))^2 + 1`` times the prior: so few dimensions are not projected."""
    prior, rows = prior_of(layer), layer.weight.detach().double()
    mass: Tensor = prior * (100 * ((rows - prior @ rows) @ hidden).square() + 1)
    return mass / mass.sum()


def plain_rff(layer: ProposalSoftmax, hidden: Tensor) -> Tensor:
    """From the top of the tree to the classes, each node by the sum of its features."""
    assert isinstance(layer, RandomFourierSoftmax)
    prior, rows = prior_of(layer), layer.weight.detach().double()
    vectors = torch.cat([rows - prior @ rows, hidden.unsqueeze(0)])
    angles = F.normalize(vectors, dim=1) @ layer.get_buffer("_frequencies").double()
    features = torch.cat([angles.cos(), angles.sin()], 1) / math.sqrt(angles.shape[1])
    products = prior * (features[:-1] @ features[-1])
    size = layer.branch**layer.depth
    q = torch.ones(1, dtype=torch.float64)
    while size:  # nodes of so many classes
        length = -(-layer.num_classes // size) * size
        padded = [F.pad(x, (0, length - len(x))).view(-1, size).sum(1) for x in (products, prior)]
        masses = torch.maximum(padded[0], math.exp(-layer.nu) * padded[1])
        siblings = F.pad(masses, (0, -len(masses) % len(q))).view(len(q), -1)
        shares = siblings / siblings.sum(1, keepdim=True).clamp(min=1e-300)
        q = (q.unsqueeze(1) * shares).flatten()
        size //= layer.branch
    return q[: layer.num_classes]


def plain_midx(layer: ProposalSoftmax, hidden: Tensor) -> Tensor:
    """Softmax of the rows' nearest sums of two codewords."""
    first, nearest_first = quantise(layer.weight.detach(), 32)
    second, nearest_second = quantise(layer.weight.detach() - first[nearest_first], 32)
    assert layer.bias is not None
    rows = (first[nearest_first] + second[nearest_second]).double()
    return (rows @ hidden + layer.bias.double()).softmax(0)


@pytest.mark.parametrize(
    ("spec", "plain"),
    [("kernel", plain_kernel), ("rff(features=8)", plain_rff), ("midx", plain_midx)],
)
def test_draws_and_claims_at_a_million_classes(
    spec: str, plain: Callable[[ProposalSoftmax, Tensor], Tensor]
) -> None:
    """In float32, from the likeliest classes to the last hundredth of the mass."""
    torch.manual_seed(0)
    layer = create_layer(spec, H, MILLION, torch.randint(1, 1000, (MILLION,)).square())
    assert isinstance(layer, ProposalSoftmax)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(MILLION, 1).square() * 5)  # some rows stand out
    layer.num_samples = 500
    hidden = torch.randn(1, H)
    proposed = layer.propose(hidden.expand(40, -1), torch.arange(40))
    drawn, log_q = (x.flatten() for x in proposed[:2])
    q = plain(layer, hidden[0].double()).detach()
    torch.testing.assert_close(log_q.double(), q.log()[drawn], rtol=0, atol=2e-3)
    torch.testing.assert_close(proposed[2].double(), q.log()[:40], rtol=0, atol=2e-3)
    mass, order = q.sort(descending=True)
    edges = torch.searchsorted(mass.cumsum(0), torch.linspace(0, 1, 41).double()[1:-1])
    edges = torch.cat([edges, torch.searchsorted(mass.cumsum(0), torch.tensor([0.99]).double())])
    bin_of = torch.empty(MILLION, dtype=torch.int64)
    bin_of[order] = torch.bucketize(torch.arange(MILLION), edges.unique())
    expected = torch.zeros(len(edges) + 1, dtype=torch.float64).index_add_(0, bin_of, q)
    observed = bin_of[drawn].bincount(minlength=len(expected)).double()
    used = expected > 0
    assert chisquare(observed[used], expected[used] * len(drawn)).pvalue > 1e-3


def test_partial_fcs_sample_is_uniform_at_a_million_classes() -> None:
    layer = PartialFC(1, MILLION, num_samples=2000)
    target = torch.arange(1000)
    rows = torch.cat([layer.draw(target)[0] for _ in range(100)])
    others = rows[rows >= 1000]
    assert others.shape == (100 * 1000,)
    observed = others.bincount(minlength=MILLION)[1000:].view(37, 27_000).sum(1)
    assert chisquare(observed.double()).pvalue > 1e-3


def test_the_kernels_probabilities_are_its_formula() -> None:
    layer = layer_of("kernel(alpha=7.0, dimensions=3)", 23)
    hidden = torch.randn(1, H, dtype=torch.float64)
    drawn, log_q, _ = layer.propose(hidden, torch.tensor([0]))
    projection = layer.get_buffer("_projection")
    torch.testing.assert_close(projection.t() @ projection, torch.eye(3, dtype=torch.float64))
    rows, prior = layer.weight.detach(), prior_of(layer)
    near = (rows - prior @ rows) @ projection
    kernel = prior * (7.0 * (near @ (hidden @ projection)[0]).square() + 1)
    torch.testing.assert_close(log_q[0].exp(), (kernel / kernel.sum())[drawn[0]])


def test_midx_with_a_codeword_for_every_row_is_the_softmax_itself() -> None:
    layer = layer_of("midx(codewords=23)", 23)
    hidden, target = torch.randn(3, H, dtype=torch.float64), torch.tensor([0, 9, 22])
    drawn, log_q, log_q_target = layer.propose(hidden, target)
    torch.testing.assert_close(log_q, layer.log_prob(hidden).gather(1, drawn).detach())
    torch.testing.assert_close(log_q_target, layer.target_log_prob(hidden, target).detach())
    # Theorem 2.1 of Blanc & Rendle: from the softmax itself the loss is exact at any sample.
    torch.testing.assert_close(layer(hidden, target), -log_q_target.mean())


def test_proposals_near_the_softmax_need_fewer_draws_than_uniform_ones() -> None:
    """Variance of the gradient at equal draws, for rows that are spread."""
    variance = {}
    for spec in ("kernel(alpha=0.0)", "kernel", "midx(codewords=8)"):
        layer = layer_of(spec, 200, spread=6.0)
        hidden, target = torch.randn(1, H, dtype=torch.float64), torch.tensor([4])
        layer.num_samples = 16
        each = []
        for _ in range(150):
            layer.zero_grad()
            layer(hidden, target).backward()
            assert layer.weight.grad is not None
            each.append(layer.weight.grad.to_dense())
        variance[spec] = float(torch.stack(each).var(0).sum())
    uniform = variance.pop("kernel(alpha=0.0)")
    assert all(value < 0.7 * uniform for value in variance.values())


def test_a_snapshot_out_of_date_is_still_exact_about_itself() -> None:
    layer = layer_of("midx(codewords=23, refresh=50)", 23).eval()  # no step, no new snapshot
    hidden, target = torch.randn(2, H, dtype=torch.float64), torch.tensor([0, 9])
    before = layer.log_prob(hidden).detach()
    layer.propose(hidden, target)
    layer.get_buffer("_clock")[1] = 1
    with torch.no_grad():
        layer.weight.normal_()
    drawn, log_q, _ = layer.propose(hidden, target)
    torch.testing.assert_close(log_q, before.gather(1, drawn))


def test_a_snapshot_serves_for_a_tenth_of_the_steps_before_it() -> None:
    layer = layer_of("kernel(refresh=5)", 7)
    clock, taken = layer.get_buffer("_clock"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "_snapshot", lambda rows: taken.append(int(clock[0])))
        for _ in range(70):
            layer.propose(torch.zeros(1, H), torch.tensor([0]))
    assert taken[0] == 0
    assert all(next_ - step == min(5, 1 + step // 10) for step, next_ in pairwise(taken))
    assert taken[-1] > 64


def test_a_settled_layer_takes_its_next_snapshot_as_late_in_training() -> None:
    layer = layer_of("kernel(refresh=5)", 7)
    clock, taken = layer.get_buffer("_clock"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer, "_snapshot", lambda rows: taken.append(int(clock[0])))
        assert layer.settle() == 5
        for _ in range(6):
            layer.propose(torch.zeros(1, H), torch.tensor([0]))
    assert taken == [0, 5]


def test_blocks_of_masses_that_round() -> None:
    masses = torch.tensor([[1.0, 0.0, 1e-30, 0.0], [0.0, 0.0, 3.0, 0.0]])
    column, total = draw_columns(masses, 500)
    assert set(column[0].tolist()) == {0}
    assert set(column[1].tolist()) == {2}
    assert not log_share(masses, total, column).any()


@pytest.mark.parametrize("width", [1, 2, 3, 32, 98, 128])
def test_the_first_column_beyond_a_point_is_torchs(width: int) -> None:
    running = torch.rand(5, width, dtype=torch.float64).round(decimals=1).cumsum(1)
    row = torch.randint(5, (7, 40))
    point = torch.rand(7, 40, dtype=torch.float64) * running[row, -1]
    wanted = torch.searchsorted(running[row], point[..., None], right=True)[..., 0]
    assert torch.equal(first_beyond(running, row, point), wanted.clamp(max=width - 1))


def test_in_batch_negatives_need_the_correction() -> None:
    """With targets drawn from p and the correction, the gradient is nearly the likelihood's."""
    torch.manual_seed(0)
    classes, tokens = 12, 4000
    p = torch.linspace(1, 12, classes, dtype=torch.float64)
    hidden = torch.randn(1, H, dtype=torch.float64).expand(tokens, -1)
    target = torch.multinomial(p, tokens, replacement=True)
    distance = {}
    for correction in (True, False):
        spec = f"in_batch(correction={correction})"
        layer = create_layer(spec, H, classes, p * 1000, dtype=torch.float64)
        assert isinstance(layer, LinearOutputLayer)
        exact = F.cross_entropy(F.linear(hidden, layer.weight, layer.bias), target)
        (wanted,) = torch.autograd.grad(exact, layer.weight)
        layer(hidden, target).backward()
        assert layer.weight.grad is not None
        ours = layer.weight.grad.to_dense()
        distance[correction] = float((ours - wanted).norm())
    assert distance[True] < 0.2 * distance[False]


@pytest.mark.parametrize("noise", ["uniform", "unigram"])
def test_mixed_negatives_estimate_the_normaliser_without_bias(noise: str) -> None:
    """Over every other target and every draw, the weighted sum is that of all other classes."""
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    layer = create_layer(f"in_batch(num_samples=1, noise={noise!r})", H, 3, p * 100)
    assert isinstance(layer, InBatchSoftmax)
    q = torch.full_like(p, 1 / 3) if noise == "uniform" else p
    scores, mean = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64), 0.0
    for other, draw in itertools.product(range(3), repeat=2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(layer.noise, "sample", lambda n, device, draw=draw: torch.tensor([draw]))
            rows, offset, own_offset = layer._negatives(
                torch.tensor([1, other]), torch.ones(2, dtype=torch.bool)
            )
        assert not own_offset.any()
        terms = torch.exp(scores[rows] + offset).masked_fill(rows == 1, 0.0)
        mean += float(p[other] * q[draw] * terms.sum())
    assert mean == pytest.approx(float(scores.exp()[[0, 2]].sum()))


def test_partial_fc_with_all_classes_is_full_softmax() -> None:
    hidden, target = torch.randn(5, H, dtype=torch.float64), torch.randint(30, (5,))
    layer = create_layer("partial_fc(num_samples=30)", H, 30, dtype=torch.float64)
    assert isinstance(layer, PartialFC)
    loss = layer(hidden, target)
    exact = F.cross_entropy(F.linear(hidden, layer.weight, layer.bias), target)
    torch.testing.assert_close(loss, exact)
    (wanted,) = torch.autograd.grad(exact, layer.weight)
    loss.backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad.to_dense(), wanted)


@pytest.mark.parametrize("samples", [8, 60])  # by rejection, and from a list of all that are free
def test_partial_fc_draws_other_classes_uniformly_without_replacement(samples: int) -> None:
    torch.manual_seed(0)
    layer = PartialFC(H, 100, num_samples=samples)
    target = torch.tensor([3, 3, 50, 99])
    draws = 3000
    count = torch.zeros(100)
    for _ in range(draws):
        rows, _ = layer.draw(target)
        assert rows.shape == (samples,)
        assert bool((rows.diff() > 0).all())
        count[rows] += 1
    positive = torch.tensor([3, 50, 99])
    assert bool((count[positive] == draws).all())
    others = torch.ones(100, dtype=torch.bool)
    others[positive] = False
    share = (samples - 3) / 97
    z = (count[others] / draws - share) / math.sqrt(share * (1 - share) / draws)
    assert float(z.abs().max()) < 4.5


def test_more_targets_than_samples_are_all_kept() -> None:
    layer = PartialFC(H, 100, num_samples=2)
    assert layer.draw(torch.tensor([7, 5, 9, 5]))[0].tolist() == [5, 7, 9]


@pytest.mark.parametrize(
    "spec",
    [
        "kernel(alpha=-1.0)",
        "kernel(num_samples=0)",
        "rff(nu=0.0)",
        "midx(codewords=0)",
        "midx(refresh=0)",
        "partial_fc(num_samples=0)",
    ],
)
def test_options_that_cannot_be(spec: str) -> None:
    with pytest.raises(SoftmaxBenchError, match=r"must be|at least"):
        create_layer(spec, H, 10)
