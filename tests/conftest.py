"""Shared by all tests: one thread, a time limit, no process left behind, and short ways to a finished run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.register_assert_rewrite("span_answers")


SLOW_TIMEOUT = 1800
"""Seconds that a test marked as slow may take."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """A test that fails, by its time limit for instance, leaves no child running."""
    before = children()
    try:
        return (yield)
    except BaseException:
        for child in children() - before - {getattr(resource_tracker._resource_tracker, "_pid", None)}:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        raise


def children() -> set[int]:
    """Processes that this one has started, of any of its threads; none where the system does not say."""
    out: set[int] = set()
    for found in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            out.update(int(number) for number in found.read_text().split())
    return out


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
