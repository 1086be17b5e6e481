"""A Hugging Face causal language model with one of our layers as its head.

``python examples/hugging_face.py`` trains a small Llama with random weights. With
``SampledLlama.from_pretrained``, the head starts from the ``lm_head.weight`` of a trained model.
"""

from __future__ import annotations

import argparse
import math

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from softmax_bench import SampledSoftmax


class SampledLlama(LlamaForCausalLM):
    """Llama trained with sampled softmax; its generation and likelihoods are exact."""

    accepts_loss_kwargs = False  # the loss is a mean, which Trainer divides when it accumulates

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        # Negatives are drawn uniformly, because from_pretrained does not fill tables of counts. If
        # you have counts, put a head that is made with them in this one's place after loading.
        self.lm_head = SampledSoftmax(
            config.hidden_size, config.vocab_size, num_samples=256, bias=False,
            noise="uniform",
        )  # fmt: skip

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, **options: object
    ) -> CausalLMOutput:
        """Like the parent's; given labels, it computes the loss without N x V logits."""
        hidden = self.model(input_ids, **options).last_hidden_state
        if labels is None:
            return CausalLMOutput(logits=self.lm_head.log_prob(hidden[:, -1:]))
        return CausalLMOutput(loss=self.lm_head(hidden[:, :-1], labels[:, 1:]))


def nats(model: SampledLlama, ids: Tensor) -> float:
    """The exact mean negative log-likelihood of the text."""
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        return -float(model.lm_head.target_log_prob(hidden[:, :-1], ids[:, 1:]).mean())


def main() -> None:
    """Train on sequences in which every id is followed by twice that id."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    if min(options.classes, options.steps) < 1:
        parser.error("--classes and --steps must be at least 1")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.classes, hidden_size=64, intermediate_size=128,
        num_hidden_layers=2, num_attention_heads=4, use_cache=False,
    )  # fmt: skip
    model = SampledLlama(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    starts = torch.randint(options.classes, (options.steps + 1, 16, 1))
    batches = (starts * 2 ** torch.arange(12)) % options.classes
    print(f"perplexity before: {math.exp(nats(model, batches[-1])):.1f}")
    for ids in batches[:-1]:
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    print(f"perplexity after: {math.exp(nats(model, batches[-1])):.1f}")
    print("its continuation:", model.generate(batches[-1, :1, :4], max_new_tokens=4)[0].tolist())


if __name__ == "__main__":
    main()
