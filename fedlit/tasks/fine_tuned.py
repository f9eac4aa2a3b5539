"""What tasks on a pretrained network have in common: adapters, optimizer, export."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from pathlib import Path
from typing import Any, Literal, Self

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import nn

from fedlit.backbones.folders import STAND_IN
from fedlit.backbones.lora import LoRA
from fedlit.errors import FedlitError
from fedlit.tasks.task import Task

Schedule = Literal["linear", "cosine", "constant"]


class FineTuned(Task):
    """A network fine-tuned whole or by LoRA.

    Subclasses set ``network`` in ``configure_model``, and ``_source`` with it; what they train beside it, such as a
    head, are modules of their own.

    Args:
        backbone: ``"builtin"``, a folder, or a Hub id.
        adapter: LoRA settings; None fine-tunes every parameter.
        learning_rate: Peak learning rate of AdamW, unless ``optimizer`` is given.
        weight_decay: Of AdamW, unless ``optimizer`` is given.
        schedule: Learning rate over ``num_training_steps``: ``"linear"`` or ``"cosine"`` to 0, or ``"constant"``.
        optimizer: Makes another optimizer from parameters.
        seed: Of first values; None: the run's seed, or 0 outside of a federated run.
        gradient_checkpointing: Keep only what enters each layer, and compute the rest again in the backward pass: less
            memory for one more forward pass, and the same gradients.
        warmup: Share of ``num_training_steps`` over which the learning rate rises linearly from 0, before the schedule.
    """

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None,
        learning_rate: float,
        weight_decay: float,
        schedule: Schedule,
        optimizer: OptimizerCallable | None,
        seed: int | None,
        gradient_checkpointing: bool = False,
        warmup: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise FedlitError(f"model.warmup is {warmup}: give a share of the steps, below 1")
        if schedule not in ("linear", "cosine", "constant"):
            raise FedlitError(f"schedule {schedule!r}: give 'linear', 'cosine' or 'constant'")
        self.backbone = backbone
        self.adapter = adapter
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.optimizer = optimizer
        self.seed = seed
        self.gradient_checkpointing = gradient_checkpointing
        self.warmup = warmup
        self.network: nn.Module | None = None
        self._source = ""
        self._stand_in = False

    def use_stand_in(self) -> None:
        if self.network is not None:
            raise FedlitError("use_stand_in comes before configure_model: the backbone is already loaded")
        self._stand_in = True

    def train(self, mode: bool = True) -> Self:
        """As ever, but a frozen backbone stays in evaluation mode: only the adapters' dropout follows ``mode``."""
        super().train(mode)
        if self.adapter is not None and self.network is not None:
            self.network.eval()
            for name, module in self.network.named_modules():
                if "lora_dropout" in name:
                    module.train(mode)
        if self.gradient_checkpointing and self.network is not None:
            from fedlit.backbones.checkpointing import checkpoint_activations

            checkpoint_activations(self.network, mode)
        return self

    def configure_optimizers(self) -> Any:
        parameters = [one for one in self.parameters() if one.requires_grad]
        if self.optimizer is not None:
            optimizer = self.optimizer(parameters)
        else:
            optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)
        if self.schedule == "constant" and not self.warmup:
            return optimizer
        steps, shape = self.num_training_steps, self.schedule
        rising = math.ceil(self.warmup * steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            left = max(0.0, 1 - (step - rising) / max(1, steps - rising))
            return {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "constant": 1.0}[shape]

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """A PEFT adapter folder, or with ``adapter=None`` the network as ``save_pretrained`` writes it.

        Args:
            folder: Where to.
            merge: Merge the adapter into a copy of the backbone and write that, as with ``adapter=None``: for rules
                that changed the backbone too. It loads as any backbone does, by its folder.
        """
        from fedlit.backbones.folders import quiet

        network: Any = self.loaded_network()
        adapted = self.adapter is not None and not merge
        if self.adapter is not None and merge:
            network = copy.deepcopy(network).merge_and_unload()
        # PEFT's "auto" would ask the Hub for the base model's vocabulary
        options = {"save_embedding_layers": False} if adapted else {}
        with quiet():
            network.save_pretrained(str(folder), **options)
        settings = Path(folder) / "adapter_config.json"
        if adapted:  # PEFT writes sets in the order of this process's hashes
            ordered = {k: sorted(v) if isinstance(v, list) else v for k, v in json.loads(settings.read_text()).items()}
            settings.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")

    def describe(self) -> dict[str, Any]:
        self.loaded_network()
        parameters = list(self.parameters())
        return {
            "backbone": self.backbone,
            "stand_in": self._stand_in or self.backbone.startswith(STAND_IN),
            "source": self._source,
            "parameters": sum(one.numel() for one in parameters),
            "trainable": sum(one.numel() for one in parameters if one.requires_grad),
            "adapter": None if self.adapter is None else dataclasses.asdict(self.adapter),
        }

    def config(self) -> dict[str, Any]:
        chosen: dict[str, Any] | None = None
        if self.optimizer is not None:
            made = self.optimizer([nn.Parameter(torch.zeros(1))])
            chosen = {"name": type(made).__qualname__, **{k: repr(v) for k, v in made.defaults.items()}}
        return {
            "backbone": self.backbone,
            "adapter": None if self.adapter is None else dataclasses.asdict(self.adapter),
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule,
            "optimizer": chosen,
            "seed": self.seed or 0,
            "gradient_checkpointing": self.gradient_checkpointing,
            "stand_in": self._stand_in,
        }

    def loaded_network(self) -> nn.Module:
        """The network.

        Raises:
            FedlitError: It is not loaded yet.
        """
        if self.network is None:
            raise FedlitError("the backbone is not loaded: call configure_model() first")
        return self.network
