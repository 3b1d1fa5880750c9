"""Trains the shipped classifier of handwritten digits, and writes its data and weights.

``python tests/bench/train_digits.py`` needs scikit-learn and PyTorch (``pip install scikit-learn torch``) and half a
minute, and is run by hand: what it writes is in the repository. Trained again, elsewhere, the weights differ in their
last bits; then raise the network's revision and pin its bytes (tests/unit/models/zoo/test_catalog.py).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from sklearn import datasets
from torch import nn

HELD_OUT = 597
EPOCHS, BATCH, RATE = 25, 64, 4e-3
TARGET = Path(__file__).parents[2] / "sweep" / "models" / "data"


def network() -> nn.Sequential:
    """The graph of ``sweep.models.zoo.digits``, layer by layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 4 * 4, 10),
    )


def shifted(images: torch.Tensor) -> torch.Tensor:
    """Half of the batches moved by up to a pixel, so that 1,200 images are enough."""
    if torch.rand(()) < 0.5:
        return images
    across, down = (int(step) for step in torch.randint(0, 3, (2,)))
    return nn.functional.pad(images, (1, 1, 1, 1))[:, :, down : down + 8, across : across + 8]


def main() -> None:
    """Train, print the score on the held-out images, write both files."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = datasets.load_digits()
    images, labels = found.images.astype(np.uint8), found.target.astype(np.uint8)
    x = torch.tensor(images[:, None] / 16.0, dtype=torch.float32)
    y = torch.tensor(labels, dtype=torch.long)
    model, cut = network(), len(x) - HELD_OUT
    steps = EPOCHS * (cut // BATCH + 1)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=5e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(cut).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(shifted(x[rows])), y[rows], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        right = (model(x[cut:]).argmax(1) == y[cut:]).float().mean()
    sys.stdout.write(f"top-1 on {HELD_OUT} held-out images: {right:.4f}\n")
    TARGET.mkdir(exist_ok=True)
    np.savez_compressed(TARGET / "digits.npz", images=images, labels=labels)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez_compressed(TARGET / "digits_weights.npz", **weights)


if __name__ == "__main__":
    main()
