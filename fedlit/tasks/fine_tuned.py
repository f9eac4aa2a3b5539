"""Base of the tasks that fine-tune a pretrained network: adapter, optimizer, export."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from fedlit.backbones.folders import STAND_IN
from fedlit.backbones.lora import LoRA
from fedlit.backbones.rng import keyed_rng
from fedlit.errors import FedlitError
from fedlit.tasks.export_check import adapter_anew, in_float32, outputs, same_outputs, save, staged, untied
from fedlit.tasks.schedules import Course, Interval, Schedule, Span
from fedlit.tasks.task import Task

DEVIATION = 0.02
"""Standard deviation of a head's first weights, as in transformers for BERT and ViT; biases start at 0."""


class FineTuned(Task):
    """A network fine-tuned whole or by LoRA.

    Subclasses set ``network`` and ``_source`` in ``configure_model``. What they train beside the network, such as a
    head, is a module of its own.

    Args:
        backbone: ``"builtin"``, a folder, or a Hub id.
        adapter: LoRA settings; None fine-tunes every parameter.
        learning_rate: Peak learning rate of AdamW, unless ``optimizer`` is given.
        weight_decay: Weight decay of AdamW, unless ``optimizer`` is given.
        schedule: Course of the learning rate: ``"linear"`` or ``"cosine"`` down to ``min_learning_rate``, or
            ``"constant"``.
        warmup: Share of the course over which the learning rate rises linearly from 0, before the schedule.
        optimizer: Makes another optimizer from parameters; in each round a new one.
        seed: Seed of the first values of adapters and head; None: the run's seed, or 0 outside of a federated run.
        gradient_checkpointing: Keep the inputs of each layer alone, and compute its activations again in the backward
            pass: less memory for one more forward pass, and the same gradients.
        schedule_over: ``"round"`` starts the course anew in each round, over its local steps; ``"run"`` goes through it
            once, over the ``trainer.max_rounds`` rounds of the run, whatever stages its rule has.
        schedule_interval: What the learning rate changes after: each ``"step"``, or, over a run, each ``"round"``.
        min_learning_rate: What ``"linear"`` and ``"cosine"`` fall to.
    """

    added_arguments: ClassVar[Mapping[str, Any]] = {
        "warmup": 0.0, "schedule_over": "round", "schedule_interval": "step", "min_learning_rate": 0.0,
    }  # fmt: skip

    def __init__(
        self,
        backbone: str,
        adapter: LoRA | None,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "linear",
        warmup: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        seed: int | None = None,
        gradient_checkpointing: bool = False,
        schedule_over: Span = "round",
        schedule_interval: Interval = "step",
        min_learning_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.adapter = adapter
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.optimizer = optimizer
        self.seed = seed
        self.gradient_checkpointing = gradient_checkpointing
        self.warmup = warmup
        self.schedule_over, self.schedule_interval = schedule_over, schedule_interval
        self.min_learning_rate = min_learning_rate
        self.spans_run = schedule_over == "run" and (schedule != "constant" or warmup > 0)
        course = self._course()
        if min_learning_rate:
            course.check(self._optimizer([nn.Parameter(torch.zeros(1))]))
        self.network: nn.Module | None = None
        self._source = ""
        self._stand_in = False

    def use_stand_in(self) -> None:
        if self.network is not None:
            raise FedlitError("use_stand_in comes before configure_model: the backbone is already loaded")
        self._stand_in = True

    def train(self, mode: bool = True) -> Self:
        """Set the mode. A frozen backbone stays in evaluation mode: the adapters' dropout alone follows ``mode``."""
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
        optimizer = self._optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self.schedule == "constant" and not self.warmup:
            return optimizer
        if self._attached and self.schedule_interval == "round":
            raise FedlitError("model.schedule_interval is 'round', and a lightning.Trainer has none: set it to 'step'")
        scheduler = self._course().scheduler(optimizer, self.num_training_steps, self.current_round, self.num_rounds)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer is not None:
            return self.optimizer(parameters)
        return torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)

    def _course(self) -> Course:
        return Course(self.schedule, self.warmup, self.schedule_over, self.schedule_interval, self.min_learning_rate)

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """Write a PEFT adapter folder, or with ``adapter=None`` the network as ``save_pretrained`` writes it.

        Args:
            folder: Target folder.
            merge: Merge the adapter into a copy of the backbone and write that, as with ``adapter=None``: for rules
                that changed the backbone too. The folder loads as a backbone. It is in float32, also where weights are
                held in bfloat16, which would round most of an adapter away. Layers that are tied to one that has an
                adapter are untied.

        What is written is loaded anew, and compared on a few made-up inputs, before it takes its place.

        Raises:
            FedlitError: It gives other outputs than the model; ``folder`` is left as it was.
        """
        network, what = self.loaded_network(), str(folder)
        with staged(Path(folder)) as place:
            if self.adapter is not None and not merge:
                self.write(place, merge)
                again = adapter_anew(network, place, self.adapter, self.backbone)
                same_outputs(outputs(network, self.probe), outputs(again, self.probe), what)
            else:
                scored = outputs(in_float32(network), self.probe)
                self.write(place, merge)
                same_outputs(scored, outputs(self.whole_anew(place).to(scored.device), self.probe), what)

    def write(self, folder: Path, merge: bool) -> None:
        """Write what :meth:`export` is to write, into a folder that is there; it is checked afterwards."""
        network: Any = self.loaded_network()
        adapted = self.adapter is not None and not merge
        if self.adapter is not None and merge:
            network = copy.deepcopy(network).float()
            untied(network)
            network = network.merge_and_unload()
        save(network, folder, self.backbone, adapted)
        settings = folder / "adapter_config.json"
        if adapted:  # PEFT writes sets in the order of this process's hashes
            ordered = {k: sorted(v) if isinstance(v, list) else v for k, v in json.loads(settings.read_text()).items()}
            settings.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n")

    def whole_anew(self, folder: Path) -> nn.Module:
        """The network of a folder that :meth:`write` wrote whole."""
        raise NotImplementedError

    def probe(self, network: nn.Module) -> Tensor:
        """Outputs of this task's network, or one like it, for a few made-up inputs; a smooth function of weights."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        self.loaded_network()
        parameters = list(self.parameters())
        return {
            "backbone": self.backbone,
            "stand_in": self._stand_in or self.backbone.startswith(STAND_IN),
            "source": self._source,
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trainable": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "adapter": None if self.adapter is None else dataclasses.asdict(self.adapter),
        }

    def config(self) -> dict[str, Any]:
        return {**super().config(), "stand_in": self._stand_in}

    def argument(self, name: str) -> Any:
        if name == "adapter":
            return None if self.adapter is None else dataclasses.asdict(self.adapter)
        if name == "optimizer":
            return self._chosen_optimizer()
        return self.seed or 0 if name == "seed" else super().argument(name)

    def _chosen_optimizer(self) -> dict[str, str] | None:
        """Class and settings of the optimizer that was given."""
        if self.optimizer is None:
            return None
        made = self.optimizer([nn.Parameter(torch.zeros(1))])
        return {"name": type(made).__qualname__, **{k: repr(v) for k, v in made.defaults.items()}}

    def loaded_network(self) -> nn.Module:
        """The network, after ``configure_model``.

        Raises:
            FedlitError: It is not loaded yet.
        """
        if self.network is None:
            raise FedlitError("the backbone is not loaded: call configure_model() first")
        return self.network

    def _fine_tunable(self, network: nn.Module, targets: Callable[[], Sequence[str]]) -> nn.Module:
        """The network with adapters on it or, without ``adapter``, with every parameter trainable."""
        from fedlit.backbones.lora import attach

        if self.adapter is None:
            return network.requires_grad_(True)
        return attach(network, self.adapter, targets(), self.seed or 0, self.backbone)

    def _first_head(self, width: int, rows: int) -> nn.Linear:
        """A linear head with its first values, drawn by ``seed``."""
        with keyed_rng(self.seed or 0, "head"):
            head = nn.Linear(width, rows)
            nn.init.normal_(head.weight, std=DEVIATION)
        nn.init.zeros_(head.bias)
        return head
