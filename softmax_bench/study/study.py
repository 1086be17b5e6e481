"""What a study is: a grid of trials, the conditions that all of them share, and their limits."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from softmax_bench.records.trial import TrainTrial

Count = Annotated[int, msgspec.Meta(ge=1)]
Above0 = Annotated[float, msgspec.Meta(gt=0)]
From0 = Annotated[int, msgspec.Meta(ge=0)]


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
    seeds: tuple[From0, ...] = (0,)
    """One model is trained with each; several show how much is chance."""
    max_tokens: tuple[Count, ...] = (100_000,)
    """Training budgets, in predicted tokens."""

    learning_rates: tuple[Above0, ...] = (0.1,)
    """Of several, each layer gets the one that it does best with, on ``tune_tokens``, at each
    corpus, vocabulary size and encoder, with the first seed. Where the best is at an end, up to
    four more are tried beyond it."""
    tune_tokens: Count = 100_000
    """Budget of each trial that looks for a learning rate."""
    tuning_trials: From0 = 0
    """Above 0, ``learning_rates`` are the ends of a range (one rate: of a factor of ten around it)
    in which Optuna looks first, with so many trials of ``tune_tokens`` for each layer, for the rate
    and for the layer's own knobs."""

    hidden_size: Count = 128
    """Of a hidden state."""
    embedding_size: Count | None = None
    """The hidden size by default."""
    num_layers: Count = 1
    """Of the encoder."""
    dropout: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    """Share of the encoder's inputs and outputs that is dropped in training."""
    tied: bool = False
    """Whether the embedding is the weight of the output layer."""
    optimizer: str = "adagrad"
    """``"sgd"``, ``"adagrad"``, ``"adam"`` or ``"adamw"``."""
    initial_accumulator_value: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Where Adagrad's sums of squares start, 1e-6 by default. From 0, a number's first gradient
    moves it by the whole rate, however small it is: that hides which layer learns best."""
    layer_rate: Above0 = 1.0
    """Learning rate of the output layer, as a multiple of that of the rest."""
    schedule: str = "constant"
    """Of the learning rate. ``"linear"`` and ``"cosine"`` fall to zero over the budget; ``"stall"``
    multiplies the rate by ``decay`` at every evaluation that is no better than the best before it,
    ``"epoch"`` at every pass over the text after the first ``decay_after``."""
    decay: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    """Factor of the schedules ``"stall"`` and ``"epoch"``."""
    decay_after: Count = 4
    """Passes over the text before ``"epoch"`` begins."""
    evaluations: Count = 6
    """During each training, on a part of the validation text."""
    patience: From0 = 0
    """Training ends after so many evaluations in a row that are no better than the best before
    them, and the best model is kept; 0 for never."""
    init_range: Above0 | None = None
    """Weights start uniform between minus this and this; by default each part starts in its own
    way."""
    clip_norm: Above0 = 5.0
    """Greatest norm of all gradients together."""
    batch_size: Count = 20
    """Streams of text that are read side by side."""
    bptt: Count = 20
    """Time steps that gradients flow back."""
    corpus_seed: From0 = 0
    """Of the synthetic language."""
    device: str = "cpu"
    """``"cpu"`` or ``"cuda"``."""

    time_budget: Annotated[float, msgspec.Meta(ge=0)] = 8.0
    """Seconds for timing the layers at each vocabulary size, all together; 0 does not time."""

    threads: From0 = 0
    """Of each trial; 0 shares all cores of this machine among the workers."""
    workers: From0 = 0
    """Trials that are trained at once; 0 for as many as there are cores for, at most eight, and one
    on a GPU. Timing is done alone in any case."""
    checkpoint_seconds: Above0 = 30.0
    """Between two checkpoints of a model in training: what a kill can cost."""
    time_limit: Above0 | None = None
    """Seconds that a trial may take."""
    memory_limit: Above0 | None = None
    """Gigabytes (10^9 bytes) that a trial may hold."""

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
"""What all models of a study have in common, and their trials as it stands in the study."""
