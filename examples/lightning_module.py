"""A Lightning module with one of our layers as its head, torch's AdamW and Lightning's clipping."""

from __future__ import annotations

import argparse

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from softmax_bench import NCE


class LanguageModel(lightning.LightningModule):
    """An LSTM that predicts each id from the preceding ones."""

    def __init__(self, num_classes: int, size: int, counts: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_classes, size)
        self.encoder = nn.LSTM(size, size, batch_first=True)
        self.head = NCE(size, num_classes, num_samples=256, class_counts=counts)

    def training_step(self, ids: Tensor) -> Tensor:
        """The loss of noise-contrastive estimation, which is not a likelihood."""
        loss: Tensor = self.head(self.encoder(self.embedding(ids[:, :-1]))[0], ids[:, 1:])
        return loss

    def validation_step(self, ids: Tensor) -> None:
        """The exact perplexity."""
        hidden, _ = self.encoder(self.embedding(ids[:, :-1]))
        nats = -self.head.target_log_prob(hidden, ids[:, 1:]).mean()
        self.log("perplexity", nats.exp())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimiser works, because the gradients are dense."""
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def main() -> None:
    """Train on sequences in which every id is followed by twice that id."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    if min(options.classes, options.steps) < 1:
        parser.error("--classes and --steps must be at least 1")
    lightning.seed_everything(0)
    starts = torch.randint(options.classes, (16 * (options.steps + 1), 1))
    ids = (starts * 2 ** torch.arange(12)) % options.classes
    counts = ids[:-16].flatten().bincount(minlength=options.classes)
    model = LanguageModel(options.classes, 64, counts)
    trainer = lightning.Trainer(
        max_epochs=1, gradient_clip_val=1.0, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    known, unknown = (DataLoader(part, batch_size=16) for part in (ids[:-16], ids[-16:]))
    before = trainer.validate(model, unknown, verbose=False)[0]["perplexity"]
    trainer.fit(model, known, unknown)
    print(f"perplexity before: {before:.1f}")
    print(f"perplexity after: {float(trainer.callback_metrics['perplexity']):.1f}")


if __name__ == "__main__":
    main()
