"""A small language model of torch, which learns a text letter by letter: for quality.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

import fusedstep.torch

WIDTH, HEADS, LAYERS, CONTEXT, BATCH = 128, 4, 4, 64, 16


class Block(nn.Module):  # type: ignore[misc]  # of a package without types here
    """Attention and two layers, each after a norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.into = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        split = self.into(self.norms[0](x)).view(batch, length, 3, HEADS, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        seen = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.layers(self.norms[1](x))


class Model(nn.Module):  # type: ignore[misc]
    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(letters, WIDTH)
        self.place = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, letters)
        for embedding in (self.letter, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        embedded = self.letter(x) + self.place.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(embedded)))


def trained(text: str, half: bool, options: Mapping[str, Any], steps: int) -> float:
    """The loss on the text's last tenth after so many steps on the rest of it.

    A model in bfloat16 computes its forward and backward passes in that, too. It is tested with
    the parameters that it has, in float32.
    """
    torch.manual_seed(0)
    known = sorted(set(text))
    places = {letter: place for place, letter in enumerate(known)}
    data = torch.tensor([places[letter] for letter in text])
    learned, tested = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    model = Model(len(known))
    if half:
        model = model.bfloat16()
    opt = fusedstep.torch.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, **options)
    chance = torch.Generator().manual_seed(1)
    for t in range(steps):
        for group in opt.param_groups:
            group["lr"] = 1e-3 * min(1.0, (t + 1) / 100) * (1 - t / steps)
        loss = loss_of(model, batch_of(learned, chance))
        loss.backward()
        opt.step()
        opt.zero_grad()
    model = model.float().eval()
    chance.manual_seed(2)
    with torch.no_grad():
        losses = [loss_of(model, batch_of(tested, chance)) for _ in range(64)]
    return float(torch.stack(losses).mean())


def batch_of(data: Tensor, chance: torch.Generator) -> Tensor:
    """Pieces of the text, each one letter longer than what the model sees."""
    starts = torch.randint(len(data) - CONTEXT - 1, (BATCH,), generator=chance)
    return torch.stack([data[start : start + CONTEXT + 1] for start in starts])


def loss_of(model: nn.Module, pieces: Tensor) -> Tensor:
    scores = model(pieces[:, :-1]).float()
    return cross_entropy(scores.flatten(0, 1), pieces[:, 1:].flatten())
