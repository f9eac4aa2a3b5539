"""Several clients trained at once, against the serial engine: optimizers, schedules, clipping, dropout, rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from joint_cases import SIZES, assert_alike, assert_serial, both, distance, engine, examples, labelled, work_of
from toys import Classifier, Regression

from fedlit import tree
from fedlit.aggregators import APFL, MOON, Ditto, FedALA, FedAvg, FedProx, PerFedAvg, QFedAvg
from fedlit.clients.batched import BatchedEngine

UNEQUAL = ((4, 4, 2), (4,), (3, 4, 4, 4, 1), (2, 4))
"""Unequal sizes, short last batches, and from one to five steps."""


def batches(sizes=SIZES, **arguments: Any) -> list:
    return [examples(theirs, seed, **arguments) for seed, theirs in enumerate(sizes)]


class Tuned(Regression):
    """A regression with the optimizer that a test gives."""

    def __init__(self, optimizer: Any, schedule: bool = False, **arguments: Any) -> None:
        super().__init__(**{"hidden": 5, "dtype": "float64", **arguments})
        self.make, self.schedule = optimizer, schedule

    def configure_optimizers(self):
        optimizer = self.make(self.parameters())
        if not self.schedule:
            return optimizer
        steps = self.num_training_steps
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}


O = torch.optim  # noqa: E741
OPTIMIZERS = {
    "sgd": lambda p: O.SGD(p, lr=0.1, weight_decay=0.05),
    "momentum": lambda p: O.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05),
    "nesterov": lambda p: O.SGD(p, lr=0.1, momentum=0.8, nesterov=True),
    "adamw": lambda p: O.AdamW(p, lr=0.05, weight_decay=0.2),
    "amsgrad": lambda p: O.Adam(p, lr=0.05, amsgrad=True),
    "rmsprop": lambda p: O.RMSprop(p, lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda p: O.Adagrad(p, lr=0.1),
    "adadelta": lambda p: O.Adadelta(p, lr=0.5),
    "adamax": lambda p: O.Adamax(p, lr=0.05),
    "nadam": lambda p: O.NAdam(p, lr=0.05),
    "radam": lambda p: O.RAdam(p, lr=0.05),
    "asgd": lambda p: O.ASGD(p, lr=0.05),
    "rprop": lambda p: O.Rprop(p, lr=0.01),
}


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
    together = BatchedEngine(on)
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
    BatchedEngine(on).train(FedAvg(), work_of(on, batches()), 4)
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
    together = BatchedEngine(on, told.append)
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


# -- rules -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Held(FedAvg):
    """Clients whose memory says so leave a layer where it is, in the steps that it names."""

    def init_memory(self, params):
        return {"from": torch.tensor(99.0), "to": torch.tensor(99.0)}

    def objective(self, loss, w, down, memory):
        held = float(memory["from"]) <= loss.step < float(memory["to"])
        return loss({n: p.detach() if held and "net.0" in n else p for n, p in w.items()})


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "amsgrad"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_gradients_that_reach_a_leaf_for_some_clients_only(optimizer, clip):
    """AdamW would let its decay and its count of steps go on for a client whose layer is held."""

    def work(on):
        out = work_of(on, batches(((4, 4, 4, 3),) * 4), Held())
        for one, (a, b) in zip(out, [(99, 99), (1, 3), (0, 99), (1, 3)], strict=True):
            one.memory.update({"from": torch.tensor(float(a)), "to": torch.tensor(float(b))})
        return out

    done = both(lambda: Tuned(OPTIMIZERS[optimizer], schedule=True), [], Held(), clip, work=work)
    assert_alike(done)
    assert tree.equal(done.joint[2].upload["net.0.weight"], torch.zeros(5, 3, dtype=torch.float64))
    assert float(done.joint[1].upload["net.0.weight"].abs().max()) > 0


CLASSIFIED = [labelled(sizes, seed) for seed, sizes in enumerate(UNEQUAL)]
EQUAL = [labelled(sizes, seed) for seed, sizes in enumerate(SIZES)]


def classifier(**arguments: Any) -> Any:
    return lambda: Classifier(rank=2, dtype="float64", optimizer="adamw", **arguments)


@pytest.mark.parametrize(
    "rule",
    [FedALA(), MOON(), PerFedAvg(first_order=True), Ditto(), APFL(), QFedAvg()],
    ids=lambda rule: type(rule).__name__,
)
@pytest.mark.parametrize("data", [EQUAL, CLASSIFIED], ids=["alike", "unequal"])
def test_rules_that_ask_for_more(rule, data, request):
    if isinstance(rule, PerFedAvg) and data is CLASSIFIED:
        request.applymarker(pytest.mark.xfail(strict=True, reason=SHARED_GRAPH))

    def work(on):
        out = []
        for one in work_of(on, data, rule):
            down = rule.down(rule.init(one.down), "client-00")
            if isinstance(rule, APFL):  # else its share follows differences that are nothing but rounding
                own = tree.map(lambda p: p * 0.5, one.down)
                one = replace(one, memory={"own": own, "alpha": torch.tensor(0.4, dtype=torch.float64)})
            out.append(type(one)(down, one.memory, one.batches, one.steps, one.seed, one.everything))
        return out

    assert_alike(both(classifier(), [], rule, work=work))


@dataclass(frozen=True)
class Asks(FedAvg):
    """Asks the network in one of several ways."""

    way: str = "features"

    def objective(self, loss, w, down, memory):
        value = loss(w)
        if self.way == "features":
            return value + loss.features(w).square().mean()
        if self.way == "logits":
            return value + (loss.logits(w) - loss.logits(down)).square().mean()
        if self.way == "split":
            a, b = loss.split(2)
            return a(w) + 0.3 * b(tree.map(lambda p: p * 0.9, w))
        if self.way == "outputs":
            value, seen = loss.outputs(w, r"second\.lora_A\.default$")
            return value + sum(out.square().mean() for out in seen.values())
        if self.way == "values":  # what it asks next hangs on what it was told
            return value + (loss.features(w).mean() if float(value.detach()) > 1.1 else 2 * loss(down))
        if self.way == "gradient":
            found = torch.autograd.grad(value, list(w.values()), materialize_grads=True)
            return loss({n: p - 0.1 * g for (n, p), g in zip(w.items(), found, strict=True)})
        if self.way == "gradient twice":
            for _ in range(2):
                found = torch.autograd.grad(loss(w), list(w.values()), materialize_grads=True)
                w = {n: p - 0.1 * g for (n, p), g in zip(w.items(), found, strict=True)}
            return loss(w)
        if self.way == "gradient elsewhere":  # with respect to tensors that the objective has made
            near = {n: p * 0.9 for n, p in w.items()}
            found = torch.autograd.grad(loss(near), list(near.values()), materialize_grads=True)
            return loss({n: p - 0.1 * g for (n, p), g in zip(near.items(), found, strict=True)})
        if self.way == "gradient of features":
            found = torch.autograd.grad(loss.features(w).square().mean(), list(w.values()), allow_unused=True)
            return loss({n: p if g is None else p - 0.1 * g for (n, p), g in zip(w.items(), found, strict=True)})
        if self.way == "gradient of outputs":
            inner, _ = loss.outputs(w, r"second\.lora_A\.default$")
            found = torch.autograd.grad(inner, list(w.values()), materialize_grads=True)
            return loss({n: p - 0.1 * g for (n, p), g in zip(w.items(), found, strict=True)})
        if self.way == "without gradient":
            with torch.no_grad():
                scale, teacher = loss(w), loss.logits(w)
            return value * scale + (loss.logits(down) * teacher).mean()
        if self.way == "caught":
            try:
                return value + loss(down)
            except Exception:  # noqa: BLE001 - a rule that catches everything must not catch a question
                return value
        raise ValueError(self.way)


WAYS = ["features", "logits", "split", "outputs", "values", "gradient", "gradient twice", "gradient of features",
        "gradient of outputs", "gradient elsewhere", "without gradient", "caught"]  # fmt: skip


SHARED_GRAPH = "an answer's graph is used once for all reruns and clients, and is that of the first run's tensors"
WRONG = {"gradient twice", "gradient elsewhere", "gradient of features", "gradient of outputs", "without gradient"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("data", [EQUAL, CLASSIFIED], ids=["alike", "unequal"])
def test_ways_to_ask(way, data, request):
    if way in WRONG or (way == "gradient" and data is CLASSIFIED):
        request.applymarker(pytest.mark.xfail(strict=True, reason=SHARED_GRAPH))
    done = both(classifier(), data, Asks(way=way))
    assert_alike(done, folds="outputs" not in way)
    assert done.told == (["the rule looks at what modules put out"] if "outputs" in way else [])


@dataclass(frozen=True)
class Narrow(FedAvg):
    """Trains LoRA of the rank in the client's memory, filled up with zeros for the network."""

    def start(self, down, memory):
        r = int(memory["rank"])
        return {n: p[:r] if "lora_A" in n else p[:, :r] if "lora_B" in n else p for n, p in down.items()}

    def objective(self, loss, w, down, memory):
        return loss(self.model(w, down, memory))

    def model(self, w, down, memory):
        def filled(p, like):
            return torch.nn.functional.pad(p, [x for n, m in zip(p.shape[::-1], like.shape[::-1], strict=True)
                                               for x in (0, m - n)])  # fmt: skip

        return {n: filled(p, down[n]) for n, p in w.items()}

    def finish(self, w, down, memory, work):
        return w, memory


def test_clients_whose_trees_differ_in_shape_train_apart():
    ranks = [2, 4, 2, 3, 2]

    def work(on):
        out = work_of(on, [labelled(sizes, seed) for seed, sizes in enumerate((*UNEQUAL, (4, 1)))])
        for one, rank in zip(out, ranks, strict=True):
            one.memory["rank"] = torch.tensor(float(rank))
        return out

    done = both(lambda: Classifier(rank=4, dtype="float64", optimizer="adamw"), [], Narrow(), work=work)
    assert_alike(done)
    assert [len(one.upload["network.first.lora_A.default.weight"]) for one in done.joint] == ranks
    for i in (1, 3):  # alone of their shape
        assert distance(done.joint[i], done.serial[i]) == 0


@dataclass(frozen=True)
class Ranked(FedAvg):
    """Trains what it received as it is, in the network's own shapes or as a tree of another form."""

    def start(self, down, memory):
        return {"own": down, "extra": memory["extra"]}

    def objective(self, loss, w, down, memory):
        return loss(w["own"]) + w["extra"].square().sum()

    def model(self, w, down, memory):
        return w["own"]

    def finish(self, w, down, memory, work):
        return tree.sub(w["own"], down), {"extra": w["extra"]}


def test_groups_of_one_shape_are_trained_together_in_the_order_that_was_given():
    def work(on):
        out = []
        for i, one in enumerate(work_of(on, batches(UNEQUAL + UNEQUAL[:1]))):
            memory = {"extra": torch.arange(1.0 + i % 2, dtype=torch.float64) + i}
            out.append(type(one)(one.down, memory, one.batches, one.steps, one.seed))
        return out

    done = both(lambda: Tuned(OPTIMIZERS["adamw"], dropout=0.2), [], Ranked(), work=work)
    assert_alike(done)


@dataclass(frozen=True)
class Measured(FedAvg):
    """Weighs by its own losses."""

    measures = ("start_loss", "end_loss")

    def finish(self, w, down, memory, work):
        return tree.scale(tree.sub(w, down), float(work.end_loss / work.start_loss)), memory


def test_losses_that_a_rule_measures():
    done = both(lambda: Tuned(OPTIMIZERS["sgd"], dropout=0.5), batches(UNEQUAL), Measured())
    assert_alike(done)
    assert all(0 < float(one.work.end_loss) != float(one.work.start_loss) for one in done.joint)


def test_a_second_group_finds_the_network_as_the_first_one_did():
    rule, make = Measured(), lambda: Tuned(OPTIMIZERS["adamw"], dropout=0.3)
    on = engine(make())
    together = BatchedEngine(on)
    work = work_of(on, batches(UNEQUAL), rule)
    first = together.train(rule, work, 4)
    on.evaluate(first[0].model, batches()[0], "val")
    again = together.train(rule, work, 4)
    assert [distance(a, b) for a, b in zip(first, again, strict=True)] == [0.0] * 4
