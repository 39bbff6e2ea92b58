"""Stage 0: give a fresh encoder words, with a sigmoid loss between patches and caption words [OURS, after SigLIP].

A pretrained SigLIP2 needs none of this; a tiny encoder trained from nothing does, because next-word loss alone leaves it on a
plateau for some seeds. Each caption is used as a bag of words: nothing but (image, caption) pairs is seen.

Axes: M images, P patches of an image, D encoder width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from workbench.training.packing import IGNORE


class Alignment(nn.Module):
    """Encoder + word matrix. score[m, v] = logsumexp_p(scale * f_mp . w_v) + b_v; binary cross-entropy against
    "word v is in the caption of image m", averaged over the words that captions can use.

    Args:
        model: a model with ``encode(pixel_values, grids) -> list of [M_g, P, D] with the media indices of each group``.
        dim: encoder width D.
        words: token ids that may appear in captions, [V].
        prior: share of captions that contain each word, [V]; sets the bias so that training starts at the base rate.
    """

    def __init__(self, model: nn.Module, dim: int, words: torch.Tensor, prior: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.head = nn.Module()
        self.head.words = nn.Parameter(torch.randn(len(words), dim) * dim**-0.5)
        odds = prior.clamp(1e-3, 1 - 1e-3)
        self.head.bias = nn.Parameter(torch.log(odds / (1 - odds)))
        self.head.log_scale = nn.Parameter(torch.tensor(0.0))
        index = torch.full((int(words.max()) + 2,), -1, dtype=torch.long)
        index[words] = torch.arange(len(words))
        self.register_buffer("index", index, persistent=False)

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Bag of words of each row: labels [M, L] -> [M, V] of 0 / 1."""
        known = torch.where(labels == IGNORE, -1, self.index[labels.clamp(min=0, max=len(self.index) - 1)])
        bags = torch.zeros(len(labels), len(self.head.bias) + 1, device=labels.device)
        bags.scatter_(1, torch.where(known < 0, len(self.head.bias), known), 1.0)
        return bags[:, :-1]

    def forward(
        self, pixel_values: torch.Tensor, grids: torch.Tensor, labels: torch.Tensor, **_: object
    ) -> torch.Tensor:
        """Mean loss of a batch with exactly one image a row."""
        targets = self.targets(labels)
        total = labels.new_zeros((), dtype=torch.float32)
        for members, features in self.model.encode(pixel_values, grids):
            scores = features.flatten(1, -2) @ self.head.words.T * self.head.log_scale.exp()
            pooled = torch.logsumexp(scores, 1) - torch.log(torch.tensor(float(scores.shape[1])))
            logits = pooled + self.head.bias
            total = total + F.binary_cross_entropy_with_logits(logits, targets[members], reduction="sum")
        return total / targets.numel()


def caption_words(prepared_labels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Words (token ids) that occur in the captions, and the share of captions that hold each."""
    counts: dict[int, int] = {}
    for labels in prepared_labels:
        for token in set(labels[labels != IGNORE].tolist()):
            counts[token] = counts.get(token, 0) + 1
    # a word in every caption (end-of-turn, "and") says nothing about an image
    words = sorted(token for token, count in counts.items() if count < len(prepared_labels))
    return torch.tensor(words), torch.tensor([counts[w] / len(prepared_labels) for w in words])
