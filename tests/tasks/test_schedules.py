"""Learning rates over rounds and over a run, as numbers; the course of FHBench; settings that contradict each other."""

from __future__ import annotations

import math
from typing import Any

import lightning
import pytest
import torch
from courses import Downhill, sgd

from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask

ROUNDS, STEPS = 3, 4
FALLING = [[1.0, 11 / 12, 10 / 12, 9 / 12], [8 / 12, 7 / 12, 6 / 12, 5 / 12], [4 / 12, 3 / 12, 2 / 12, 1 / 12]]
QUARTER = [[0.25, 0.5, 0.75, 1.0], [8 / 9, 7 / 9, 6 / 9, 5 / 9], [4 / 9, 3 / 9, 2 / 9, 1 / 9]]
COSINE = [
    [1.0, 0.982962913144534, 0.933012701892219, 0.853553390593274],
    [0.75, 0.629409522551260, 0.5, 0.370590477448740],
    [0.25, 0.146446609406726, 0.066987298107781, 0.017037086855466],
]
RUN = {"schedule_over": "run"}
BY_ROUND = {**RUN, "schedule_interval": "round"}
CASES = {
    "linear anew": ({"schedule": "linear"}, [[1.0, 0.75, 0.5, 0.25]] * 3),
    "linear": ({"schedule": "linear", **RUN}, FALLING),
    "linear by round": ({"schedule": "linear", **BY_ROUND}, [[1.0] * 4, [2 / 3] * 4, [1 / 3] * 4]),
    "linear, floor": (
        {"schedule": "linear", "min_learning_rate": 0.1, **RUN}, [[0.1 + 0.9 * x for x in each] for each in FALLING],
    ),
    "linear, warm-up": ({"schedule": "linear", "warmup": 0.25, **RUN}, QUARTER),
    "linear, warm-up, floor": (
        {"schedule": "linear", "warmup": 0.25, "min_learning_rate": 0.1, **RUN},
        [[0.25, 0.5, 0.75, 1.0], [0.9, 0.8, 0.7, 0.6], [0.5, 0.4, 0.3, 0.2]],
    ),
    "linear, warm-up by round": ({"schedule": "linear", "warmup": 0.25, **BY_ROUND}, [[0.5] * 4, [1.0] * 4, [0.5] * 4]),
    "cosine": ({"schedule": "cosine", **RUN}, COSINE),
    "cosine by round": ({"schedule": "cosine", **BY_ROUND}, [[1.0] * 4, [0.75] * 4, [0.25] * 4]),
    "cosine, floor, by round": (
        {"schedule": "cosine", "min_learning_rate": 0.2, **BY_ROUND}, [[1.0] * 4, [0.8] * 4, [0.4] * 4],
    ),
    "cosine, floor, anew": (
        {"schedule": "cosine", "min_learning_rate": 0.2}, [[1.0, 0.882842712474619, 0.6, 0.317157287525381]] * 3,
    ),
    "constant": ({"schedule": "constant", "min_learning_rate": 0.2, **RUN}, [[1.0] * 4] * 3),
    "constant, warm-up": (
        {"schedule": "constant", "warmup": 0.5, **RUN},
        [[1 / 7, 2 / 7, 3 / 7, 4 / 7], [5 / 7, 6 / 7, 1.0, 1.0], [1.0] * 4],
    ),
    "constant, warm-up by round": (
        {"schedule": "constant", "warmup": 0.5, **BY_ROUND}, [[1 / 3] * 4, [2 / 3] * 4, [1.0] * 4],
    ),
}  # fmt: skip


def course(task: Downhill, rounds: int = ROUNDS, steps: int = STEPS) -> list[list[list[float]]]:
    """Rates of each group of parameters, in each step of each round."""
    found = []
    for index in range(rounds):
        task.num_training_steps, task.current_round, task.num_rounds = steps, index, rounds
        made: Any = task.configure_optimizers()
        made = made if isinstance(made, dict) else {"optimizer": made}
        found.append([])
        for _ in range(steps):
            found[-1].append([group["lr"] for group in made["optimizer"].param_groups])
            made["optimizer"].step()
            if "lr_scheduler" in made:
                made["lr_scheduler"]["scheduler"].step()
    return found


@pytest.mark.parametrize("name", CASES)
def test_rates_of_three_rounds_of_four_steps(name):
    arguments, expected = CASES[name]
    for each, wanted in zip(course(Downhill(**arguments)), expected, strict=True):
        assert [rate for (rate,) in each] == pytest.approx(wanted, rel=1e-13)


def test_fhbench_has_torch_s_cosine_stepped_once_a_round():
    """T_max = rounds and eta_min = 1e-6, as its code has them; in all steps of a round the same rate."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1e-1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=200, eta_min=1e-6)
    settings = {"schedule": "cosine", "min_learning_rate": 1e-6, **BY_ROUND}
    task = Downhill(optimizer=lambda parameters: torch.optim.SGD(parameters, 1e-1), **settings)
    ours = course(task, rounds=200, steps=3)
    for each in ours:
        assert each == [pytest.approx(theirs.get_last_lr(), rel=1e-10)] * 3
        optimizer.step()
        theirs.step()
    assert [ours[t][0][0] for t in (0, 100)] == [0.1, pytest.approx(0.0500005, rel=1e-12)]
    assert ours[199][0][0] == pytest.approx(1e-6 + 0.0999990 * (1 - math.cos(math.pi / 200)) / 2, rel=1e-9)


def test_clients_of_other_numbers_of_steps_are_on_one_course():
    few, many = (course(Downhill(schedule="cosine", **RUN), steps=steps) for steps in (2, 6))
    assert [each[0] for each in few] == [each[0] for each in many]
    assert [each[1] for each in few] == [pytest.approx(each[3]) for each in many]


def test_each_group_of_parameters_falls_from_its_own_rate_to_the_same_one():
    def two(parameters):
        other = torch.zeros(1, requires_grad=True)
        return torch.optim.SGD([{"params": parameters, "lr": 1.0}, {"params": [other], "lr": 0.4}])

    task = Downhill(optimizer=two, schedule="linear", min_learning_rate=0.2, **BY_ROUND)
    assert [each[0] for each in course(task, rounds=2)] == [[1.0, 0.4], pytest.approx([0.6, 0.3])]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_a_course_by_rounds_is_to_the_bit_what_it_was_before_there_were_others(schedule, warmup):
    """The formula as it stood when each round had its own."""
    steps, rising = 7, math.ceil(warmup * 7)

    def factor(step):
        if step < rising:
            return (step + 1) / (rising + 1)
        left = max(0.0, 1 - (step - rising) / max(1, steps - rising))
        return {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left))}[schedule]

    task = Downhill(schedule=schedule, warmup=warmup, learning_rate=1e-3)
    assert course(task, steps=steps) == [[[1e-3 * factor(step)] for step in range(steps)]] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"schedule_over": "epoch"}, r"model\.schedule_over is 'epoch': give 'round' or 'run'"),
        ({"schedule_interval": "epoch", **RUN}, r"model\.schedule_interval is 'epoch': give 'step' or 'round'"),
        ({"schedule_interval": "round"}, r"schedule_interval is 'round', .* set model\.schedule_over to 'run'"),
        ({"min_learning_rate": -1e-6}, r"model\.min_learning_rate is -1e-06: give a number from 0"),
        ({"min_learning_rate": math.nan}, r"model\.min_learning_rate is nan"),
        ({"min_learning_rate": 2e-3}, r"is 0\.002, and the learning rate to begin with 0\.001: give at most that"),
        ({"min_learning_rate": 2.0, "optimizer": sgd}, r"is 2\.0, and the learning rate to begin with 1\.0"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_the_task_is_made(arguments, said):
    with pytest.raises(FedlitError, match=said):
        ForecastingTask(**arguments)


def test_a_trainer_without_rounds_has_a_course_over_its_steps_and_none_by_rounds(tmp_path):
    data = torch.utils.data.DataLoader([(torch.zeros(1), torch.zeros(())) for _ in range(4)])

    def trained(**arguments):
        task = Downhill(schedule="linear", optimizer=sgd, **arguments)
        trainer = lightning.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_progress_bar=False, enable_checkpointing=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(task, data)
        return float(task.layer.weight.detach())

    assert trained(**RUN) == trained() == pytest.approx(-(1 + 0.75 + 0.5 + 0.25))
    with pytest.raises(FedlitError, match=r"a lightning\.Trainer has none: set it to 'step'"):
        trained(**BY_ROUND)
