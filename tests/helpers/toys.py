"""Tiny tasks and data for tests of the core: regressions that a person can solve by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L  # noqa: N812
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, TensorDataset
from torchmetrics import Metric

from fedlit import codec, tree
from fedlit.data import FederatedDataModule
from fedlit.runs.checkpoint import read
from fedlit.runs.folder import RunFolder


class Errors(Metric):
    """Mean squared and mean absolute error."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, guess: Tensor, target: Tensor) -> None:
        error = (guess - target).double()
        self.sums += torch.stack([error.square().sum(), error.abs().sum(), torch.tensor(float(error.numel()))]).double()

    def compute(self) -> dict[str, Tensor]:
        return {"mse": self.sums[0] / self.sums[2], "mae": self.sums[1] / self.sums[2]}


class Regression(L.LightningModule):
    """Linear regression, or with ``hidden`` units a network of one hidden layer."""

    def __init__(
        self,
        features: int = 3,
        hidden: int = 0,
        lr: float = 0.1,
        optimizer: str = "sgd",
        weight_decay: float = 0.0,
        linear_schedule: bool = False,
        dropout: float = 0.0,
        dtype: str = "float32",
        poison: str | None = None,
        seed: int = 7,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        kind = getattr(torch, dtype)
        layers: list[nn.Module] = [nn.Linear(features, 1, dtype=kind)]
        if hidden:
            layers = [nn.Linear(features, hidden, dtype=kind), nn.Tanh(), nn.Dropout(dropout)]
            layers += [nn.Linear(hidden, 1, dtype=kind)]
        self.net = nn.Sequential(*layers)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.net.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2)
        self.val_metrics, self.test_metrics = Errors(), Errors()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[..., 0]

    def losses(self, batch: Any) -> Tensor:
        x, y = batch
        return (self(x) - y).square() / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.losses(batch).mean()
        # A client whose targets start with the poison value makes the loss NaN.
        return loss * float("nan") if self.hparams.poison and bool((batch[1] > 1e6).any()) else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_metrics.update(self(batch[0]), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.test_metrics.update(self(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        h = self.hparams
        kind = torch.optim.AdamW if h.optimizer == "adamw" else torch.optim.SGD
        optimizer = kind(self.parameters(), lr=h.lr, weight_decay=h.weight_decay)
        if not h.linear_schedule:
            return optimizer
        steps = self.num_training_steps
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def use_stand_in(self) -> None:
        """It is as small as it gets."""


class Right(Metric):
    """Accuracy and mean cross-entropy."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        loss = nn.functional.cross_entropy(logits.double(), target, reduction="sum")
        self.sums += torch.stack([(logits.argmax(-1) == target).sum(), loss, torch.tensor(float(len(target)))]).double()

    def compute(self) -> dict[str, Tensor]:
        return {"accuracy": self.sums[0] / self.sums[2], "cross_entropy": self.sums[1] / self.sums[2]}


class Classifier(L.LightningModule):
    """Two layers, a normalisation and a head; with ``rank``, PEFT's LoRA on the layers, and the head trains whole.

    Parameters end in ``first.weight``, ``second.bias``, ``norm.weight``, ``head.weight``, and with a rank
    ``first.lora_A.default.weight`` and so on.
    """

    def __init__(
        self, features: int = 4, classes: int = 3, width: int = 6, rank: int = 0, alpha: float = 4.0,
        use_rslora: bool = False, train_head: bool = True, lr: float = 0.1, optimizer: str = "sgd",
        dtype: str = "float32", seed: int = 7,
    ) -> None:  # fmt: skip
        super().__init__()
        self.save_hyperparameters()
        kind = getattr(torch, dtype)
        network = nn.ModuleDict({
            "first": nn.Linear(features, width, dtype=kind), "second": nn.Linear(width, width, dtype=kind),
            "norm": nn.LayerNorm(width, dtype=kind), "head": nn.Linear(width, classes, dtype=kind),
        })  # fmt: skip
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, p in network.named_parameters():
                if "norm" not in name:
                    p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / p.shape[-1] ** 0.5)
        if rank:
            from peft import LoraConfig, inject_adapter_in_model

            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["first", "second"], use_rslora=use_rslora)
            network = inject_adapter_in_model(config, network).to(kind)
            for name, p in network.named_parameters():
                p.requires_grad_("lora_" in name or (train_head and "head" in name))
                if "lora_A" in name:
                    p.data.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
        self.network = network
        self.val_metrics, self.test_metrics = Right(), Right()

    def features(self, batch: Any) -> Tensor:
        n = self.network
        return n["norm"](torch.tanh(n["second"](torch.tanh(n["first"](batch[0])))))

    def logits(self, batch: Any) -> Tensor:
        return self.network["head"](self.features(batch))

    def losses(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self.logits(batch), batch[1], reduction="none")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.losses(batch).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_metrics.update(self.logits(batch), batch[1])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.test_metrics.update(self.logits(batch), batch[1])

    def configure_optimizers(self) -> Any:
        kind = torch.optim.AdamW if self.hparams.optimizer == "adamw" else torch.optim.SGD
        return kind([p for p in self.parameters() if p.requires_grad], lr=self.hparams.lr)

    def use_stand_in(self) -> None:
        """It is as small as it gets."""


class ToyData(FederatedDataModule):
    """Clients whose targets are linear in the features, each with its own coefficients.

    Args:
        num_clients: How many.
        examples: Training examples of the first client; client i has i more.
        features: Number of features.
        batch_size: Examples in a batch; 0 for one batch with all of a client's examples.
        spread: How far coefficients differ between clients.
        noise: Standard deviation of the noise of the targets.
        poisoned: Index of a client whose targets are absurd, or -1.
        server: Whether the server has examples of its own.
        dtype: Of features and targets.
        seed: Of everything.
        classes: For :class:`Classifier`: as many classes, cut at quantiles of the target.
    """

    def __init__(
        self,
        num_clients: int = 3,
        examples: int = 10,
        features: int = 3,
        batch_size: int = 4,
        spread: float = 1.0,
        noise: float = 0.1,
        poisoned: int = -1,
        server: bool = False,
        dtype: str = "float32",
        seed: int = 0,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.batch_size = batch_size or 10**6
        self.arguments = {"num_clients": num_clients, "examples": examples, "features": features, "spread": spread}
        self.num_clients, self.examples, self.features, self.spread = num_clients, examples, features, spread
        self.noise, self.poisoned, self.server, self.seed, self.dtype = noise, poisoned, server, seed, dtype
        self.simulated = True
        self.parts: dict[tuple[str, str], Dataset[Any]] = {}

    def config(self) -> dict[str, Any]:
        return {**self.arguments, "batch_size": self.batch_size, "noise": self.noise, "seed": self.seed}

    def setup(self, stage: str | None = None) -> None:
        if self.clients:
            return
        self.clients = [f"client-{i:02d}" for i in range(self.num_clients)]
        shared = torch.randn(self.features, generator=self._generator(-1), dtype=torch.float64)
        for i, client in enumerate(self.clients):
            generator = self._generator(i)
            truth = shared + self.spread * torch.randn(self.features, generator=generator, dtype=torch.float64)
            for split, count in (("train", self.examples + i), ("val", 5), ("test", 6)):
                x = torch.randn(count, self.features, generator=generator, dtype=torch.float64)
                y = x @ truth + self.noise * torch.randn(count, generator=generator, dtype=torch.float64)
                if i == self.poisoned and split == "train":
                    y = y + 1e7
                kind = getattr(torch, self.dtype)
                if self.classes:
                    edges = torch.distributions.Normal(0.0, float(truth.norm())).icdf(
                        torch.arange(1, self.classes) / self.classes
                    )
                    y = torch.bucketize(y, edges.double())
                self.parts[client, split] = TensorDataset(x.to(kind), y if self.classes else y.to(kind))

    def _generator(self, i: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self.seed + i + 1)

    def dataset(self, clients: str | Sequence[str], split: str) -> Dataset[Any]:
        names = [clients] if isinstance(clients, str) else list(clients)
        parts = [self.parts[name, split] for name in names]
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)

    def server_dataset(self) -> Dataset[Any] | None:
        return self.parts[self.clients[0], "val"] if self.server else None

    def use_stand_in(self, folder: Path) -> None:
        (folder / "made").touch()


class GivenData(FederatedDataModule):
    """Clients with the tensors that a test gives: ``{client: (x, y)}``, the same for every split."""

    def __init__(self, given: dict[str, tuple[Tensor, Tensor]], batch_size: int = 10**6) -> None:
        super().__init__()
        self.given, self.batch_size = given, batch_size

    def setup(self, stage: str | None = None) -> None:
        self.clients = sorted(self.given)

    def dataset(self, clients: str | Sequence[str], split: str) -> Dataset[Any]:
        names = [clients] if isinstance(clients, str) else clients
        parts = [TensorDataset(*self.given[name]) for name in names]
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, links followed, by its relative path."""
    folder = folder.resolve()
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def memories(folder: Any, name: str = "last") -> dict[str, bytes]:
    """What each client keeps as of a committed round, by ``<client>.safetensors``."""
    run = RunFolder(getattr(folder, "path", folder))
    run.states.restore(run.checkpoints.read(name).meta)
    named = sorted(run.states.names.items())
    return {f"{c}.safetensors": (run.client_states / c / f"{n}.safetensors").read_bytes() for c, n in named}


def last(folder: Any) -> tuple[Any, dict[str, Any]]:
    """State and client memories of a run's last round."""
    memory = memories(folder)
    kept = {name.removesuffix(".safetensors"): codec.decode(blob)[0] for name, blob in memory.items()}
    return read(folder.path / "checkpoints" / "last").state, kept


def close(a: Any, b: Any) -> bool:
    """Whether two trees have the same names, and values to 1e-12; fails with the difference where they have not."""
    a, b = tree.flatten(a), tree.flatten(b)
    assert a.keys() == b.keys()
    for path, leaf in a.items():
        torch.testing.assert_close(leaf, b[path], rtol=1e-12, atol=1e-12)
    return True
