"""Callbacks of both kinds, early stopping, progress and loggers."""

from __future__ import annotations

import io
import json

import pytest
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.callbacks import Callback as LightningCallback
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from toys import Regression, ToyData, contents, memories

from fedlit.aggregators import FedAvg, FedLA, LocalOnly
from fedlit.callbacks import Callback
from fedlit.errors import FedlitError
from fedlit.reports.progress import Progress
from fedlit.runs.checkpoint import read


class Diary(Callback):
    """Writes down what it was told."""

    def __init__(self):
        self.lines = []

    def setup(self, trainer, module, stage):
        self.lines.append(f"setup {stage}")

    def teardown(self, trainer, module, stage):
        self.lines.append(f"teardown {stage}")

    def on_fit_start(self, trainer, module):
        self.lines.append("fit start")

    def on_fit_end(self, trainer, module):
        self.lines.append("fit end")

    def on_train_epoch_start(self, trainer, module):
        self.lines.append(f"epoch start {trainer.current_epoch}")

    def on_validation_end(self, trainer, module):
        self.lines.append(f"validation end {trainer.current_epoch} {'val/personal/mse' in trainer.callback_metrics}")

    def on_train_epoch_end(self, trainer, module):
        self.lines.append(f"epoch end {trainer.current_epoch}")

    def on_run_start(self, trainer, name, rounds, first_round):
        self.lines.append(f"run {name} {rounds} from {first_round}")

    def on_round_start(self, trainer, round, clients):
        self.lines.append(f"round {round} with {len(clients)}")

    def on_client_end(self, trainer, round, client, metrics):
        self.lines.append(f"{client} ended")

    def on_client_refused(self, trainer, round, client, reason):
        self.lines.append(f"{client} refused")

    def on_round_end(self, trainer, round, values):
        self.lines.append(f"round {round} ended, {values['train/refused']:g} refused")

    def on_run_end(self, trainer, name):
        self.lines.append(f"{name} ended")


def test_hooks_come_in_order(fit):
    diary = Diary()
    fit(FedAvg(), Regression(poison="yes"), ToyData(poisoned=2), callbacks=diary, check_val_every_n_rounds=2,
        max_rounds=2)  # fmt: skip
    one = ["client-00 ended", "client-01 ended", "client-02 refused"]
    assert diary.lines == [
        "setup fit", "fit start", "run FedAvg 2 from 0",
        "round 0 with 3", "epoch start 0", *one, "epoch end 0", "round 0 ended, 1 refused",
        "round 1 with 3", "epoch start 1", *one, "validation end 1 True", "epoch end 1", "round 1 ended, 1 refused",
        "FedAvg ended", "fit end", "teardown fit",
    ]  # fmt: skip


def test_a_misspelt_hook_is_refused_when_the_class_is_made():
    with pytest.raises(FedlitError, match=r"Mine\.on_rounds_end is not a hook.*on_round_end"):
        type("Mine", (Callback,), {"on_rounds_end": lambda self: None})
    with pytest.raises(FedlitError, match="on_train_batch_end"):
        type("Mine", (Callback,), {"on_train_batch_end": lambda self: None})


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lightning_callbacks.ModelCheckpoint, "set trainer.monitor"),
        (lightning_callbacks.LearningRateMonitor, "on_train_batch_start"),
        (lightning_callbacks.Timer, "on_train_batch_end"),
        (type("Saving", (LightningCallback,), {"on_save_checkpoint": lambda *a: None}), "on_save_checkpoint"),
        (type("Batches", (LightningCallback,), {"on_after_backward": lambda *a: None}), "on_after_backward"),
    ],
    ids=["checkpoint", "learning rate", "timer", "saving", "backward"],
)
def test_callbacks_that_wait_for_what_never_comes_are_refused(fit, callback, message):
    with pytest.raises(FedlitError, match=message):
        fit(FedAvg(), callbacks=[callback()])


def stopping(**arguments) -> EarlyStopping:
    return EarlyStopping("val/personal/mse", **{"patience": 1, "min_delta": 0.05, **arguments})


def test_early_stopping_stops_and_a_resume_stops_at_the_same_round(fit):
    settings = {"task": Regression(lr=0.3), "max_rounds": 30}
    whole = fit(FedAvg(), callbacks=stopping(), **settings)
    stopped = read(whole.path / "checkpoints/last").round
    assert 2 < stopped < 30
    for rounds in (1, stopped - 1):
        cut = fit(FedAvg(), callbacks=stopping(), **{**settings, "max_rounds": rounds})
        resumed = fit(FedAvg(), callbacks=stopping(), ckpt_path=str(cut.path), **settings)
        assert contents(resumed.path / "checkpoints/last") == contents(whole.path / "checkpoints/last")
    again = fit(FedAvg(), callbacks=stopping(), ckpt_path=str(whole.path), **settings)
    assert read(again.path / "checkpoints/last").round == stopped


def test_early_stopping_with_rare_evaluation(fit):
    folder = fit(FedAvg(), Regression(lr=0.3), callbacks=stopping(), max_rounds=40, check_val_every_n_rounds=3)
    assert read(folder.path / "checkpoints/last").round % 3 == 0
    assert read(folder.path / "checkpoints/last").round < 40


def test_early_stopping_starts_afresh_for_each_baseline(fit):
    settings = {"task": Regression(lr=0.3), "max_rounds": 30}
    alone = fit(LocalOnly(), callbacks=stopping(), **settings)
    both = fit(FedAvg(), baselines=[LocalOnly()], callbacks=stopping(), **settings)
    assert memories(both.path / "baselines" / "LocalOnly") == memories(alone) != {}


def test_states_find_their_callback_in_any_order(fit):
    a, b = stopping(), EarlyStopping("train/loss", patience=50)
    cut = fit(FedAvg(), callbacks=[a, b], max_rounds=2)
    fresh_a, fresh_b = stopping(), EarlyStopping("train/loss", patience=50)
    fit(FedAvg(), callbacks=[fresh_b, fresh_a], max_rounds=2, ckpt_path=str(cut.path))
    assert fresh_a.best_score.item() == pytest.approx(a.best_score.item())
    assert fresh_b.best_score.item() == pytest.approx(b.best_score.item())


def test_progress_is_plain_lines_where_there_is_no_terminal(fit):
    out = io.StringIO()
    fit(FedLA(fedavg_rounds=1), Regression(poison="yes"), ToyData(poisoned=0),
        callbacks=Progress(Console(file=out, width=200)), max_rounds=2)  # fmt: skip
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert "FedLA: round 1/2  loss " in text
    assert "FedLA: round 2/2" in text
    assert "MB" in text
    assert "s left" in text
    assert "round 1: client-00 refused" in text


def test_progress_is_bars_in_a_terminal_and_ends_with_an_error(fit):
    out = io.StringIO()
    bars = Progress(Console(file=out, width=200, force_terminal=True))
    fit(FedAvg(), callbacks=bars, max_rounds=2)
    assert "\x1b" in out.getvalue()
    assert bars._bars is None

    class Broken(Callback):
        def on_round_end(self, trainer, round, values):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(FedAvg(), callbacks=[bars, Broken()], max_rounds=2)
    assert bars._bars is None


def test_tensorboard_writes_files_and_csv_always_does(fit, tmp_path):
    folder = fit(FedAvg(), logger=TensorBoardLogger(str(tmp_path / "tensorboard")))
    assert list((tmp_path / "tensorboard").rglob("events.out.tfevents*"))
    assert (folder.path / "metrics.csv").exists()


def test_wandb_offline_writes_files_without_an_account(fit, tmp_path, monkeypatch):
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    folder = fit(FedAvg(), logger=WandbLogger(project="fedlit", offline=True, save_dir=str(tmp_path)))
    assert list(tmp_path.rglob("*.wandb"))
    assert (folder.path / "metrics.csv").exists()


def test_a_logger_is_told_the_summary_figures_of_each_round(fit):
    from lightning.pytorch.loggers.logger import DummyLogger

    class Recorder(DummyLogger):
        def __init__(self):
            super().__init__()
            self.rows = []

        def log_metrics(self, metrics, step=None):
            self.rows.append((step, dict(metrics)))

    recorder = Recorder()
    folder = fit(FedAvg(), logger=recorder, baselines=[LocalOnly()])
    theirs = [row for row in recorder.rows if all(n.startswith("baselines/LocalOnly/") for n in row[1])]
    recorder.rows = [row for row in recorder.rows if not any(n.startswith("baselines/") for n in row[1])]
    assert [step for step, _ in theirs] == [0, 1, 2, 2]
    steps = [step for step, _ in recorder.rows]
    assert steps == [0, 1, 2, 2]
    assert {"val/personal/mse", "val/global/mse/worst", "train/loss", "train/bytes"} <= recorder.rows[1][1].keys()
    rows = {
        r["client"]: r for r in folder.metrics.read() if (r["round"], r["model"], r["metric"]) == ("1", "global", "mse")
    }
    assert recorder.rows[1][1]["val/global/mse"] == float(rows["mean"]["value"])
    assert recorder.rows[1][1]["train/bytes"] == sum(int(r["bytes"]) for r in folder.ledger.read() if r["round"] == "1")
    assert json.loads((folder.path / "summary.json").read_text())["bytes"]["up"] > 0


class Adding(Callback):
    """Adds a figure to each round, made of those that are there."""

    def __init__(self, name="loss_squared"):
        self.name = name

    def on_before_commit(self, trainer, round, values):  # noqa: A002
        return {self.name: values["train/loss"] ** 2}


def test_a_callback_adds_figures_before_the_commit(fit):
    from lightning.pytorch.loggers.logger import DummyLogger

    class Recorder(DummyLogger):
        seen: list = []

        def log_metrics(self, metrics, step=None):
            self.seen.append((step, dict(metrics)))

    recorder = Recorder()
    folder = fit(
        FedAvg(), callbacks=[Adding()], logger=recorder, max_rounds=3, monitor="train/loss_squared",
        check_val_every_n_rounds=3, evaluate_at=["after_aggregation"],
    )  # fmt: skip
    rows = [r for r in folder.metrics.read() if r["metric"] == "loss_squared"]
    assert [(r["round"], r["client"], r["split"], r["num_examples"]) for r in rows] == [
        ("1", "server", "train", "0"), ("2", "server", "train", "0"), ("3", "server", "train", "0"),
    ]  # fmt: skip
    logged = {step: m for step, m in recorder.seen if "train/loss_squared" in m}
    assert [logged[n]["train/loss_squared"] for n in (1, 2, 3)] == [float(r["value"]) for r in rows]
    assert logged[1]["train/loss_squared"] == logged[1]["train/loss"] ** 2
    assert read(folder.path / "checkpoints" / "best").round == 3


def test_figures_of_a_callback_are_the_same_after_a_resume_and_may_not_take_a_name(fit):
    whole, cut = (fit(FedAvg(), callbacks=[Adding()], max_rounds=n) for n in (4, 2))
    resumed = fit(FedAvg(), callbacks=[Adding()], max_rounds=4, ckpt_path=str(cut.path))
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()
    with pytest.raises(FedlitError, match="Adding logs 'loss', which is a figure of the trainer's own"):
        fit(FedAvg(), callbacks=[Adding("loss")])
