"""Stage 0: give a fresh encoder words, with a sigmoid loss between patches and caption words [OURS, after
SigLIP].

A pretrained SigLIP2 needs none of this; a tiny encoder trained from nothing does, because next-word loss
alone leaves it on a plateau for some seeds. Each caption is used as a bag of words: nothing but (image,
caption) pairs is seen.

Axes: M images, P patches of an image, D encoder width, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from workbench.training.packing import IGNORE


class WordHead(nn.Module):
    """The words' side of the loss: a vector and a bias for each of V words, and one scale; thrown away after
    the stage.
    """

    def __init__(self, dim: int, prior: torch.Tensor) -> None:
        super().__init__()
        self.words = nn.Parameter(torch.randn(len(prior), dim) * dim**-0.5)
        odds = prior.clamp(1e-3, 1 - 1e-3)
        self.bias = nn.Parameter(torch.log(odds / (1 - odds)))
        self.log_scale = nn.Parameter(torch.tensor(0.0))


class Alignment(nn.Module):
    """Encoder + word matrix. score[m, v] = logsumexp_p(scale * f_mp . w_v) + b_v; binary cross-entropy
    against "word v is in the caption of image m", averaged over the words that captions can use.

    Args:
        model: a model with ``encode(pixel_values, grids) -> list of [M_g, P, D] with the media indices of
        each group``.
        dim: encoder width D.
        words: token ids that may appear in captions, [V].
        prior: share of captions that contain each word, [V]; sets the bias so that training starts at the
        base rate.
    """

    def __init__(self, model: Any, dim: int, words: torch.Tensor, prior: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.head = WordHead(dim, prior)
        index = torch.full((int(words.max()) + 2,), -1, dtype=torch.long)
        index[words] = torch.arange(len(words))
        self.register_buffer("index", index, persistent=False)

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Bag of words of each row: labels [M, L] -> [M, V] of 0 / 1."""
        index: torch.Tensor = self.get_buffer("index")
        known = torch.where(labels == IGNORE, -1, index[labels.clamp(min=0, max=len(index) - 1)])
        bags = torch.zeros(len(labels), len(self.head.bias) + 1, device=labels.device)
        bags.scatter_(1, torch.where(known < 0, len(self.head.bias), known), 1.0)
        return bags[:, :-1]

    def forward(
        self,
        pixel_values: torch.Tensor,
        grids: torch.Tensor,
        labels: torch.Tensor,
        num_items: int | None = None,
        **_: object,
    ) -> torch.Tensor:
        """Loss of a batch with exactly one image a row: the mean over words and captions.

        Args:
            num_items: captions to divide by (those of the whole step, over all ranks); None: those of this
                batch. A row without any label has no caption and adds nothing.
        """
        targets = self.targets(labels)
        captioned = (labels != IGNORE).any(1)
        total = targets.new_zeros(())
        for members, features in self.model.encode(pixel_values, grids):
            scores = features.flatten(1, -2) @ self.head.words.T * self.head.log_scale.exp()
            pooled = torch.logsumexp(scores, 1) - math.log(scores.shape[1])
            losses = F.binary_cross_entropy_with_logits(
                pooled + self.head.bias, targets[members], reduction="none"
            )
            total = total + (losses * captioned[members][:, None]).sum()
        captions = int(captioned.sum()) if num_items is None else num_items
        return total / (max(1, captions) * targets.shape[1])


def caption_words(prepared_labels: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Words (token ids) that occur in the captions, and the share of captions that hold each."""
    counts: dict[int, int] = {}
    for labels in prepared_labels:
        for token in set(labels[labels != IGNORE].tolist()):
            counts[token] = counts.get(token, 0) + 1
    # a word in every caption (end-of-turn, "and") says nothing about an image
    words = sorted(token for token, count in counts.items() if count < len(prepared_labels))
    return torch.tensor(words), torch.tensor([counts[w] / len(prepared_labels) for w in words])
