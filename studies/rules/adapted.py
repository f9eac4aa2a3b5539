"""The small network that is fine-tuned on the simulated problems: a frozen body, LoRA, norms and a head."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import lightning as L  # noqa: N812
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit import seeds
from studies.rules.problems import CLASSES, FEATURES, LR, MODES, RADIUS, RANK

WIDTH = 32


class Scores(Metric):
    """Per cent of records named right, and the same with the client's own class shares; mean cross-entropy."""

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, y: Tensor, weight: Tensor) -> None:
        right, weight = (logits.argmax(-1) == y).double(), weight.double()
        loss = nn.functional.cross_entropy(logits.double(), y, reduction="sum")
        count = torch.tensor(float(len(y)), dtype=torch.float64)
        self.sums += torch.stack([right.sum(), count, (weight * right).sum(), weight.sum(), loss])

    def compute(self) -> dict[str, Tensor]:
        right, count, weighted, weights, loss = self.sums
        return {"accuracy": 100 * right / count, "own": 100 * weighted / weights, "cross_entropy": loss / count}


def _body() -> nn.ModuleDict:
    return nn.ModuleDict({
        "input_norm": nn.LayerNorm(FEATURES), "first": nn.Linear(FEATURES, WIDTH),
        "second": nn.Linear(WIDTH, WIDTH), "norm": nn.LayerNorm(WIDTH),
    })  # fmt: skip


def _features(body: Any, x: Tensor) -> Tensor:
    hidden = torch.tanh(body["second"](torch.tanh(body["first"](body["input_norm"](x)))))
    out: Tensor = body["norm"](hidden)
    return out


@lru_cache(1)
def pretrained(classes: int = 40, steps: int = 1000) -> dict[str, Tensor]:
    """The body's weights after training on a source task: other classes, the same kind of mixture."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seeds.key("rules.py", "body"))
        body, head = _body(), nn.Linear(WIDTH, classes)
        centres = RADIUS / FEATURES**0.5 * torch.randn(classes, MODES, FEATURES)
        optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3)
        for _ in range(steps):
            y, mode = torch.randint(classes, (128,)), torch.randint(MODES, (128,))
            x = centres[y, mode] + torch.randn(128, FEATURES)
            loss = nn.functional.cross_entropy(head(_features(body, x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: value.detach().clone() for name, value in body.state_dict().items()}


class Adapted(L.LightningModule):
    """The pretrained body with LoRA on its layers; LoRA, norms and head train.

    Args:
        lr: Of plain SGD.
        seed: Of the adapters and the head.
        rank: Of the adapters.
    """

    def __init__(self, lr: float = LR, seed: int = 0, rank: int = RANK) -> None:
        super().__init__()
        self.save_hyperparameters()
        body = _body()
        body.load_state_dict(pretrained())
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["first", "second"])
        generator = seeds.generator(seed, "adapter")
        with torch.random.fork_rng([]):
            network = inject_adapter_in_model(config, body)
            network["head"] = nn.Linear(WIDTH, CLASSES)
        for name, p in network.named_parameters():
            p.requires_grad_(any(part in name for part in ("lora_", "norm", "head")))
            if "lora_A" in name or name == "head.weight":
                p.data.copy_(torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5)
        network["head"].bias.data.zero_()
        self.network = network
        self.val_metrics, self.test_metrics = Scores(), Scores()

    def features(self, batch: Any) -> Tensor:
        return _features(self.network, batch[0])

    def logits(self, batch: Any) -> Tensor:
        out: Tensor = self.network["head"](self.features(batch))
        return out

    def losses(self, batch: Any) -> Tensor:
        return batch[2] * nn.functional.cross_entropy(self.logits(batch), batch[1], reduction="none")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.losses(batch).mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.val_metrics.update(self.logits(batch), *batch[1:])

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.test_metrics.update(self.logits(batch), *batch[1:])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=self.hparams["lr"])
