"""Rules whose clients train at once, against the serial engine: what they ask, leave out, nest and measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from toys import Classifier
from vectorized_cases import (
    OPTIMIZERS,
    SIZES,
    UNEQUAL,
    Tuned,
    assert_alike,
    batches,
    both,
    distance,
    engine,
    labelled,
    work_of,
)

from fedlit import tree
from fedlit.aggregators import APFL, MOON, Ditto, FedALA, FedAvg, PerFedAvg, QFedAvg
from fedlit.engine.vectorized.engine import VectorizedEngine


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
def test_rules_that_ask_for_more(rule, data):
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("data", [EQUAL, CLASSIFIED], ids=["alike", "unequal"])
def test_ways_to_ask(way, data):
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
    together = VectorizedEngine(on)
    work = work_of(on, batches(UNEQUAL), rule)
    first = together.train(rule, work, 4)
    on.evaluate([first[0].model], [batches()[0]], "val", 4)
    again = together.train(rule, work, 4)
    assert [distance(a, b) for a, b in zip(first, again, strict=True)] == [0.0] * 4


@dataclass(frozen=True)
class Choosing(FedAvg):
    """What a client asks for is in its memory: alike in all but the method."""

    def objective(self, loss, w, down, memory):
        seen = loss.features(down) if "features" in memory else loss.logits(down)
        return loss(w) * seen.square().mean()


def test_clients_that_ask_for_unlike_things_at_once():
    def work(on):
        out = work_of(on, [*CLASSIFIED, *CLASSIFIED])
        for one in out[::2]:
            one.memory["features"] = torch.tensor(1.0)
        return out

    assert_alike(both(classifier(), [], Choosing(), work=work))


class Spare(Tuned):
    """With a layer that the loss does not touch."""

    def __init__(self):
        super().__init__(OPTIMIZERS["adamw"])
        self.spare = torch.nn.Linear(2, 2, dtype=torch.float64)
        for p in self.spare.parameters():
            torch.nn.init.ones_(p)


def test_what_no_loss_touches_does_not_decay():
    done = both(Spare, batches(UNEQUAL))
    assert_alike(done)
    assert all(float(one.upload["spare.weight"].abs().max()) == 0 for one in done.joint)


def test_parameters_that_a_rule_leaves_out_keep_their_initial_values():
    seen, data = [], batches(UNEQUAL)
    for before in (False, True):
        on = engine(Tuned(OPTIMIZERS["adamw"]))
        work = [replace(one, down=tree.pick(one.down, "net.3")) for one in work_of(on, data)]
        if before:
            on.evaluate([tree.map(lambda p: p + 1, on.initial())], [data[0]], "val", 4)
        seen.append(VectorizedEngine(on).train(FedAvg(), work, 4))
        on.evaluate([tree.map(lambda p: p - 1, on.initial())], [data[0]], "val", 4)
        seen.append(VectorizedEngine(on).train(FedAvg(), work, 4))
        together = VectorizedEngine(on)
        together.train(FedAvg(), work, 4)
        on.evaluate(
            [tree.map(lambda p: p - 1, on.initial())], [data[0]], "val", 4
        )  # the trial is over: it loads nothing
        seen.append(together.train(FedAvg(), work, 4))
        serial = on.train(FedAvg(), work, 4)
        for some in seen:
            assert max(distance(a, b) for a, b in zip(some, serial, strict=True)) <= 1e-12
