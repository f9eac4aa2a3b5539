"""The serial engine against hand-written loops, bit for bit, and what it refuses."""

from __future__ import annotations

import random

import lightning as L  # noqa: N812
import numpy as np
import pytest
import torch
from lightning.fabric.plugins import MixedPrecision
from torch import nn
from toys import Errors, Regression, ToyData

from fedlit import tree
from fedlit.aggregators import FedAvg, FedProx, LocalOnly
from fedlit.engine.engine import Assignment
from fedlit.engine.serial import SerialEngine
from fedlit.errors import FedlitError
from fedlit.runs.checkpoint import read


def fabric(precision: str = "32-true") -> L.Fabric:
    return L.Fabric(accelerator="cpu", devices=1, precision=precision)


def batches(count: int, size: int = 4, features: int = 3, dtype=torch.float32, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(size, features, generator=generator).to(dtype), torch.randn(size, generator=generator).to(dtype)]
        for _ in range(count)
    ]


def train(task, data, rule=None, engine=None, clip=None, seed=0, memory=None, precision="32-true", down=None):
    engine = engine or SerialEngine(task, fabric(precision), clip)
    down = engine.initial() if down is None else down
    work = Assignment(down, {} if memory is None else memory, data, len(data), seed)
    return engine.train(rule or FedAvg(), [work], 4)[0]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_same_bits_as_a_plain_loop(optimizer, clip):
    arguments = {"hidden": 5, "optimizer": optimizer, "weight_decay": 0.1, "linear_schedule": True}
    task, plain, data = Regression(**arguments), Regression(**arguments), batches(6)
    kind = torch.optim.AdamW if optimizer == "adamw" else torch.optim.SGD
    steps = kind(plain.net.parameters(), lr=0.1, weight_decay=0.1)
    decay = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: 1 - step / 6)
    for batch in data:
        steps.zero_grad()
        plain.losses(batch).mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(plain.net.parameters(), clip)
        steps.step()
        decay.step()
    # What clients receive is sorted by name, another order than the network's: it must not show in the clipping.
    engine = SerialEngine(task, fabric(), clip)
    trained = train(task, data, engine=engine, down=tree.ordered(engine.initial()))
    assert tree.equal(trained.model, {n: p.detach() for n, p in plain.named_parameters()})
    assert float(trained.work.steps) == 6
    assert float(trained.work.examples) == 24
    assert float(trained.work.travel) == pytest.approx(0.1 * (1 + 5 / 6 + 4 / 6 + 3 / 6 + 2 / 6 + 1 / 6))


def test_the_loss_reported_is_the_mean_of_the_objective():
    task, data = Regression(), batches(1)
    expected = float(task.losses(data[0]).mean().detach())
    assert train(task, data).loss == pytest.approx(expected, rel=1e-6)


class Grouped(Regression):
    """Two groups with learning rates and decays of their own."""

    def configure_optimizers(self):
        first, last = self.net[0], self.net[3]
        groups = [{"params": first.parameters(), "lr": 0.0}, {"params": last.parameters(), "lr": 0.1, "momentum": 0.9}]
        return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("rule", [FedAvg(), FedProx(mu=0.5)], ids=lambda r: type(r).__name__)
def test_parameter_groups_are_kept(rule):
    task = Grouped(hidden=4)
    engine = SerialEngine(task, fabric())
    before = engine.initial()
    trained = train(task, batches(3), rule, engine).model
    for name in before:
        assert torch.equal(trained[name], before[name]) is name.startswith("net.0"), name


def test_leaves_without_a_parameter_join_the_first_group_and_copies_their_own():
    class Two(FedAvg):
        def start(self, down, memory):
            return {"a": down, "b": tree.clone(down), "extra": torch.tensor(1.0)}

        def objective(self, loss, w, down, memory):
            return loss(w["a"]) + loss(w["b"]) + w["extra"] ** 2

        def finish(self, w, down, memory, work):
            return w, memory

    task = Grouped(hidden=4)
    engine = SerialEngine(task, fabric())
    before = engine.initial()
    w = train(task, batches(3), Two(), engine).model
    assert w["extra"] == 1  # the first group's learning rate is 0
    for name in before:
        assert torch.equal(w["a"][name], w["b"][name])
        assert torch.equal(w["b"][name], before[name]) is name.startswith("net.0"), name


def test_clients_do_not_know_of_the_ones_before_them():
    arguments = {"hidden": 4, "optimizer": "adamw", "dropout": 0.5}
    one, two = batches(3, seed=1), batches(5, seed=2)
    task = Regression(**arguments)
    engine = SerialEngine(task, fabric())
    fresh = SerialEngine(Regression(**arguments), fabric())
    down = engine.initial()
    first = engine.train(FedAvg(), [Assignment(down, {}, one, 3, 11)], 4)[0]
    engine.evaluate([first.model], [two], "val", 4)
    second = engine.train(FedAvg(), [Assignment(down, {}, two, 5, 22)], 4)[0]
    alone = fresh.train(FedAvg(), [Assignment(down, {}, two, 5, 22)], 4)[0]
    assert tree.equal(second.model, alone.model)
    assert tree.equal(engine.initial(), down)


def test_dropout_is_keyed_by_the_seed():
    arguments = {"hidden": 8, "dropout": 0.5}
    runs = [train(Regression(**arguments), batches(3), seed=s).model for s in (1, 1, 2)]
    assert tree.equal(runs[0], runs[1])
    assert not tree.equal(runs[0], runs[2])


def test_evaluation_has_no_dropout_and_keeps_the_network_as_loaded():
    task = Regression(hidden=8, dropout=0.5)
    engine, data = SerialEngine(task, fabric()), batches(2)
    scores = [engine.evaluate([engine.initial()], [data], "val", 4)[0] for _ in range(2)]
    assert scores[0] == scores[1]
    x, y = torch.cat([b[0] for b in data]), torch.cat([b[1] for b in data])
    task.eval()
    assert scores[0]["mse"] == pytest.approx(float((task(x) - y).square().mean().detach()), rel=1e-5)


def test_global_generators_are_left_alone(fit):
    task = Regression(hidden=4, dropout=0.5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fit(FedProx(), task, evaluate_at=["start", "after_local", "after_aggregation"])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_a_result_does_not_depend_on_the_global_generator(fit):
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        folder = fit(FedAvg(), Regression(hidden=4, dropout=0.5))
        runs.append((folder.path / "checkpoints" / "last" / "state.safetensors").read_bytes())
    assert runs[0] == runs[1]


def test_the_task_is_left_as_it_came(fit):
    task, data = Regression(hidden=4), ToyData()
    before = tree.clone(dict(task.named_parameters()))
    states = [read(fit(LocalOnly(), task, data).path / "checkpoints" / "last" / "") for _ in range(2)]
    assert tree.equal(dict(task.named_parameters()), before)
    assert tree.equal(states[0].state, states[1].state)


class Spy(Regression):
    """Notes the dtype that its first layer gives in training and evaluation."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.dtypes = set()
        self.net[0].register_forward_hook(lambda module, inputs, output: self.dtypes.add((self.training, output.dtype)))


@pytest.mark.parametrize("rule", [FedAvg(), FedProx(mu=0.5)], ids=lambda r: type(r).__name__)
def test_bf16_mixed_runs_in_bf16(fit, rule):
    task = Spy(hidden=4)
    folder = fit(rule, task, precision="bf16-mixed")
    assert task.dtypes == {(True, torch.bfloat16), (False, torch.bfloat16)}
    state = read(folder.path / "checkpoints" / "last").state["params"]
    assert {p.dtype for p in state.values()} == {torch.float32}
    full = read(fit(rule, Regression(hidden=4)).path / "checkpoints" / "last").state["params"]
    assert not tree.equal(state, full)
    torch.testing.assert_close(state, full, rtol=0.1, atol=3e-2)


def test_16_mixed_is_refused_on_a_cpu(fit):
    with pytest.raises(FedlitError, match="16-mixed needs a GPU"):
        fit(FedAvg(), precision="16-mixed")


def scaled_engine(device: str) -> SerialEngine:
    """With a gradient scaler; PyTorch has one for CPUs too, which shows the same faults without a GPU."""
    on = L.Fabric(accelerator="cpu" if device == "cpu" else "gpu", devices=1)
    on._strategy.precision = on._precision = MixedPrecision(
        "16-mixed", device, torch.amp.GradScaler(device, growth_interval=2)
    )
    return SerialEngine(Regression(hidden=4), on)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_scale_does_not_pass_from_one_client_to_the_next(device):
    def run(before: bool):
        engine = scaled_engine(device)
        assert engine.scaler is not None
        if before:  # overflows, so that the scale is halved at every step
            wild = [[x * 1e4, y * 1e4] for x, y in batches(6, seed=5)]
            engine.train(FedAvg(), [Assignment(engine.initial(), {}, wild, 6, 1)], 4)
            assert engine.scaler.get_scale() < 2**16
        return engine.train(FedAvg(), [Assignment(engine.initial(), {}, batches(5), 5, 2)], 4)[0].upload

    assert tree.equal(run(False), run(True))


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "transformer-engine", "8"])
def test_other_precisions_are_refused(fit, precision):
    with pytest.raises(FedlitError, match=r"trainer\.precision"):
        fit(FedAvg(), precision=precision)


def overriding(name: str, function=lambda self, *a, **k: None):
    return type("Task", (Regression,), {name: function})


@pytest.mark.parametrize(
    "hook",
    [
        "on_train_batch_end",
        "on_train_start",
        "on_before_zero_grad",
        "on_after_backward",
        "configure_gradient_clipping",
        "configure_callbacks",
        "optimizer_step",
        "lr_scheduler_step",
        "backward",
        "on_fit_start",
        "prepare_data",
        "transfer_batch_to_device",
        "on_train_epoch_end",
        "optimizer_zero_grad",
        "on_after_batch_transfer",
    ],
)
def test_hooks_that_never_come_are_refused(hook):
    with pytest.raises(FedlitError, match=hook):
        SerialEngine(overriding(hook)(), fabric())


def test_setup_and_configure_model_are_called(fit):
    called = []
    task = type(
        "Task",
        (Regression,),
        {
            "setup": lambda self, stage: called.append(stage),
            "configure_model": lambda self: called.append("model"),
            "on_validation_epoch_end": lambda self: called.append("never"),
        },
    )()
    fit(FedAvg(), task)
    assert called == ["fit", "model"]


def manual(self):
    Regression.__init__(self)
    self.automatic_optimization = False


def with_norm(layer):
    def init(self):
        Regression.__init__(self, hidden=4)
        self.norm = layer

    return init


def two_optimizers(self):
    return [torch.optim.SGD(self.parameters(), lr=1.0), torch.optim.SGD(self.parameters(), lr=1.0)]


def by_epoch(self):
    optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
    return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}


def frozen(self):
    Regression.__init__(self)
    self.requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("__init__", manual, "optimizes by hand"),
        ("__init__", with_norm(nn.BatchNorm1d(4)), "norm keeps running statistics"),
        ("__init__", with_norm(nn.InstanceNorm1d(4, track_running_stats=True)), "norm keeps running statistics"),
        ("__init__", frozen, "nothing in Task requires a gradient"),
        ("configure_optimizers", two_optimizers, "2 optimizers"),
        ("training_step", lambda self, batch, i: None, "must return the loss"),
    ],
    ids=["manual", "batch norm", "instance norm", "frozen", "two optimizers", "no loss"],
)
def test_tasks_that_cannot_be_trained_here_are_refused(fit, name, function, message):
    with pytest.raises(FedlitError, match=message):
        fit(FedAvg(), overriding(name, function)())


def test_schedules_by_epoch_are_refused(fit):
    class Task(Regression):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), "interval": "epoch"}]

    with pytest.raises(FedlitError, match="per epoch"):
        fit(FedAvg(), Task())


def test_norms_without_running_statistics_are_welcome():
    SerialEngine(overriding("__init__", with_norm(nn.LayerNorm(4)))(), fabric())


def test_a_task_without_metrics_is_refused():
    class Bare(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

    with pytest.raises(FedlitError, match="val_metrics"):
        SerialEngine(Bare(), fabric())


def test_training_step_may_return_a_dict():
    class Task(Regression):
        def training_step(self, batch, batch_idx):
            return {"loss": super().training_step(batch, batch_idx), "more": 1}

    assert tree.equal(train(Task(), batches(2)).model, train(Regression(), batches(2)).model)


def test_metrics_are_reset_between_clients():
    engine = SerialEngine(Regression(), fabric())
    alone = engine.evaluate([engine.initial()], [batches(1, seed=4)], "test", 4)
    engine.evaluate([engine.initial()], [batches(1, seed=5)], "test", 4)
    assert engine.evaluate([engine.initial()], [batches(1, seed=4)], "test", 4) == alone
    assert Errors.higher_is_better is False
