"""FHBench's study: rows without a network are scored as the rules are, and few seeds give no verdicts by chance."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from fedlit.aggregators import ZeroShot
from fedlit.data import Dirichlet, SimulatedSignals
from fedlit.tasks import ClassificationTask
from fedlit.trainer import FederatedTrainer
from studies.fhbench.cells import Cell, cells
from studies.fhbench.naive import PREDICTORS, score
from studies.fhbench.verdicts import against, told


def made() -> SimulatedSignals:
    return SimulatedSignals(subjects=40, partition=Dirichlet(3, 0.5, min_records=8), seed=0)


def test_the_commonest_class_is_right_as_often_as_it_is_among_the_test_examples():
    data = made()
    found = score(data, "commonest class")
    shares = []
    for client in data.clients:
        train, test = ([int(e["label"]) for e in data.dataset(client, side)] for side in ("train", "test"))
        most = max(range(len(data.classes)), key=lambda c: (Counter(train)[c], -c))
        shares.append(Counter(test)[most] / len(test))
    assert found["by_client"] == pytest.approx(shares)
    assert found["test"]["personal"]["accuracy"]["mean"] == pytest.approx(sum(shares) / 3)
    assert found["test"]["personal"]["accuracy"]["worst"] == pytest.approx(min(shares))


def test_rows_without_a_network_are_those_of_a_run(tmp_path):
    torch.set_num_threads(1)
    trainer = FederatedTrainer(
        ZeroShot(), max_rounds=1, local_steps=1, default_root_dir=tmp_path, seed=0, enable_progress_bar=False
    )
    folder = trainer.fit(ClassificationTask(channels=3), made())
    rows = [line.split(",") for line in (folder.path / "naive.csv").read_text().splitlines()[1:]]
    for predictor in PREDICTORS:
        mean = score(made(), predictor)["test"]["personal"]["accuracy"]["mean"]
        assert [float(r[6]) for r in rows if predictor in r[2] and r[3:6] == ["mean", "test", "accuracy"]] == [mean]


def test_what_the_file_has_of_a_row_without_a_network_stands_whatever_rates_are_chosen():
    assert Cell("naive", "images", "linear model", ZeroShot(), 0).choices == {}
    by_cosine = next(cell for cell in cells([0]) if cell.part == "cosine")
    assert by_cosine.choices["optimizer"] == "SGD, cosine"
    assert len({cell.key for cell in cells([0, 1])}) == len([*cells([0, 1])])


def test_of_many_comparisons_one_that_is_small_by_itself_gets_no_star():
    gaps = {"a": [5.0, 6.0, 5.5], "b": [5.0, -6.0, 0.5], "c": []}
    lines = against(lambda *place: gaps[place[2][1]], ["x"], ("main", "r"), [(g, ("main", g)) for g in gaps])
    assert lines[2:5] == ["| a | +5.5 * |", "| b | -0.2 |", "| c | - |"]
    many = [gaps["a"], *([gaps["b"]] * 20)]
    assert told(many).startswith(
        "p < .05 after Holm's correction over these 21 paired t tests: 0 of them (before it 1; "
    )
    assert "of one sign in all seeds: 1)" in told(many)
