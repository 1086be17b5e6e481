"""TensorFlow's losses, each in a ``tf.function``."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.peers.race import Inputs, Step, competes


def _tensorflow() -> Any:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(torch.get_num_threads())
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # set by an earlier race, and cannot be changed any more
    return tf


def _step(inputs: Inputs, loss_of: Any) -> Step:
    tf = _tensorflow()
    hidden = tf.Variable(inputs.hidden.numpy())
    weight, bias = tf.Variable(inputs.weight.numpy()), tf.Variable(inputs.bias.numpy())
    target = tf.constant(inputs.target.numpy())

    @tf.function  # type: ignore[untyped-decorator]
    def gradients() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_of(tf, hidden, weight, bias, target))
        return loss, tape.gradient(loss, [hidden, weight, bias])

    def step() -> float:
        loss, made = gradients()
        for gradient in made:  # wait for all of it
            values = gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient
            values.numpy()
        return float(loss)

    return step


@competes("full softmax", "TensorFlow: tf.function", needs="tensorflow", max_flops=1.2e12)
def full(inputs: Inputs) -> Step:
    """Sparse softmax cross-entropy of a product."""
    return _step(
        inputs,
        lambda tf, h, w, b, y: tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=y, logits=tf.matmul(h, w, transpose_b=True) + b
        ),
    )


def _sampling(inputs: Inputs, loss: str) -> Step:
    step = _step(
        inputs,
        lambda tf, h, w, b, y: getattr(tf.nn, loss)(
            weights=w,
            biases=b,
            labels=y[:, None],
            inputs=h,
            num_sampled=inputs.num_samples,
            num_classes=inputs.vocab_size,
        ),
    )

    def run() -> None:  # the sample differs, so losses need not agree
        step()

    return run


@competes("sampled softmax", "TensorFlow: sampled_softmax_loss", needs="tensorflow")
def sampled(inputs: Inputs) -> Step:
    """Distinct log-uniform samples."""
    return _sampling(inputs, "sampled_softmax_loss")


@competes("NCE, shared noise", "TensorFlow: nce_loss", needs="tensorflow")
def nce(inputs: Inputs) -> Step:
    """Distinct log-uniform samples."""
    return _sampling(inputs, "nce_loss")
