"""Shared by all tests of the core: one thread, and short ways to a finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.register_assert_rewrite("span_answers")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """``fit(rule, task=..., data=..., **trainer arguments)`` gives the run folder of a finished run."""

    def run(rule: Any, task: Any = None, data: Any = None, ckpt_path: str | None = None, **settings: Any) -> Any:
        from toys import Regression, ToyData

        from fedlit.trainer import FederatedTrainer

        defaults = {"max_rounds": 2, "local_steps": 2, "default_root_dir": str(tmp_path), "accelerator": "cpu",
                    "enable_progress_bar": False}  # fmt: skip
        trainer = FederatedTrainer(rule, **{**defaults, **settings})
        return trainer.fit(
            Regression() if task is None else task, ToyData() if data is None else data, ckpt_path=ckpt_path
        )

    return run


@pytest.fixture
def unrehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For rules that write down how they are called: the calls before the first round are left out."""
    monkeypatch.setattr("fedlit.federation.loop.rehearse", lambda *_: False)
