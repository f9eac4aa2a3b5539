"""The cells of a sweep, each with its whole configuration, by the parser of ``fedlit fit``."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedlit.errors import FedlitError
from fedlit.sweep.grid import folder_name, label, plain

if TYPE_CHECKING:
    from torchmetrics import Metric

    from fedlit.tasks.task import Task
    from fedlit.trainer import FederatedTrainer

ELSEWHERE = ("name", "default_root_dir", "enable_progress_bar", "logger", "accelerator", "devices", "num_nodes",
             "strategy")  # fmt: skip
"""The trainer's settings that do not change results; they may differ when a sweep goes on."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Args:
        values: Varied settings as text for titles: ``{"aggregator": "FedProx(mu=0.1)"}``.
        seed: Seed of the run.
        folder: The cell's folder within the sweep's; runs are its ``version_N``.
        config: All settings of the run, as ``fedlit fit --config`` reads them.
    """

    values: dict[str, str]
    seed: int
    folder: Path
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """Values and seed in one line."""
        return ", ".join([*(f"{key}={value}" for key, value in self.values.items()), f"seed {self.seed}"])

    @property
    def sha256(self) -> str:
        """Digest of the settings that results depend on."""
        return hashlib.sha256(json.dumps(settings(self.config), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A whole sweep.

    Args:
        folder: ``<default_root_dir>/<name>``.
        keys: Varied settings, in order.
        cells: All cells; seeds of a combination are next to each other.
        metrics: The task's test metrics.
        dropped: Class names of the configuration's baselines, which are not run.
    """

    folder: Path
    keys: tuple[str, ...]
    cells: list[Cell]
    metrics: Metric
    dropped: list[str]


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that results depend on, without :data:`ELSEWHERE`."""
    trainer = {key: value for key, value in config["trainer"].items() if key not in ELSEWHERE}
    return {**{key: value for key, value in config.items() if key != "ckpt_path"}, "trainer": trainer}


def plan(vary: Mapping[str, Sequence[str]], chosen: Sequence[int], options: Sequence[str], name: str | None) -> Plan:
    """Every cell, read by the parser of ``fedlit fit``; the objects of each combination are constructed as a check.

    Args:
        vary: Values of each varied key.
        chosen: Seeds.
        options: Options of ``fedlit fit`` for all cells.
        name: Name of the sweep; None: that of the runs with ``-sweep``.

    Raises:
        FedlitError: An option or value is wrong, or two cells are the same.
    """
    from fedlit import strict_yaml

    cells: list[Cell] = []
    first: tuple[FederatedTrainer, Task] | None = None
    for values in itertools.product(*vary.values()):
        chosen_values = dict(zip(vary, values, strict=True))
        built = _built([*options, *(f"--{key}={plain(value)}" for key, value in chosen_values.items()),
                        f"--seed_everything={chosen[0]}"], chosen_values)  # fmt: skip
        first = first or built
        folder = Path(first[0].default_root_dir) / (name or f"{first[0].name}-sweep")
        shown = {key: label(value) for key, value in chosen_values.items()}
        for seed in chosen:
            here = folder / folder_name(shown, seed)
            config = strict_yaml.load(built[0].config_yaml or "")
            config["seed_everything"] = seed
            config["trainer"] |= {"name": here.name, "default_root_dir": str(folder), "baselines": None}
            name_in_loggers(config["trainer"], folder.name, here.name)
            cells.append(Cell(shown, seed, here, config))
    _check_different(cells)
    assert first is not None
    trainer, task = first
    dropped = [type(rule).__name__ for rule in trainer.baselines]
    return Plan(folder, tuple(vary), cells, task.test_metrics, dropped)


def name_in_loggers(trainer: dict[str, Any], sweep: str, cell: str) -> None:
    """Name a cell in its loggers: W&B has the sweep as group and the cell as run, others that take a name have both.

    Args:
        trainer: The trainer's settings, which are changed.
        sweep: Name of the sweep.
        cell: Name of the cell.
    """
    loggers = trainer.get("logger") or []
    for logger in [loggers] if isinstance(loggers, dict) else loggers:
        arguments = logger.get("init_args", {})
        if logger["class_path"].rsplit(".", 1)[-1] == "WandbLogger":
            arguments["name"] = cell
            (arguments if "group" in arguments else logger.setdefault("dict_kwargs", {}))["group"] = sweep
        elif "name" in arguments:
            arguments["name"] = f"{sweep}/{cell}"


def _built(options: Sequence[str], values: Mapping[str, str]) -> tuple[FederatedTrainer, Task]:
    """Trainer and task of one combination, constructed and not run."""
    from fedlit.cli.app import build, ours_within

    try:
        with _quiet():
            command = build(["fit", *options], run=False)
            return command.trainer, command.model
    except Exception as error:
        ours = ours_within(error)
        if ours is None:
            raise
        where = ", ".join(f"{key}={label(value)}" for key, value in values.items())
        hint = ". Name the class first, as in --data.partition Dirichlet" if " is abstract" in str(ours) else ""
        raise FedlitError(f"no cell was run, since with {where}: {ours}{hint}" if values else str(ours)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's line about the seed, and its warning of arguments that are not those of the process."""
    log = logging.getLogger("lightning.fabric.utilities.seed")
    before = log.level
    log.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
            yield
    finally:
        log.setLevel(before)


def _check_different(cells: Sequence[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        if (other := seen.setdefault(cell.sha256, cell)) is not cell:
            raise FedlitError(f"{other.title} and {cell.title} are the same run: leave one out")
        if (other := seen.setdefault(str(cell.folder), cell)) is not cell:
            raise FedlitError(f"two values read alike, as {other.title}: sweep over one of them under another --name")
