"""Several clients trained at once, against the serial engine: optimizers, schedules, clipping, dropout, rules."""

from __future__ import annotations

import math

import pytest
import torch
from toys import Regression
from vectorized_cases import (
    OPTIMIZERS,
    SIZES,
    UNEQUAL,
    Tuned,
    assert_alike,
    assert_serial,
    batches,
    both,
    distance,
    engine,
    work_of,
)

from fedlit import tree
from fedlit.aggregators import Ditto, FedAvg, FedProx, PerFedAvg, QFedAvg
from fedlit.engine.vectorized.engine import VectorizedEngine


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    done = both(lambda: Tuned(OPTIMIZERS[name], schedule=True), batches(UNEQUAL))
    assert_alike(done)
    assert [float(one.work.steps) for one in done.joint] == [3, 1, 5, 2]
    assert [float(one.work.examples) for one in done.joint] == [10, 4, 16, 6]


@pytest.mark.parametrize("rule", [FedProx(mu=0.7), QFedAvg(), Ditto()], ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
def test_clients_that_end_earlier_do_not_move_any_more(rule, optimizer):
    done = both(lambda: Tuned(OPTIMIZERS[optimizer], schedule=True), batches(UNEQUAL), rule)
    assert_alike(done)
    short = both(lambda: Tuned(OPTIMIZERS[optimizer], schedule=True), batches(UNEQUAL[1::2]), rule)
    assert_alike(short)


def test_each_client_has_a_schedule_of_its_own():
    done = both(lambda: Tuned(OPTIMIZERS["sgd"], schedule=True), batches(((4,) * 2, (4,) * 4)))
    assert_alike(done)
    assert [float(one.work.travel) for one in done.joint] == pytest.approx([0.1 * 1.5, 0.1 * 2.5])


@pytest.mark.parametrize("clip", [1e-3, 0.05, 3.0])
def test_clipping_is_by_client(clip):
    wild = batches()
    wild[1] = [[x * 100, y * 100] for x, y in wild[1]]
    make = lambda: Tuned(OPTIMIZERS["sgd"])  # noqa: E731
    assert_alike(both(make, wild, clip=clip))
    calm = both(make, [wild[0], wild[2]], clip=clip)
    beside = both(make, wild, clip=clip, work=lambda on: [
        one for i, one in enumerate(work_of(on, wild))
    ])  # fmt: skip
    assert calm.joint[0].loss == pytest.approx(beside.joint[0].loss, rel=1e-12)


@pytest.mark.parametrize("sizes", [SIZES, UNEQUAL], ids=["alike", "unequal"])
@pytest.mark.parametrize("rule", [FedAvg(), FedProx(mu=0.3), Ditto()], ids=lambda r: type(r).__name__)
def test_dropout_is_each_client_s_own(rule, sizes):
    make = lambda: Tuned(OPTIMIZERS["adamw"], dropout=0.4, hidden=8)  # noqa: E731
    done = both(make, batches(sizes), rule)
    assert_alike(done)


def test_dropout_hangs_on_the_client_s_seed_alone():
    data = batches(((4, 4),) * 3)
    on = engine(Tuned(OPTIMIZERS["sgd"], dropout=0.5, hidden=8))
    work = work_of(on, data)
    together = VectorizedEngine(on)
    one, two = together.train(FedAvg(), work, 4), together.train(FedAvg(), work[::-1], 4)
    for a, b in zip(one, two[::-1], strict=True):
        assert distance(a, b) <= 1e-12
    other = [type(w)(w.down, w.memory, w.batches, w.steps, w.seed + (i == 1), w.everything) for i, w in enumerate(work)]
    moved = [distance(a, b) for a, b in zip(one, together.train(FedAvg(), other, 4), strict=True)]
    assert moved[0] <= 1e-12
    assert moved[2] <= 1e-12
    assert moved[1] > 1e-3


def test_the_global_generator_is_left_alone():
    on = engine(Tuned(OPTIMIZERS["sgd"], dropout=0.5))
    before = torch.get_rng_state()
    VectorizedEngine(on).train(FedAvg(), work_of(on, batches()), 4)
    assert torch.equal(before, torch.get_rng_state())


class Signs(torch.optim.Optimizer):
    """Follows the sign of a tensor's sum: stacked clients would share it."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad.sum().sign()


@pytest.mark.parametrize(
    ("optimizer", "name"), [(lambda p: torch.optim.Adafactor(p, lr=0.1), "Adafactor"), (Signs, "Signs")]
)
def test_optimizers_that_look_at_whole_tensors(optimizer, name):
    assert_serial(both(lambda: Tuned(optimizer), batches()), f"{name} looks at whole tensors")


def test_a_subclass_of_a_known_optimizer_is_not_taken_for_it():
    class Normed(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad /= p.grad.norm()
            return super().step(closure)

    assert_serial(both(lambda: Tuned(lambda p: Normed(p, lr=0.1)), batches()), "Normed")


def test_second_derivatives_are_told_once():
    on, told = engine(Regression(dtype="float64")), []
    together = VectorizedEngine(on, told.append)
    for _ in range(2):
        together.train(PerFedAvg(), work_of(on, batches(), PerFedAvg()), 4)
    assert told == ["PerFedAvg takes second derivatives"]


def test_one_client_gives_the_serial_bytes_and_nothing_is_told():
    done = both(lambda: Tuned(OPTIMIZERS["adamw"], dropout=0.3), batches(SIZES[:1]))
    assert done.told == []
    assert done.folded == 0
    assert distance(done.joint[0], done.serial[0]) == 0


@pytest.mark.parametrize("hidden", [0, 5])
def test_bf16_mixed(hidden):
    make = lambda: Tuned(OPTIMIZERS["adamw"], dtype="float32", hidden=hidden)  # noqa: E731
    done = both(make, batches(UNEQUAL, dtype=torch.float32), precision="bf16-mixed")
    assert_alike(done, bound=3e-2)
    assert {leaf.dtype for leaf in tree.leaves(done.joint[0].model)} == {torch.float32}


@pytest.mark.parametrize("where", ["features", "targets", "start"])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_client_that_is_not_finite_is_so_alone(where, clip):
    data = batches(UNEQUAL)
    if where == "features":
        data[2][1][0][0, 0] = math.nan
    elif where == "targets":
        data[2][0][1][:] = math.inf

    def work(on):
        out = work_of(on, data)
        if where == "start":
            out[2].down["net.0.weight"][0, 0] = math.nan
        return out

    done = both(lambda: Tuned(OPTIMIZERS["adamw"]), data, clip=clip, work=work)
    assert not math.isfinite(done.joint[2].loss)
    for i in (0, 1, 3):
        assert math.isfinite(done.joint[i].loss)
        assert distance(done.joint[i], done.serial[i]) <= 1e-12
    without = both(lambda: Tuned(OPTIMIZERS["adamw"]), data, clip=clip, work=lambda on: [
        one for i, one in enumerate(work(on)) if i != 2
    ])  # fmt: skip
    for a, b in zip(without.joint, [done.joint[i] for i in (0, 1, 3)], strict=True):
        assert distance(a, b) <= 1e-12
