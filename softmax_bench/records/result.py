"""What came of a trial. Units are in the names: ``seconds``, ``bytes``, ``nats``. No torch here."""

from __future__ import annotations

import msgspec

MOST_FOREIGN = 0.05
MOST_STOLEN = 0.02
"""Shares of the processor, above which a measurement was disturbed."""


class FrequencyBand(msgspec.Struct, frozen=True, kw_only=True):
    """Quality on the words of similar frequency."""

    low: int
    """Fewest occurrences in the training text."""
    high: int | None
    """Most; None for no bound."""
    tokens: int
    nats: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Exact, normalised quality on one split."""

    tokens: int
    """Predicted tokens, ``<eos>`` and ``<unk>`` included."""
    unknown_tokens: int | None = None
    """None of a part of a text."""
    nats: float
    """Mean negative log-probability of a token."""
    perplexity: float
    unnormalized_perplexity: float | None = None
    """Perplexity if scores are taken as normalised, for layers trained to be so (NCE)."""
    log_z_mean: float | None = None
    log_z_sd: float | None = None
    true_perplexity: float | None = None
    """Perplexity of the source itself, known for the synthetic language."""
    adjusted_perplexity: float | None = None
    """The same with ``<unk>`` charged for the types it stands for: comparable across V."""
    bits_per_byte: float | None = None
    """Of the text, ``<unk>`` charged likewise: comparable across words and subwords too."""
    top1: float | None = None
    """Share of examples whose class is the most probable; known where hidden states are given."""
    top10: float | None = None
    """Recall at 10: the share of those whose class is among the ten most probable."""
    ndcg10: float | None = None
    """Normalised discounted cumulative gain at 10: ``1 / log2(1 + rank)`` of the class where it is
    among the ten most probable, else 0, as a mean."""
    bands: list[FrequencyBand] | None = None
    block_nats: list[float] | None = None
    """Sums over equal stretches of the text: two models are compared stretch by stretch."""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of training at one evaluation."""

    tokens: int
    seconds: float
    """Training time alone: evaluation is not counted."""
    train_loss: float
    """Mean training objective since the last point; not comparable between layers."""
    valid_perplexity: float


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """What else the machine did meanwhile, as shares of the processor's time over all cores."""

    foreign: float
    """Spent on other processes."""
    stolen: float
    """Withheld from a virtual machine by its host."""
    clock_change: float
    """How far the frequency moved."""
    switches_per_second: float
    """How often the measured process was made to leave a core; depends on its threads."""

    @property
    def by_others(self) -> bool:
        """Whether others took so much of the processor that it is to be measured again."""
        return self.foreign > MOST_FOREIGN or self.stolen > MOST_STOLEN

    @property
    def reasons(self) -> list[str]:
        """Why the measurement may be off by more than a few per cent; empty if it is reliable."""
        found = []
        if self.foreign > MOST_FOREIGN:
            found.append(f"other processes took {self.foreign:.0%} of the processor")
        if self.stolen > MOST_STOLEN:
            found.append(f"the host withheld {self.stolen:.0%} of the processor")
        if self.clock_change > 0.1:
            found.append(f"the processor's frequency changed by {self.clock_change:.0%}")
        if self.switches_per_second > 200:
            found.append(
                f"it was made to leave a core {self.switches_per_second:.0f} times a second"
            )
        return found


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What training gave."""

    train_tokens: int
    train_seconds: float
    resumed: int = 0
    """How often training was interrupted and went on from a checkpoint."""
    parameters: int
    layer_parameters: int
    curve: list[CurvePoint]
    curve_tokens: int | None = None
    """Tokens of the validation text that the curve was evaluated on, spread over it; None in
    records of before it was so: the whole."""
    curve_seconds: float | None = None
    """Spent on evaluations for the curve."""
    valid: Evaluation
    """Of the whole text; after tuning, of a part that is spread over it."""
    test: Evaluation | None = None
    """Of the whole text; None after tuning."""
    train_perplexity: float | None = None
    """Exact as the others, of the beginnings of the streams that were trained on, about as many
    tokens as all evaluations of the curve have, and no more than the test text."""
    final_seconds: float | None = None
    """Spent on the last evaluations: ``valid``, ``test`` and ``train_perplexity``."""
    disturbance: Disturbance | None = None
    """What else the machine did during training, evaluations on the validation text included; of
    training that was interrupted, since it last went on."""


class NgramResult(msgspec.Struct, frozen=True, kw_only=True):
    """What counting gave."""

    train_seconds: float
    valid: Evaluation
    test: Evaluation


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds of one phase of a step: the median and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    repetitions: int
    samples: list[float] | None = None
    """Of the whole step alone, in the order of the rounds; those of layers that were timed
    together belong together, place by place."""
    stopped: str | None = None
    """``"precise"``, ``"budget"`` or ``"repetitions"``: what ended the repetitions."""

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by what they are for; older records have fields that are no longer written."""

    parameters: int
    gradients: int
    """Of the parameters, after the backward."""
    optimizer: int
    """The optimiser's state."""
    activations: int
    """Peak of forward and backward less the gradients: saved tensors, scratch, the gradient of the
    input."""

    @property
    def peak(self) -> int:
        """Most held at once in forward and backward beyond the parameters, gradients included."""
        return self.gradients + self.activations


class SpeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """What timing gave."""

    phases: dict[str, Timing]
    """``draw``, ``forward``, ``backward``, ``clip``, ``optimizer`` and ``step`` (all of them);
    ``encoder``, a step of its own that came before;
    ``evaluation`` of as many targets and ``decoding`` of the best 10 classes after 20 states."""
    peak_bytes: int
    """Most memory held at once during forward and backward, beyond the parameters."""
    parameters: int
    rows_touched: int
    flops: float
    """Analytic cost of one step, forward and backward."""
    bytes: float
    """Fewest bytes that the step must move, analytic."""
    memory: Memory | None = None
    machine_flops: float | None = None
    """Floating-point operations a second of a large matrix product, measured just before."""
    machine_bytes: float | None = None
    """Bytes a second that a large copy reads and writes, measured just before."""
    machine_products: dict[str, float] | None = None
    """The same rate as ``machine_flops``, by type: ``float32`` and ``bfloat16``."""
    disturbance: Disturbance | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number known from a sample, and its 95 % interval."""

    value: float
    low: float
    high: float


class GradientMoments(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's random gradient ``g`` against the exact one ``e``, relative to ``|e|``."""

    bias: Estimate
    """``|E g - e| / |e|``, without what the finite number of draws adds to it; ``low`` is 0 where
    the draws cannot tell it from 0."""
    variance: Estimate
    """``E |g - E g|^2 / |e|^2``, of one draw."""
    cosine: Estimate
    """Mean cosine of the angle between one draw and ``e``."""
    direction: Estimate
    """Cosine of the angle between ``E g`` and ``e``: 1 where a bias is of length only, which a
    learning rate makes up for."""


class SampleQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The classes that a layer draws, as a sample of the softmax without the target."""

    effective: float
    """Median over hidden states of the effective sample size ``m / (1 + m Var(Z' / Z))`` of m
    samples: m where draws are from the softmax itself, or are all classes. For independent draws
    that is the usual one of importance weights, ``m / sum_j p_j^2 / q_j`` (Kish 1965)."""
    effective_low: float
    """Its lower decile: the hidden states that the draws suit least."""
    log_z_bias: float
    """Mean over draws and hidden states of ``log Z' - log Z``, with Z' estimated by the draws."""
    log_z_sd: float
    """Standard deviation of the same."""


class SamplePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's gradient at one number of samples."""

    num_samples: int | None
    """None where the layer has no such option."""
    hidden: GradientMoments
    """Gradient with respect to the hidden states."""
    weight: GradientMoments
    """Gradient with respect to the rows."""
    samples: SampleQuality | None
    """None where the layer draws no sample of the softmax."""


class FidelityResult(msgspec.Struct, frozen=True, kw_only=True):
    """How near a layer comes to full softmax."""

    points: list[SamplePoint]
    """Empty for layers whose parameters are not full softmax's: there is nothing to compare."""
    learning_rate: float
    """The best of those tried, by validation."""
    divergence: Estimate
    """Mean KL divergence in nats of the distribution that the layer has learned, trained on the
    model's hidden states with its default number of samples, from the model's own."""
    tokens: int
    """Of the test text, over which that mean is taken."""
    nats: float
    """Mean negative log-probability of those tokens by the layer."""
    full_nats: float
    """The same by the model."""
    log_z_mean: float | None
    """Of the trained layer's log-normaliser over those hidden states; None where it has none."""
    log_z_sd: float | None
