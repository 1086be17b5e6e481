"""The evaluation of a model on a text, as stored in records."""

from __future__ import annotations

import math

from softmax_bench.corpora import Corpus
from softmax_bench.lm import Quality
from softmax_bench.records.result import Evaluation


def evaluation_of_part(quality: Quality) -> Evaluation:
    """Evaluation of a part of the validation text, which does not tell about the whole."""
    return Evaluation(
        tokens=quality.tokens,
        nats=quality.nats,
        perplexity=quality.perplexity,
        block_nats=list(quality.block_nats),
    )


def evaluation_of_split(quality: Quality, corpus: Corpus, split: str) -> Evaluation:
    """Evaluation of a whole split of the text."""
    true = corpus.true_perplexity
    return Evaluation(
        tokens=quality.tokens,
        unknown_tokens=corpus.unknown_tokens(split),
        nats=quality.nats,
        perplexity=quality.perplexity,
        unnormalized_perplexity=quality.unnormalized_perplexity,
        log_z_mean=quality.log_z_mean,
        log_z_sd=quality.log_z_sd,
        true_perplexity=None if true is None else true[split],
        adjusted_perplexity=math.exp(min(700.0, corpus.adjusted_nats(quality.nats, split))),
        bits_per_byte=corpus.bits_per_byte(quality.nats, split),
        block_nats=list(quality.block_nats),
        bands=list(quality.bands),
    )
