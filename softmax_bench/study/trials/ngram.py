"""N-gram trials: the reference that needs no training."""

from __future__ import annotations

import time

import numpy as np
import torch

from softmax_bench.corpora import Corpus
from softmax_bench.lm.evaluate import summarise_log_probs
from softmax_bench.lm.ngram import KneserNey
from softmax_bench.lm.streams import make_streams
from softmax_bench.records.record import NgramRecord
from softmax_bench.records.result import Evaluation, NgramResult
from softmax_bench.records.trial import NgramTrial, trial_id
from softmax_bench.study.trials.evaluation import evaluation_of_split
from softmax_bench.study.trials.setting import describe_machine, now


def ngram_trial(trial: NgramTrial, corpus: Corpus) -> NgramRecord:
    """Count the n-grams of a text, and evaluate the model made from them."""
    started, begin = now(), time.perf_counter()
    tokens = corpus.train
    if trial.max_tokens is not None:
        streams = make_streams(tokens, trial.batch_size, corpus.eos_id).part(trial.max_tokens)
        tokens = np.concatenate(streams.read())
    model = KneserNey(tokens, vocab_size=corpus.vocab_size, eos_id=corpus.eos_id, order=trial.order)
    seconds = time.perf_counter() - begin

    counts = torch.from_numpy(corpus.class_counts)

    def quality(split: str) -> Evaluation:
        words = corpus.split(split)
        log_prob = torch.from_numpy(model.log_prob(words))
        return evaluation_of_split(
            summarise_log_probs(log_prob, torch.from_numpy(words.astype(np.int64)), counts),
            corpus,
            split,
        )

    return NgramRecord(
        id=trial_id(trial),
        started=started,
        trial=trial,
        environment=describe_machine(),
        result=NgramResult(train_seconds=seconds, valid=quality("valid"), test=quality("test")),
    )
