"""A learning rate with a course over the run: resumed, under stages, of clients at once, on ranks, and by rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from courses import Downhill, rates, reached, sgd
from toys import Regression, ToyData, contents, last

from fedlit.aggregators import SCAFFOLD, Centralized, FedAvg, FedProx, LocalOnly, MetaFed, Stage, Stages
from fedlit.callbacks import Callback
from fedlit.errors import FedlitError
from fedlit.runs.stragglers import Stragglers

COSINE = {"schedule": "cosine", "schedule_over": "run", "optimizer": sgd}
STEPS = {
    0: [1.0, 0.982962913144534, 0.933012701892219, 0.853553390593274],
    1: [0.75, 0.629409522551260, 0.5, 0.370590477448740],
    2: [0.25, 0.146446609406726, 0.066987298107781, 0.017037086855466],
}
"""Of three rounds of four steps: (1 + cos(pi i / 12)) / 2."""
ROUNDS = {0: [1.0] * 4, 1: [0.75] * 4, 2: [0.25] * 4}
BY_ROUND = {"schedule_interval": "round"}


class Killed(Callback):
    """Ends a run in its second round."""

    def on_round_start(self, trainer: Any, round: int, clients: Any) -> None:  # noqa: A002
        if round == 1:
            raise RuntimeError("killed")


@pytest.fixture
def run(fit, tmp_path):
    """A run of three rounds of four steps: its folder, and the learning rates of its steps by round."""

    def made(
        rule: Any = None, clients: int = 1, task: Any = None, **settings: Any
    ) -> tuple[Any, dict[int, list[float]]]:
        noted = tmp_path / f"noted-{len(list(tmp_path.glob('noted-*')))}"
        noted.mkdir()
        folder = fit(
            FedAvg() if rule is None else rule, Downhill(str(noted), **{**COSINE, **(task or {})}),
            ToyData(num_clients=clients, examples=8), **{"max_rounds": 3, "local_steps": 4, **settings},
        )  # fmt: skip
        return folder, rates(noted)

    return made


def close(found: dict[int, list[float]], expected: dict[int, list[float]]) -> bool:
    return found == {index: pytest.approx(each, rel=1e-12) for index, each in expected.items()}


def test_three_rounds_of_four_steps_are_one_course(run):
    folder, found = run()
    assert close(found, STEPS)
    assert reached(folder) == pytest.approx(-sum(map(sum, STEPS.values())), rel=1e-12)


def test_by_rounds_the_rate_is_the_same_in_all_steps_of_a_round(run):
    assert close(run(task=BY_ROUND)[1], ROUNDS)


def test_without_it_each_round_begins_anew(run):
    _, found = run(task={"schedule_over": "round"})
    assert found[0] == found[1] == found[2] == pytest.approx([1.0, 0.853553390593274, 0.5, 0.146446609406726])


@pytest.mark.parametrize("task", [{}, {**BY_ROUND, "warmup": 0.3, "min_learning_rate": 0.1}], ids=["steps", "rounds"])
def test_a_run_that_is_resumed_goes_on_with_its_course(run, tmp_path, task):
    whole, wanted = run(task=task)
    with pytest.raises(RuntimeError, match="killed"):
        run(task=task, callbacks=[Killed()], name="cut")
    resumed, found = run(task=task, name="cut", ckpt_path=str(tmp_path / "cut" / "version_0"))
    assert found == {index: each for index, each in wanted.items() if index > 0}
    assert (
        contents(resumed.path / "checkpoints" / "last")["state.safetensors"]
        == (contents(whole.path / "checkpoints" / "last")["state.safetensors"])
    )
    assert (resumed.path / "metrics.csv").read_bytes() == (whole.path / "metrics.csv").read_bytes()


@pytest.mark.parametrize("rounds", [2, 4])
def test_a_run_with_a_course_cannot_become_longer_or_shorter(run, rounds):
    folder, _ = run()
    said = rf"trainer\.max_rounds: 3 -> {rounds}; the learning rate is planned over all rounds\): resume with"
    with pytest.raises(FedlitError, match=said):
        run(max_rounds=rounds, ckpt_path=str(folder.path))


@pytest.mark.parametrize("task", [{"schedule_over": "round"}, {"schedule": "constant"}], ids=["anew", "constant"])
def test_a_run_without_one_can(run, task):
    folder, _ = run(task=task, max_rounds=1)
    assert run(task=task, max_rounds=2, ckpt_path=str(folder.path))[0].checkpoints.read().round == 2


def test_another_course_is_named_alone(run):
    folder, _ = run(task={"schedule_over": "round"}, max_rounds=1)
    for before, after in (("round", "run"), ("run", "round")):
        folder, _ = run(task={"schedule_over": before}, max_rounds=1)
        with pytest.raises(FedlitError, match=rf"configuration \(model\.schedule_over: '{before}' -> '{after}'\): "):
            run(task={"schedule_over": after}, max_rounds=2, ckpt_path=str(folder.path))


def test_a_run_made_before_there_were_courses_goes_on(run):
    folder, _ = run(task={"schedule_over": "round"}, max_rounds=1)
    meta = folder.path / "checkpoints" / "last" / "meta.json"
    held = json.loads(meta.read_text())
    assert "max_rounds" not in held["fingerprint"]["trainer"]
    for name in ("schedule_over", "schedule_interval", "min_learning_rate"):
        del held["fingerprint"]["model"][name]
    meta.write_text(json.dumps(held))
    later, found = run(task={"schedule_over": "round"}, max_rounds=2, ckpt_path=str(folder.path))
    assert later.checkpoints.read().round == 2
    assert list(found) == [1]


@pytest.mark.parametrize(
    "rule",
    [
        Stages([Stage(FedAvg(), 1), Stage(FedProx(mu=0.0), 1), Stage(FedAvg(), 1)]),
        Stages([Stage(FedAvg(), 2), Stage(SCAFFOLD(), 1)]),
    ],
    ids=["three", "two"],
)
def test_a_stage_goes_on_with_the_course_of_the_run(run, rule):
    assert close(run(rule)[1], STEPS)


def test_reference_rules_are_on_the_course_of_the_run_s_own(run):
    _, found = run(baselines=[LocalOnly(), Centralized()])
    assert close(found, {index: each * 3 for index, each in STEPS.items()})


def test_where_clients_take_turns_a_turn_is_a_round(run):
    folder, found = run(MetaFed(cycles=1, lam=0.0), clients=2, max_rounds=4)
    assert [len(found[index]) for index in range(4)] == [4] * 4
    assert [found[index][0] for index in range(4)] == pytest.approx([1.0, 0.853553390593274, 0.5, 0.146446609406726])
    assert folder.checkpoints.read().round == 4


@pytest.mark.parametrize(
    "settings",
    [{"clients_per_round": 1}, {"min_replies": 1, "stragglers": Stragglers(drop_out={"client-00": 0.0, "*": 0.7})}],
    ids=["sampled", "missing"],
)
def test_who_takes_no_part_in_a_round_is_on_the_course_afterwards(run, settings):
    _, found = run(clients=3, **settings)
    took_part = {index: len(each) // 4 for index, each in found.items()}
    assert 0 < min(took_part.values()) < 3
    assert close(found, {index: each * took_part[index] for index, each in STEPS.items()})


def test_clients_of_other_numbers_of_steps_train_at_once_as_they_do_alone(run, capsys):
    """Of 8, 9 and 10 examples in batches of 4: 2, 3 and 3 steps in a round."""
    settings = {"clients": 3, "local_steps": None, "local_epochs": 1.0, "task": {"schedule": "linear"}}
    alone, each = run(clients_at_once=1, **settings)
    together, stacks = run(clients_at_once=3, **settings)
    assert "one after the other" not in capsys.readouterr().out
    assert reached(together) == pytest.approx(reached(alone), rel=1e-12)
    two, three = [1.0, 5 / 6], [1.0, 8 / 9, 7 / 9]
    assert sorted(each[0]) == pytest.approx(sorted([*two, *three, *three]), rel=1e-12)
    assert sorted(stacks[0]) == pytest.approx(sorted([*two, *three]), rel=1e-12), "one optimizer for a stack"
    assert {*each[2]} == {*stacks[2]}


def test_a_rule_that_divides_by_the_sum_of_rates_has_that_of_the_course(run):
    """SCAFFOLD's controls are mean gradients, here 1, whatever the rates were."""
    folder, _ = run(SCAFFOLD(), clients=2, task={**BY_ROUND, "min_learning_rate": 1e-6})
    state, kept = last(folder)
    for control in (state["control"], *kept.values()):
        torch.testing.assert_close(control["layer.weight"], torch.ones(1, 1, dtype=torch.float64), rtol=1e-12, atol=0.0)


class Own(Regression):
    """A LightningModule that is no task of ours, whose rate falls from round to round."""

    spans_run = True

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1 * (1 - self.current_round / self.num_rounds))


def test_any_module_may_look_at_the_round_and_say_that_it_plans_by_it(fit):
    folder = fit(SCAFFOLD(), Own(), max_rounds=2, local_steps=2)
    assert folder.checkpoints.read().meta["fingerprint"]["trainer"]["max_rounds"] == 2
    with pytest.raises(FedlitError, match=r"trainer\.max_rounds: 2 -> 3; the learning rate is planned"):
        fit(SCAFFOLD(), Own(), max_rounds=3, local_steps=2, ckpt_path=str(folder.path))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are copied on Linux only")
def test_two_ranks_have_the_rates_and_the_bytes_of_one(run, tmp_path):
    root, noted = tmp_path / "two", tmp_path / "ranks"
    noted.mkdir()
    line = [
        sys.executable, "-m", "fedlit.cli", "fit", "--model", "courses.Downhill", "--model.noted", str(noted),
        "--model.schedule_over", "run", "--model.schedule", "cosine", "--model.optimizer", "torch.optim.SGD",
        "--model.optimizer.lr", "1.0", "--data", "toys.ToyData", "--data.num_clients", "2", "--data.examples", "8",
        "--trainer.max_rounds", "3", "--trainer.local_steps", "4", "--trainer.accelerator", "cpu",
        "--trainer.devices", "2", "--trainer.num_threads", "1", "--trainer.default_root_dir", str(root),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "helpers"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(list(noted.iterdir())) == 2, "each rank has a client"
    assert close(rates(noted), {index: each * 2 for index, each in STEPS.items()})
    folder, alone = run(clients=2)
    assert rates(noted) == alone
    one, two = (
        {name: held for name, held in contents(path).items() if name.endswith((".csv", ".safetensors"))}
        for path in (folder.path, root / "fedlit" / "version_0")
    )
    assert one == two != {}
