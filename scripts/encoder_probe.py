"""What frozen features tell on simulated examples that an encoder was not pretrained on: a linear probe."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedlit.backbones.encoders.family import EncoderFamily
from fedlit.data.classification.simulated import SimulatedImages, SimulatedSounds
from fedlit.data.classification.sounds import fitted
from fedlit.data.signals.resampling import resample

PENALTIES = tuple(10.0**power for power in range(-4, 4))
SEEDS = (11, 12, 13)
SIMULATED: dict[str, Any] = {"image": SimulatedImages, "audio": SimulatedSounds}


def probe(networks: dict[str, nn.Module], family: EncoderFamily, subjects: int, seconds: float) -> dict[str, Any]:
    """Accuracy of ridge classifiers on the features of each network, for :data:`SEEDS` simulated populations.

    Half of the subjects are learnt from, the others tested; each has four examples, and both halves are at every site.

    Args:
        seconds: Of a sound, by repeating it.

    Returns:
        For each network a list of accuracies, and under ``chance`` those of the commonest class.
    """
    found: dict[str, Any] = {name: [] for name in [*networks, "chance"]}
    for seed in SEEDS:
        data = SIMULATED[family.modality](subjects=subjects, mix=5.0, simulation_seed=seed, seed=0)
        examples = data.read()
        x = torch.stack([torch.from_numpy(_value(one.value, one.rate, family, seconds)) for one in examples])
        names = sorted({str(one.label) for one in examples})
        label = torch.tensor([names.index(str(one.label)) for one in examples])
        whose = {subject: number for number, subject in enumerate(dict.fromkeys(one.subject for one in examples))}
        subject = torch.tensor([whose[one.subject] for one in examples])
        for name, network in networks.items():
            found[name].append(_accuracy(features(network, family, x), label, subject))
        train, test = subject % 2 == 0, subject % 2 == 1
        commonest = label[train].bincount().argmax()
        found["chance"].append(float((label[test] == commonest).float().mean()))
    return found


@torch.no_grad()
def features(network: nn.Module, family: EncoderFamily, x: Tensor) -> Tensor:
    """(examples, width), 64 at a time."""
    return torch.cat([family.features(network, part) for part in x.split(64)])


def _value(value: Any, rate: float | None, family: EncoderFamily, seconds: float) -> np.ndarray:
    if family.modality == "image":
        return value
    wanted = family.rate
    return fitted(resample(value, rate, wanted), wanted, seconds, "circular")


def _accuracy(x: Tensor, label: Tensor, subject: Tensor) -> float:
    """On the odd subjects, with the penalty that serves a third of the even ones best."""
    test = subject % 2 == 1
    tuning = (subject % 6 == 0) & ~test
    learning = ~test & ~tuning
    scores = [_score(x, label, learning, tuning, penalty) for penalty in PENALTIES]
    return _score(x, label, ~test, test, PENALTIES[int(np.argmax(scores))])


def _score(x: Tensor, label: Tensor, train: Tensor, test: Tensor, penalty: float) -> float:
    """Accuracy of ridge regression on one-hot labels, of standardised features."""
    x = x.double()
    mean, deviation = x[train].mean(0), x[train].std(0) + 1e-12
    z = (x - mean) / deviation
    wanted = nn.functional.one_hot(label).double()
    middle = wanted[train].mean(0)
    gram = z[train].T @ z[train] + penalty * int(train.sum()) * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, z[train].T @ (wanted[train] - middle))
    return float(((z[test] @ weights + middle).argmax(-1) == label[test]).float().mean())
