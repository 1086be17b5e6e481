"""The results of trials. Names include units: ``seconds``, ``bytes``, ``nats``. No torch here."""

from __future__ import annotations

import msgspec

MOST_FOREIGN = 0.05
MOST_STOLEN = 0.02
"""Shares of the processor above which a measurement counts as disturbed."""
FEWEST_TOKENS = 1000
"""Fewest tokens of an evaluation text; with fewer, the standard error is 10 % or more."""
MOST_UNKNOWN = 0.5
"""Share of unknown words above which perplexity says little about words."""


class FrequencyBand(msgspec.Struct, frozen=True, kw_only=True):
    """Quality on the words of similar frequency."""

    low: int
    """Least number of occurrences in the training text."""
    high: int | None
    """Largest number of occurrences; None for no bound."""
    tokens: int
    nats: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Exact, normalised quality on one split."""

    tokens: int
    """Predicted tokens, including ``<eos>`` and ``<unk>``."""
    unknown_tokens: int | None = None
    """None for a part of a text."""
    nats: float
    """Mean negative log-probability of a token."""
    perplexity: float
    unnormalized_perplexity: float | None = None
    """Perplexity assuming normalised scores, for layers that learn them (NCE)."""
    log_z_mean: float | None = None
    log_z_sd: float | None = None
    true_perplexity: float | None = None
    """Perplexity of the source itself, known for the synthetic language."""
    adjusted_perplexity: float | None = None
    """The same with ``<unk>`` charged for the types it stands for, which is comparable across V."""
    bits_per_byte: float | None = None
    """Bits per byte of the text, with ``<unk>`` charged likewise; comparable across words and
    subwords.
    """
    top1: float | None = None
    """Share of examples whose class is the most probable; known if hidden states are given."""
    top10: float | None = None
    """Recall at 10: the share of examples whose class is among the ten most probable."""
    ndcg10: float | None = None
    """Mean normalised discounted cumulative gain at 10: ``1 / log2(1 + rank)`` of the class if it
    is among the ten most probable, else 0.
    """
    bands: list[FrequencyBand] | None = None
    block_nats: list[float] | None = None
    """Sums over equal stretches of the text, by which two models are compared."""


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """The state of training at one evaluation."""

    tokens: int
    seconds: float
    """Training time without evaluation."""
    train_loss: float
    """Mean training objective since the last point; not comparable between layers."""
    valid_perplexity: float


class Disturbance(msgspec.Struct, frozen=True, kw_only=True):
    """What disturbed a measurement, as shares of the processor's time over all cores."""

    foreign: float
    """Time spent on other processes."""
    stolen: float
    """Time withheld from a virtual machine by its host."""
    clock_change: float
    """Relative change of the frequency."""
    switches_per_second: float
    """How often the measured process was preempted; depends on its threads."""

    @property
    def by_others(self) -> bool:
        """Whether others used so much of the processor that the measurement should be repeated."""
        return self.foreign > MOST_FOREIGN or self.stolen > MOST_STOLEN

    @property
    def reasons(self) -> list[str]:
        """Why the measurement may be off by more than a few per cent; empty if it is reliable."""
        reasons = []
        if self.foreign > MOST_FOREIGN:
            reasons.append(f"other processes took {self.foreign:.0%} of the processor")
        if self.stolen > MOST_STOLEN:
            reasons.append(f"the host withheld {self.stolen:.0%} of the processor")
        if self.clock_change > 0.1:
            reasons.append(f"the processor's frequency changed by {self.clock_change:.0%}")
        if self.switches_per_second > 200:
            reasons.append(f"it was preempted {self.switches_per_second:,.0f} times per second")
        return reasons


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of training."""

    train_tokens: int
    train_seconds: float
    resumed: int = 0
    """How often training was interrupted and resumed from a checkpoint."""
    parameters: int
    layer_parameters: int
    curve: list[CurvePoint]
    curve_tokens: int | None = None
    """Number of validation tokens, spread over the text, on which the curve was evaluated; None in
    older records, which used the whole text.
    """
    curve_seconds: float | None = None
    """Time of the evaluations for the curve."""
    valid: Evaluation
    """Quality on the whole text; after tuning, on a part spread over it."""
    test: Evaluation | None = None
    """Quality on the whole text; None after tuning."""
    train_perplexity: float | None = None
    """Exact like the others, on the beginnings of the training streams, with about as many tokens
    as all evaluations of the curve, and at most as many as the test text.
    """
    final_seconds: float | None = None
    """Time of the last evaluations: ``valid``, ``test`` and ``train_perplexity``."""
    disturbance: Disturbance | None = None
    """What disturbed training, including evaluations on the validation text; if training was
    interrupted, since it last resumed.
    """


class NgramResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of counting n-grams."""

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
    """Of the whole step only, in the order of the rounds; samples at the same position of layers
    that were timed together belong together.
    """
    stopped: str | None = None
    """``"precise"``, ``"budget"`` or ``"repetitions"``: what ended the repetitions."""

    @property
    def relative_width(self) -> float:
        """Width of the interval as a share of the median."""
        return (self.high - self.low) / self.median if self.median else 0.0


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes by use; older records have fields that are no longer written."""

    parameters: int
    gradients: int
    """Gradients of the parameters after the backward."""
    optimizer: int
    """The optimiser's state."""
    activations: int
    """Peak of forward and backward minus the gradients: saved tensors, scratch, the gradient of the
    input.
    """

    @property
    def peak(self) -> int:
        """Peak bytes in forward and backward beyond the parameters, including gradients."""
        return self.gradients + self.activations


class SpeedResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of timing."""

    phases: dict[str, Timing]
    """``draw``, ``forward``, ``backward``, ``clip``, ``optimizer`` and ``step`` (all of them);
    ``encoder``, a separate step that precedes it; ``evaluation`` of as many targets, and
    ``decoding`` of the best 10 classes for 20 states.
    """
    peak_bytes: int
    """Peak bytes during forward and backward, beyond the parameters."""
    parameters: int
    rows_touched: int
    flops: float
    """Analytic cost of one step, forward and backward."""
    bytes: float
    """Analytic minimum of the bytes that the step must move."""
    memory: Memory | None = None
    machine_flops: float | None = None
    """Floating-point operations per second of a large matrix product, measured just before."""
    machine_bytes: float | None = None
    """Bytes per second that a large copy reads and writes, measured just before."""
    machine_products: dict[str, float] | None = None
    """The same rate as ``machine_flops`` by dtype: ``float32`` and ``bfloat16``."""
    disturbance: Disturbance | None = None


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity estimated from a sample, with its 95 % interval."""

    value: float
    low: float
    high: float


class GradientMoments(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's random gradient ``g`` relative to the exact one ``e``."""

    bias: Estimate
    """``|E g - e| / |e|``, without the contribution of the finite number of draws; ``low`` is 0 if
    the draws cannot distinguish it from 0.
    """
    variance: Estimate
    """``E |g - E g|^2 / |e|^2``, of one draw."""
    cosine: Estimate
    """Mean cosine of the angle between one draw and ``e``."""
    direction: Estimate
    """Cosine of the angle between ``E g`` and ``e``; 1 if only the length is biased, which a
    learning rate can compensate.
    """


class SampleQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The classes that a layer draws, seen as a sample of the softmax without the target."""

    effective: float
    """Median over hidden states of the effective sample size ``m / (1 + m Var(Z' / Z))`` of m
    samples: m if draws are from the softmax itself or contain all classes. For independent draws,
    it is the usual effective sample size of importance weights, ``m / sum_j p_j^2 / q_j`` (Kish
    1965).
    """
    effective_low: float
    """Its lower decile: the hidden states that the draws suit least."""
    log_z_bias: float
    """Mean of ``log Z' - log Z`` over draws and hidden states, with Z' estimated by the draws."""
    log_z_sd: float
    """Standard deviation of the same."""


class SamplePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A layer's gradient at one number of samples."""

    num_samples: int | None
    """None if the layer has no such option."""
    hidden: GradientMoments
    """Gradient with respect to the hidden states."""
    weight: GradientMoments
    """Gradient with respect to the rows."""
    samples: SampleQuality | None
    """None if the layer draws no sample of the softmax."""


class FidelityResult(msgspec.Struct, frozen=True, kw_only=True):
    """How close a layer comes to full softmax."""

    points: list[SamplePoint]
    """Empty for layers whose parameters differ from full softmax's, so that nothing can be
    compared.
    """
    learning_rate: float
    """The best of the learning rates tried, by validation."""
    divergence: Estimate
    """Mean KL divergence in nats between the model and the layer's learned distribution; the layer
    is trained on the model's hidden states with its default number of samples.
    """
    tokens: int
    """Number of test tokens over which that mean is taken."""
    nats: float
    """Mean negative log-probability of those tokens under the layer."""
    full_nats: float
    """The same under the model."""
    log_z_mean: float | None
    """Mean log-normaliser of the trained layer over those hidden states; None if it has none."""
    log_z_sd: float | None
