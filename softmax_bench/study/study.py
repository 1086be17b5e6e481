"""The definition of a study: a grid of trials, their common conditions, and limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from softmax_bench.records.trial import CLIP_NORM, TrainTrial

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[int, msgspec.Meta(ge=0)]


class Study(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Corpora x vocabulary sizes x encoders x layers x seeds x budgets."""

    corpora: tuple[str, ...] = ("synthetic",)
    """``"synthetic"``, the name of a known corpus, or the path of a text file or a folder with
    train, valid and test."""
    vocab_sizes: tuple[Count | Literal["all"], ...] = (1000, 4000, 16000)
    """``"all"`` keeps every type of the training text."""
    encoders: tuple[str, ...] = ("lstm",)
    """``"rnn"``, ``"gru"``, ``"lstm"``, ``"nplm"``, ``"lbl"``, ``"transformer"``."""
    layers: tuple[str, ...] = ("full", "hierarchical", "nce", "sampled")
    """Output layers, with options in parentheses: ``"nce(num_samples=25)"``."""
    seeds: tuple[NonNegative, ...] = (0,)
    """Each seed trains one model; several show how much of a difference is chance."""
    max_tokens: tuple[Count, ...] = (100_000,)
    """Training budgets, in predicted tokens."""

    learning_rates: tuple[Positive, ...] = (0.1,)
    """If several are given, each layer uses its best one, found on ``tune_tokens`` with the first
    seed for each corpus, vocabulary size and encoder. If the best is at an end, up to four more are
    tried beyond it.
    """
    tune_tokens: Count = 100_000
    """Training tokens of each trial that searches for a learning rate."""
    tuning_trials: NonNegative = 0
    """If above 0, Optuna searches each layer's learning rate and options, with this many trials of
    ``tune_tokens`` per layer. It starts from a range whose ends are ``learning_rates`` (if there is
    only one rate, a factor of ten around it).
    """

    hidden_size: Count = 128
    """Size of the hidden states."""
    embedding_size: Count | None = None
    """Size of the word vectors; the hidden size by default."""
    num_layers: Count = 1
    """Number of layers of the encoder."""
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of the encoder's inputs and outputs that is dropped in training."""
    tied: bool = False
    """Whether the embedding is also the weight of the output layer."""
    optimizer: str = "adagrad"
    """``"sgd"``, ``"adagrad"``, ``"adam"`` or ``"adamw"``."""
    initial_accumulator_value: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Start of Adagrad's sums of squares; 1e-6 by default. At 0, the first gradient of a parameter
    moves it by the full rate, however small the gradient is, which hides which layer learns best.
    """
    layer_rate: Positive = 1.0
    """Learning rate of the output layer, relative to that of the rest."""
    schedule: str = "constant"
    """Learning rate schedule. ``"linear"`` and ``"cosine"`` fall to zero over the budget;
    ``"stall"`` multiplies the rate by ``decay`` at every evaluation that is no better than the best
    before it, ``"epoch"`` at every pass over the text after the first ``decay_after``.
    """
    decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Factor of the schedules ``"stall"`` and ``"epoch"``."""
    decay_after: Count = 4
    """Passes over the text before ``"epoch"`` starts to decay."""
    warmup_tokens: NonNegative = 50_000
    """Tokens over which the learning rate rises from zero, at most a tenth of the budget. Adagrad's
    first steps are its largest: without a warm-up, what they happen to do to the encoder decides
    much of the outcome, and equal trainings with other seeds differ by a quarter in perplexity.
    """
    evaluations: Count = 6
    """Number of evaluations during each training, on a part of the validation text."""
    patience: NonNegative = 0
    """Training stops after this many consecutive evaluations that are no better than the best
    before them, and keeps the best model; 0 for never.
    """
    init_range: Positive | None = None
    """Weights start uniformly distributed between minus this and this; by default, each part has
    its own initialisation.
    """
    clip_norm: Positive = CLIP_NORM
    """Maximum norm of all gradients together."""
    batch_size: Count = 20
    """Number of parallel streams of text."""
    bptt: Count = 20
    """Time steps of backpropagation."""
    corpus_seed: NonNegative = 0
    """Seed of the synthetic language."""
    device: str = "cpu"
    """``"cpu"`` or ``"cuda"``."""

    time_budget: Annotated[float, msgspec.Meta(ge=0)] = 8.0
    """Seconds for timing all layers of a vocabulary size together; 0 for no timing."""

    threads: NonNegative = 0
    """Threads of each trial; 0 divides the cores of this machine among the workers."""
    workers: NonNegative = 0
    """Number of trials trained at once; 0 for as many as there are cores, at most eight, and one on
    a GPU. Timing always runs alone.
    """
    checkpoint_seconds: Positive = 30.0
    """Seconds between two checkpoints of a model in training, which is what a kill can cost."""
    time_limit: Positive | None = None
    """Time limit of a trial in seconds."""
    memory_limit: Positive | None = None
    """Memory limit of a trial in gigabytes (10^9 bytes)."""

    @property
    def accumulator_start(self) -> float:
        """``initial_accumulator_value``, or its default for the optimiser."""
        if self.initial_accumulator_value is not None:
            return self.initial_accumulator_value
        return 1e-6 if self.optimizer == "adagrad" else 0.0


CONDITIONS = tuple(
    name
    for name in Study.__struct_fields__
    if name in TrainTrial.__struct_fields__
    and name not in ("embedding_size", "initial_accumulator_value", "max_tokens", "threads")
)
"""Keys that all models of a study share and that go into their trials unchanged."""
