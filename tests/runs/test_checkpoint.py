"""Rounds that last: torn and altered files are found, a full disk costs nothing, a resume goes on from the last."""

from __future__ import annotations

import errno
import json
import os

import pytest
import torch
from safetensors import SafetensorError
from toys import Regression, ToyData, contents

from fedlit import codec, tree
from fedlit.aggregators import FedAvg, FedLA, FedProx, LocalOnly
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import Checkpoints, read
from fedlit.trainer import FederatedTrainer

LAST = "checkpoints/last"


def state(value: float) -> dict:
    return {"params": {"w": torch.full((3,), value)}}


def test_a_committed_round_is_read_back(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert not checkpoints.exists()
    checkpoints.commit(0, state(0.0), {"note": 1})
    checkpoints.commit(1, state(1.0), {"note": 2}, best=True)
    checkpoints.commit(2, state(2.0), {"note": 3})
    committed = checkpoints.read()
    assert (committed.round, committed.meta["note"]) == (2, 3)
    assert tree.equal(committed.state, state(2.0))
    assert tree.equal(checkpoints.read("best").state, state(1.0))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "last", "round-0001", "round-0002"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b + b"\0", lambda b: b""]
)
def test_torn_or_altered_state_is_found(tmp_path, damage):
    Checkpoints(tmp_path).commit(1, state(1.0), {})
    path = tmp_path / "last" / "state.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FedlitError, match=r"state\.safetensors: torn or altered"):
        read(tmp_path / "last")


def test_missing_or_torn_meta_is_found(tmp_path):
    Checkpoints(tmp_path).commit(1, state(1.0), {})
    meta = tmp_path / "last" / "meta.json"
    meta.write_text(meta.read_text()[:-9])
    with pytest.raises(FedlitError, match=r"meta\.json: not JSON"):
        read(tmp_path / "last")
    meta.unlink()
    assert Checkpoints(tmp_path).exists()  # not taken for a run that has not begun
    with pytest.raises(FedlitError, match=r"it has no meta\.json"):
        read(tmp_path / "last")


def full_disk(monkeypatch, name: str, after: int = 0):
    """Writing files whose path holds ``name`` fails as on a full disk, from the ``after``-th on."""
    import builtins

    real, seen = builtins.open, 0

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, data):
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def __getattr__(self, attribute):
            return getattr(self.file, attribute)

    def opened(file, mode="r", *args, **kwargs):
        nonlocal seen
        handle = real(file, mode, *args, **kwargs)
        if name in str(file) and set(mode) & set("wa"):
            seen += 1
            if seen > after:
                return Full(handle)
        return handle

    monkeypatch.setattr(builtins, "open", opened)


@pytest.mark.parametrize("name", ["state.safetensors", "meta.json", "metrics.csv", "ledger.csv"])
def test_a_full_disk_costs_nothing_committed(fit, monkeypatch, tmp_path, name):
    whole = fit(FedLA(fedavg_rounds=1, adapt_rounds=2), max_rounds=3, name="whole")
    with monkeypatch.context() as patch:
        full_disk(patch, name, after=2)  # the start and the first round fit
        with pytest.raises(FedlitError, match=r"No space left.*resume with --ckpt_path last") as error:
            fit(FedLA(fedavg_rounds=1, adapt_rounds=2), max_rounds=3, name="cut")
    assert str(tmp_path / "cut" / "version_0") in str(error.value)
    assert "\n" not in str(error.value)
    assert read(tmp_path / "cut" / "version_0" / LAST).round == 1
    resumed = fit(FedLA(fedavg_rounds=1, adapt_rounds=2), max_rounds=3, name="cut", ckpt_path="last")
    assert contents(resumed.path / LAST) == contents(whole.path / LAST)
    for file in ("metrics.csv", "ledger.csv"):
        assert (resumed.path / file).read_bytes() == (whole.path / file).read_bytes()


def test_a_disk_full_of_memories(fit, monkeypatch, tmp_path):
    full_disk(monkeypatch, "client-00")
    with pytest.raises(FedlitError, match=r"client-00/0000-\w+\.safetensors could not be written \(No space left"):
        fit(LocalOnly())
    assert read(tmp_path / "fedlit" / "version_0" / LAST).round == 0


@pytest.mark.parametrize(
    ("rule", "settings", "field"),
    [
        (FedProx(mu=0.2), {}, r"aggregator\.mu: 0\.1 -> 0\.2"),
        (FedAvg(), {}, r"aggregator\.class: 'FedProx' -> 'FedAvg'"),
        (FedProx(mu=0.1), {"seed": 1}, r"trainer\.seed: 0 -> 1"),
        (FedProx(mu=0.1), {"local_steps": 5}, r"trainer\.local_steps: 2 -> 5"),
        (FedProx(mu=0.1), {"task": {"lr": 0.2}}, r"model\.lr: 0\.1 -> 0\.2"),
        (FedProx(mu=0.1), {"data": {"batch_size": 2}}, r"data\.batch_size: 4 -> 2"),
        (FedProx(mu=0.1), {"clients_per_round": 2}, r"trainer\.clients_per_round"),
        (FedProx(mu=0.1), {"precision": "bf16-mixed"}, r"trainer\.precision"),
    ],
)
def test_another_configuration_is_refused_and_the_field_named(fit, rule, settings, field):
    folder = fit(FedProx(mu=0.1), max_rounds=1)
    before = contents(folder.path / LAST)
    parts = {"task": Regression(**settings.pop("task", {})), "data": ToyData(**settings.pop("data", {}))}
    with pytest.raises(FedlitError, match=field):
        fit(rule, max_rounds=2, ckpt_path="last", **parts, **settings)
    assert contents(folder.path / LAST) == before


def test_resume_extends_a_finished_run(fit):
    whole = fit(FedLA(fedavg_rounds=1), max_rounds=3)
    short = fit(FedLA(fedavg_rounds=1), max_rounds=1)
    longer = fit(FedLA(fedavg_rounds=1), max_rounds=3, ckpt_path=str(short.path))
    assert contents(longer.path / LAST) == contents(whole.path / LAST)
    assert json.loads((longer.path / "summary.json").read_text())["rounds"] == 3
    again = fit(FedLA(fedavg_rounds=1), max_rounds=3, ckpt_path=str(short.path))
    assert contents(again.path / LAST) == contents(whole.path / LAST)
    assert (again.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


def test_nothing_to_resume(fit, tmp_path):
    with pytest.raises(FedlitError, match="no run with a committed round"):
        fit(FedAvg(), ckpt_path="last")
    with pytest.raises(FedlitError, match="not a run folder with a committed round"):
        fit(FedAvg(), ckpt_path=str(tmp_path / "elsewhere"))


def test_a_torn_memory_is_named(fit):
    folder = fit(LocalOnly(), max_rounds=1)
    (path,) = (folder.client_states / "client-01").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FedlitError, match=r"client-01/0000-\w+\.safetensors"):
        fit(LocalOnly(), max_rounds=2, ckpt_path="last")


def test_the_best_round_is_kept(fit):
    folder = fit(FedAvg(), Regression(lr=0.9), max_rounds=6, monitor="val/personal/mse")
    rows = [
        r
        for r in folder.metrics.read()
        if (r["model"], r["metric"], r["client"], r["split"]) == ("personal", "mse", "mean", "val")
    ]
    value = {int(r["round"]): float(r["value"]) for r in rows}
    best = min(value, key=lambda n: value[n])
    assert read(folder.path / "checkpoints" / "best").round == best
    assert read(folder.path / LAST).meta["best"] == value[best]
    assert read(folder.path / LAST).round == 6


def test_the_best_survives_a_resume(fit):
    settings = {"task": Regression(lr=0.9), "monitor": "val/personal/mse"}
    whole = fit(FedAvg(), max_rounds=6, **settings)
    for rounds in (1, 3, 5):
        cut = fit(FedAvg(), max_rounds=rounds, **settings)
        resumed = fit(FedAvg(), max_rounds=6, ckpt_path=str(cut.path), **settings)
        for name in ("best", "last"):
            assert contents(resumed.path / "checkpoints" / name) == contents(whole.path / "checkpoints" / name)


@pytest.mark.parametrize(("rule", "lr"), [(FedAvg(), 0.9), (LocalOnly(), 1.6)])
def test_the_best_round_is_scored_by_its_name_or_its_folder(fit, tmp_path, rule, lr):
    settings = {"task": Regression(lr=lr), "monitor": "val/personal/mse", "max_rounds": 6}
    folder = fit(rule, **settings)
    rows = [r for r in folder.metrics.read() if (r["model"], r["client"], r["metric"]) == ("personal", "mean", "mse")]
    by_round = {int(r["round"]): float(r["value"]) for r in rows if r["split"] == "val"}
    best = min(by_round, key=lambda r: by_round[r])
    assert best < 6, "the last round must not be the best one, or this test sees nothing"
    for path in ("best", str(folder.path / "checkpoints" / "best")):
        trainer = FederatedTrainer(
            rule, local_steps=2, default_root_dir=str(tmp_path), accelerator="cpu", monitor="val/personal/mse",
            enable_progress_bar=False,
        )  # fmt: skip
        scored = trainer.validate(Regression(lr=lr), ToyData(), ckpt_path=path)
        (value,) = [row[6] for row in scored if row[2:4] == ("personal", "mean") and row[5] == "mse"]
        assert value == by_round[best]
    with pytest.raises(FedlitError, match="goes on from its last round"):
        fit(rule, **settings, ckpt_path="best")


def test_limited_evaluation_scores_the_same_clients_at_every_point(fit):
    points = ["start", "after_local", "after_aggregation"]
    folder = fit(FedAvg(), limit_eval_clients=2, evaluate_at=points, max_rounds=1)
    for stage in points:
        scored = {r["client"] for r in folder.metrics.read() if r["stage"] == stage and r["split"] == "val"}
        assert {c for c in scored if c.startswith("client")} == {"client-00", "client-01"}


def test_a_monitor_that_is_not_there_is_refused_with_those_that_are(fit):
    with pytest.raises(FedlitError, match=r"trainer\.monitor: there is no 'val/personal/rmse'.*val/personal/mse"):
        fit(FedAvg(), monitor="val/personal/rmse")
    with pytest.raises(FedlitError, match=r"trainer\.monitor"):
        fit(FedAvg(), monitor="loss")


def test_a_monitor_of_training_or_of_later_rounds(fit):
    folder = fit(FedAvg(), monitor="train/loss", max_rounds=3)
    assert read(folder.path / "checkpoints" / "best").round == 3
    settings = {"evaluate_at": ["after_aggregation"], "check_val_every_n_rounds": 2}
    folder = fit(FedAvg(), monitor="val/global/mse/worst", max_rounds=4, **settings)
    assert read(folder.path / "checkpoints" / "best").round in (2, 4)


def test_a_baseline_without_the_monitored_model_is_run_all_the_same(fit):
    folder = fit(FedAvg(), baselines=[LocalOnly()], monitor="val/global/mse")
    assert (folder.path / "checkpoints" / "best").exists()
    assert (folder.path / "baselines" / "LocalOnly" / "summary.json").exists()


def test_equal_blobs_for_equal_states():
    assert codec.encode(state(1.0)) == codec.encode(tree.clone(state(1.0)))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left on device")]
)
def test_a_disk_that_is_full_when_models_are_exported(fit, error):
    class Exporting(Regression):
        def export(self, folder):
            raise error

    with pytest.raises(FedlitError, match=r"adapters could not be written \(.*No space left.*--ckpt_path last"):
        fit(FedAvg(), task=Exporting())
    Exporting.export = lambda self, folder: None
    assert fit(FedAvg(), task=Exporting(), ckpt_path="last").checkpoints.read().round == 2
