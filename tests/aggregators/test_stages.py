"""A later stage begins with what an earlier one trained, whatever its rule keeps at the client or at the server."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from toys import Classifier, ToyData, memories

from fedlit import codec, tree
from fedlit.aggregators import (
    APFL,
    EPFL,
    SCAFFOLD,
    Ditto,
    FedAMP,
    FedAvg,
    FedDGGA,
    FedLA,
    FedRep,
    FedSALoRA,
    FFALoRA,
    LGFedAvg,
    LocalOnly,
    MetaFed,
    OrthogonalDualLoRA,
    Server,
    Stage,
    Stages,
    Update,
)
from fedlit.aggregators.stages import holds_parameters
from fedlit.runs.checkpoint import read

pytestmark = pytest.mark.filterwarnings("ignore:.*to come to its last part")
DATA = {"features": 4, "classes": 3, "dtype": "float64"}
HOLDERS = {
    "head": FedRep(), "body": LGFedAvg(), "whole": FedAMP(), "B and head": EPFL(), "A": FFALoRA(),
    "B": FedSALoRA(share_head=True), "all": LocalOnly(), "half an adapter": OrthogonalDualLoRA(),
    "A, in stages of its own": Stages([Stage(FFALoRA(), 1)]), "nothing": Ditto(),
}  # fmt: skip
each_holder = pytest.mark.parametrize("rule", HOLDERS.values(), ids=HOLDERS)


class Slow(Classifier):
    """Trains in its first clients' jobs, as many as ``lively`` says, and then stands still next to."""

    lively = 10**9

    def configure_optimizers(self) -> Any:
        self.lively -= 1
        trains = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trains, lr=0.1 if self.lively >= 0 else 1e-13)


def task(lively: int = 10**9) -> Classifier:
    made = Slow(rank=4, features=4, dtype="float64")
    made.lively = lively
    return made


def models(rule: Any, folder: Any) -> tuple[Any, dict[str, Any]]:
    """The state, and what each client serves: whole, since a rule may leave out what is as the network has it."""
    where = folder.path / "checkpoints" / "last"
    state = read(where).state
    start = {n: p.detach().clone() for n, p in task().named_parameters() if p.requires_grad}
    served = {}
    for client in ("client-00", "client-01", "client-02"):
        blob = memories(folder).get(f"{client}.safetensors")
        memory = codec.decode(blob)[0] if blob is not None else rule.init_memory(start)
        served[client] = {**start, **rule.personal(rule.down(state, client), memory)}
    return state, served


@pytest.fixture
def shared(fit) -> Any:
    """The model after two rounds of FedAvg."""
    return dict(models(FedAvg(), fit(FedAvg(), task(), ToyData(**DATA), max_rounds=2))[0]["params"])


@each_holder
def test_a_client_new_to_a_stage_serves_the_model_that_the_stage_before_ended_with(rule, fit, shared):
    plan = Stages([Stage(FedAvg(), 2), Stage(rule, 1)])
    _, served = models(plan, fit(plan, task(), ToyData(**DATA), max_rounds=2))
    assert all(tree.equal(model, shared) for model in served.values())


@each_holder
def test_a_stage_trains_on_from_the_model_that_the_stage_before_ended_with(rule, fit, shared):
    plan = Stages([Stage(FedAvg(), 2), Stage(rule, 1)])
    _, served = models(plan, fit(plan, task(lively=6), ToyData(**DATA), max_rounds=4))
    for model in served.values():
        torch.testing.assert_close(model, shared, rtol=0, atol=1e-10)


def test_what_a_stage_kept_goes_on_in_its_next_round(fit, shared):
    """Not begun anew in each: heads of two rounds are not those of one, and the A that FFALoRA holds still is."""
    for rule, moved, held in ((FedRep(), "head", None), (FFALoRA(), "lora_B", "lora_A")):
        plan = Stages([Stage(FedAvg(), 2), Stage(rule, 1)])
        one, two = (models(plan, fit(plan, task(), ToyData(**DATA), max_rounds=n))[1]["client-01"] for n in (3, 4))
        assert all(not torch.equal(one[n], two[n]) and not torch.equal(one[n], shared[n]) for n in one if moved in n)
        assert all(torch.equal(two[n], shared[n]) for n in two if held and held in n)


def test_the_model_goes_down_once_to_each_client_and_only_where_it_is_needed(fit):
    plan = Stages([Stage(FedAvg(), 1), Stage(LGFedAvg(), 1)])
    folder = fit(plan, task(), ToyData(**DATA), max_rounds=6, clients_per_round=1)
    rows = [r for r in folder.ledger.read() if r["direction"] == "down" and int(r["round"]) > 1]
    first = {client: next(r for r in rows if r["client"] == client) for client in {r["client"] for r in rows}}
    whole = sum(p.numel() for p in task().parameters() if p.requires_grad)
    assert 1 < len(first) < len(rows)
    assert {r is first[r["client"]]: int(r["parameters"]) > whole for r in rows} == {True: True, False: False}
    assert models(plan, folder)[0]["seen"].keys() == first.keys()
    params = {n: p.detach() for n, p in task().named_parameters() if p.requires_grad}
    assert not any(holds_parameters(rule, params) for rule in (FedAvg(), SCAFFOLD(), Ditto(), FedLA()))


def test_rules_count_rounds_from_the_first_of_their_stage():
    """A ring of three is over after its third turn, and the steps of FedDG-GA are still large in its second round."""
    params, work = {"w": torch.zeros(1)}, {"start_loss": torch.tensor(1.0), "end_loss": torch.tensor(0.5)}

    def play(rule: Any, upload: Any, before: int) -> Any:
        plan = Stages([Stage(FedAvg(), before), Stage(rule, 3)]) if before else rule
        state = plan.init(params)
        for index in range(before + 2):
            sent = {c: params if index < before else upload(c) for c in "ab"}
            sent = {c: {f"stage{int(index >= before)}": u} for c, u in sent.items()} if before else sent
            updates = [Update(c, 1.0, lambda c=c, sent=sent: sent[c]) for c in sorted(sent)]
            state = plan.aggregate(state, updates, Server(index, torch.Generator(), num_clients=3))
        return next(state[key] for key in state if key.startswith("stage")) if before else state

    def upload(client: str) -> Any:
        return {"moved": {"w": torch.ones(1)}, **work, "end_loss": torch.tensor(0.5 if client == "a" else 0.1)}

    assert list(play(MetaFed(), lambda c: {"w": torch.ones(1)}, before=5)) == ["relayed"]
    alone, staged = (play(FedDGGA(rounds=4), upload, before)["weights"] for before in (0, 5))
    assert tree.equal(alone, staged)
    assert alone["a"] != alone["b"]


def test_what_a_rule_trains_besides_the_network_is_not_held(fit):
    """The share of the own model in APFL has no parameter's name: a stage that trains the head only leaves it free."""
    plan = Stages([Stage(FedAvg(), 1), Stage(APFL(alpha=0.4), 1, trainable="head")])
    folder = fit(plan, task(), ToyData(**DATA), max_rounds=3)
    kept = codec.decode(memories(folder)["client-01.safetensors"])[0]["stage1"]
    assert kept["alpha"] != pytest.approx(0.4, abs=1e-9)
    shared = models(plan, folder)[0]["stage1"]["params"]
    assert {n for n in shared if not torch.equal(kept["own"][n], shared[n])} == {n for n in shared if "head" in n}
