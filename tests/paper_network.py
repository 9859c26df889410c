"""The network of Flow Matching Alignment and its training, as the paper describes them.

Written for clarity from that description, with none of the library's economies: each block has a
modulation of its own, every row of a solver step its own time embedding, the optimiser is unfused.
Nothing of the library is used.
"""

import math

import torch
from torch import nn
from torch.nn import functional

BATCH_SIZE = 32
EPOCHS = 200


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(d, 3 * d))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, h, time):
        shift, scale, gate = self.modulation(time).chunk(3, dim=1)
        return h + gate * self.mlp(self.norm(h) * (1 + scale) + shift)


class PaperField(nn.Module):
    def __init__(self, d, n_blocks=12):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(256, d), nn.SiLU(), nn.Linear(d, d))
        self.enter, self.leave = nn.Linear(d, d), nn.Linear(d, d)
        self.blocks = nn.ModuleList(Block(d) for _ in range(n_blocks))
        self.final = nn.Sequential(nn.SiLU(), nn.Linear(d, 2 * d))
        for layer in (self.leave, self.final[1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, t, x):
        angle = 1000 * t[:, None] * torch.exp(-math.log(10_000) * torch.arange(128) / 128)
        time = self.time(torch.cat([angle.cos(), angle.sin()], dim=1))
        h = self.enter(x)
        for block in self.blocks:
            h = block(h, time)
        shift, scale = self.final(time).chunk(2, dim=1)
        return self.leave(functional.layer_norm(h, h.shape[1:]) * (1 + scale) + shift)


def train(X, codes, E, epochs=EPOCHS):
    """Train by the paper's recipe; yield the field after every epoch."""
    field = PaperField(X.shape[1])
    optimizer = torch.optim.AdamW(
        field.parameters(), lr=2e-4, weight_decay=0.01, fused=False, foreach=False
    )
    n_batches = math.ceil(len(X) / BATCH_SIZE)
    for epoch in range(epochs):
        for k, rows in enumerate(torch.randperm(len(X)).split(BATCH_SIZE)):
            step = epoch * n_batches + k
            progress = (step - n_batches) / ((epochs - 1) * n_batches)
            factor = (
                (step + 1) / n_batches
                if step < n_batches
                else (1 + math.cos(math.pi * progress)) / 2
            )
            optimizer.param_groups[0]["lr"] = 2e-4 * factor
            t = torch.rand(len(rows))
            x0, x1 = X[rows], E[codes[rows]]
            x_t = x0 + t[:, None] * (x1 - x0)
            loss = ((field(t, x_t) - (x1 - x0)) ** 2).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield field
