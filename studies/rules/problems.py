"""Simulated problems, each with one difficulty.

Records are drawn from Gaussian mixtures: every class has two modes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fedlit import seeds
from fedlit.data import FederatedDataModule

FEATURES, CLASSES, MODES, RANK = 12, 4, 2, 4
RADIUS = 3.3
"""Length of the modes' centres, which are orthogonal, where records spread with 1: every seed is equally hard."""
CLIENTS, RECORDS, BATCH = 10, 40, 20
ROUNDS, LOCAL_STEPS, LR = 20, 5, 0.1
HELD_OUT = {"val": 100, "test": 200}
SERVER_RECORDS = 8
Source = Callable[[int], list["Client"]]


@dataclass(frozen=True)
class Client:
    """How a client's records differ from the common mixture.

    Args:
        records: For training.
        prior: Share of each class among the training records.
        labels: What each class is called here.
        shift: Index of its own scale and offset of the features, or -1.
        noisy: Whether the labels of its training records are random.
        boost: What the loss of its training records is multiplied by.
    """

    records: int = RECORDS
    prior: tuple[float, ...] = (1 / CLASSES,) * CLASSES
    labels: tuple[int, ...] = tuple(range(CLASSES))
    shift: int = -1
    noisy: bool = False
    boost: float = 1.0


@dataclass(frozen=True)
class Problem:
    """One difficulty.

    Args:
        title: For people.
        theory: Who should win, and why; written before the first run.
        clients: Gives them for a seed.
        judged: Clients whose scores count; None: all.
        metric: ``accuracy`` on all classes alike, or ``own``: classes as frequent as in the client's training data.
        local_epochs: Instead of equal steps for all clients: a client takes as many as its records fill batches.
        runs_of: The problem whose runs are scored here in another way; None: its own.
    """

    title: str
    theory: str
    clients: Source
    judged: tuple[int, ...] | None = None
    metric: str = "accuracy"
    local_epochs: float | None = None
    runs_of: str | None = None


def _alike(**changes: Any) -> list[Client]:
    return [Client(**changes) for _ in range(CLIENTS)]


def _skewed(seed: int) -> list[Client]:
    """Class shares from a Dirichlet distribution with concentration 0.3, scaled until all classes are as frequent."""
    shares = seeds.numpy_generator(seed, "skew").dirichlet([0.3] * CLASSES, size=CLIENTS) + 1e-3
    for _ in range(100):
        shares *= CLIENTS / CLASSES / shares.sum(0)
        shares /= shares.sum(1, keepdims=True)
    return [Client(prior=tuple(float(x) for x in row)) for row in shares]


def _uneven(seed: int) -> list[Client]:
    """Skewed classes, and from one batch of records to thirty."""
    sizes = (600, 200, 100, 60, 40, 20, 20, 20, 20, 20)
    return [replace(c, records=n) for c, n in zip(_skewed(seed), sizes, strict=True)]


def _conflicting(seed: int) -> list[Client]:
    """Every client names the classes in an order of its own."""
    order = list(range(CLASSES))
    names = [tuple(order[i:] + order[:i])[::way] for i in range(CLASSES) for way in (1, -1)]
    names += [(0, 2, 1, 3), (1, 3, 0, 2)]
    return [Client(labels=tuple(n)) for n in names]


def _two_clusters(seed: int) -> list[Client]:
    return _alike()[: CLIENTS // 2] + _alike(labels=(1, 0, 3, 2))[CLIENTS // 2 :]


def _with(first: int, **changes: Any) -> Source:
    """The last ``first`` clients are changed."""
    return lambda seed: _alike()[first:] + [Client(**changes)] * first


_HONEST_7, _HONEST_8 = tuple(range(7)), tuple(range(8))
PROBLEMS: dict[str, Problem] = {
    "label skew, all classes": Problem(
        "Classes Dirichlet(0.3) over clients; scored on all classes alike",
        "Clients differ only in how often they see a class, so one model serves all: shared models win, and those that "
        "correct client drift win or tie with FedAvg; local models lack the classes that their client has not seen.",
        _skewed,
    ),
    "label skew, own classes": Problem(
        "The same runs, scored with classes as frequent as at the client",
        "Knowing one's own class shares is worth more than the others' records: a personal head or model wins over one "
        "shared model.",
        _skewed,
        metric="own",
        runs_of="label skew, all classes",
    ),
    "feature shift": Problem(
        "Every client scales and shifts the features in its own way",
        "The classes are the same and only the inputs differ: what absorbs a shift (norms, an adapter's half) should "
        "stay local, and the rest be shared.",
        lambda seed: [Client(shift=i) for i in range(CLIENTS)],
    ),
    "conflict": Problem(
        "Every client names the classes in an order of its own",
        "One head cannot serve all: a shared model is near chance. Personal heads on shared features win over local "
        "models, which win over FedAvg.",
        _conflicting,
    ),
    "two clusters": Problem(
        "Two groups of five clients; the second swaps the names of classes",
        "Five alike clients are better than one and than ten at odds: rules that find the groups win.",
        _two_clusters,
    ),
    "noisy clients": Problem(
        "Three of ten clients have random labels, and three times as many records; scored on the other seven",
        "Weighting by records gives the noise more than half of the weight: rules that validate, clip or leave out "
        "win over FedAvg; local models do not hear the noise.",
        _with(3, noisy=True, records=3 * RECORDS),
        judged=_HONEST_7,
    ),
    "Byzantine clients": Problem(
        "Two of ten clients send huge updates to wrong labels; scored on the other eight",
        "A mean has a breakdown point of 0: FedAvg is destroyed. Median, trimmed mean, Krum, geometric median and a "
        "bound on the norm keep the model; local models hear nothing of it.",
        _with(2, labels=(1, 2, 3, 0), boost=10.0),
        judged=_HONEST_8,
    ),
    "tiny client": Problem(
        "One of ten clients has four records, the others ten times as many; scored on it",
        "It can learn nothing alone and everything from the others, who are like it: shared models win, and personal "
        "ones only if they hold on to the shared one.",
        _with(1, records=4),
        judged=(CLIENTS - 1,),
    ),
    "odd client": Problem(
        "One of ten clients swaps the names of classes; scored on it",
        "It is outvoted in a shared model. Personal models and weights that look at losses or similarity help it; a "
        "rule for the worst client should not do worse than FedAvg.",
        _with(1, labels=(1, 0, 3, 2)),
        judged=(CLIENTS - 1,),
    ),
    "unequal steps": Problem(
        "Label skew with 1 to 30 local steps, one epoch each; scored on all classes alike",
        "Who takes more steps pulls the mean to its own optimum: normalising by steps wins or ties.",
        _uneven,
        local_epochs=1.0,
    ),
}


class Records(Dataset[Any]):
    """Tensors whose batches are gathered at once."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        at = torch.tensor(indices, dtype=torch.long)
        return tuple(t[at] for t in self.tensors)


class MixtureData(FederatedDataModule):
    """The clients of a problem: features, label and weight of each record.

    The weight multiplies a training record's loss; in held-out data, its share in the score ``own``.

    Args:
        problem: Its name in :data:`PROBLEMS`.
        seed: Of everything.
    """

    simulated = True
    batch_size = BATCH

    def __init__(self, problem: str, seed: int) -> None:
        super().__init__()
        self.problem, self.seed = problem, seed
        self.parts: dict[tuple[str, str], Records] = {}

    def config(self) -> dict[str, Any]:
        return {"problem": self.problem, "seed": self.seed}

    def setup(self, stage: str | None = None) -> None:
        if self.clients:
            return
        made = PROBLEMS[self.problem].clients(self.seed)
        self.clients = [f"client-{i}" for i in range(len(made))]
        basis = torch.linalg.qr(torch.randn(FEATURES, FEATURES, generator=self._generator("centres")))[0]
        centres = RADIUS * basis[: CLASSES * MODES].reshape(CLASSES, MODES, FEATURES)
        for i, (name, client) in enumerate(zip(self.clients, made, strict=True)):
            for split, count in {"train": client.records, **HELD_OUT}.items():
                self.parts[name, split] = self._draw(client, split, count, centres, i)
        self.server = self._draw(made[0], "val", SERVER_RECORDS, centres, -1)

    def _generator(self, purpose: str, *parts: object) -> torch.Generator:
        return seeds.generator(self.seed, purpose, *parts)

    def _draw(self, client: Client, split: str, count: int, centres: Tensor, index: int) -> Records:
        """Training data have the client's own class shares; held-out data have all classes alike."""
        generator = self._generator("records", index, split)
        prior = torch.tensor(client.prior if split == "train" else (1 / CLASSES,) * CLASSES)
        kind = torch.multinomial(prior, count, replacement=True, generator=generator)
        mode = torch.randint(MODES, (count,), generator=generator)
        x = centres[kind, mode] + torch.randn(count, FEATURES, generator=generator)
        if client.shift >= 0:
            own = self._generator("shift", client.shift)
            x = x * torch.exp(0.5 * torch.randn(FEATURES, generator=own)) + 2 * torch.randn(FEATURES, generator=own)
        y = torch.tensor(client.labels)[kind]
        weight = CLASSES * torch.tensor(client.prior)[kind] if split != "train" else torch.full((count,), client.boost)
        if client.noisy and split == "train":
            y = torch.randint(CLASSES, (count,), generator=generator)
        return Records((x, y, weight))

    def dataset(self, clients: str | Sequence[str], split: str) -> Dataset[Any]:
        names = [clients] if isinstance(clients, str) else list(clients)
        columns = zip(*(self.parts[name, split].tensors for name in names), strict=True)
        return Records([torch.cat(column) for column in columns])

    def collate(self, items: Any) -> Any:
        return items

    def server_dataset(self) -> Dataset[Any]:
        return self.server
