"""Windows drawn once, and what training sees of them."""

import csv

import numpy as np
import pytest
import torch
from records_in_memory import SMALL, many

from fedlit.aggregators import FedAvg
from fedlit.backbones import LoRA
from fedlit.data import BySubject
from fedlit.data.signals.training import TrainingWindows
from fedlit.errors import FedlitError
from fedlit.tasks import ForecastingTask


def starts(dataset) -> list[tuple[str, int]]:
    batch = dataset.__getitems__(range(len(dataset)))
    return list(zip(batch["record"], batch["start"].tolist(), strict=True))


def test_so_many_windows_of_a_client_are_drawn_once(in_memory, record):
    def made(records, **kwargs):
        return in_memory(records, **{"stride": 1, "split": "time", "train_windows": 30, **SMALL, **kwargs})

    data, all_windows = made(many(record)), made(many(record), train_windows=None)
    own = starts(data.dataset("site-s0", "train"))
    assert len(own) == 30 == data.example_counts("site-s0")["train"]
    assert set(own) < set(starts(all_windows.dataset("site-s0", "train")))
    assert len({name for name, _ in own}) == 4  # of all its records, not the first ones
    assert own != sorted(starts(all_windows.dataset("site-s0", "train")))[:30]
    assert starts(made(many(record)).dataset("site-s0", "train")) == own
    assert starts(made(many(record, sites=1)).dataset("site-s0", "train")) == own  # whoever else takes part
    assert starts(made(many(record), seed=1).dataset("site-s0", "train")) != own
    both = starts(data.dataset(data.clients, "train"))
    assert both == own + starts(data.dataset("site-s1", "train"))
    for split in ("val", "test"):
        assert starts(data.dataset("site-s0", split)) == starts(all_windows.dataset("site-s0", split))


def test_one_window_of_each_record_as_published_for_ptb_xl(in_memory, record):
    data = in_memory(many(record, subjects=5), parity=True, windows_per_record=1, **SMALL)
    data.setup()
    for client in data.clients:
        drawn = starts(data.dataset(client, "train"))
        assert sorted(name for name, _ in drawn) == sorted(data.describe()["clients"][client]["records"]["train"])
        assert len({start for _, start in drawn}) > 1  # not all at one place
    assert data.describe()["windows"]["windows_per_record"] == 1


def test_windows_of_a_record_are_drawn_over_its_gaps(in_memory, record):
    holed = record("p0", samples=400)
    holed.values[190:200] = np.nan
    data = in_memory([holed], partition=BySubject(), split="time", stride=1, max_missing=0, windows_per_record=9,
                     val_fraction=0, test_fraction=0.25, **SMALL)  # fmt: skip
    drawn = [start for _, start in starts(data.dataset("subject-p0", "train"))]
    assert len(drawn) == 9
    assert drawn == sorted(set(drawn))
    assert min(drawn) < 190 < max(drawn)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_windows": 200}, r"data.train_windows is 200, and 2 client\(s\) have fewer windows, which are all "
                                 r"used: site-s0 \(112\), site-s1 \(112\): lower data.train_windows or data.stride"),
        ({"windows_per_record": 57}, r"data.windows_per_record is 57, and 4 record\(s\) have fewer"),
    ],
)  # fmt: skip
def test_too_few_windows_are_said(in_memory, record, given, message):
    data = in_memory(many(record), **given, **SMALL)
    with pytest.warns(UserWarning, match=message):
        data.setup()
    assert len(data.dataset("site-s0", "train")) == 112
    assert any("fewer windows" in said for said in data.describe()["warnings"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train_windows": 0}, "data.train_windows is 0: give a number above 0"),
        ({"windows_per_record": -1}, "data.windows_per_record is -1: give a number above 0"),
        ({"drop_observations": 1.5}, "data.drop_observations is 1.5: give a share from 0 to 1"),
        ({"min_context": 41}, "data.min_context is 41, longer than data.context_length: give 1 to 40"),
        ({"train_windows": 4, "windows_per_record": 1}, "train_windows is 4 and data.windows_per_record 1: give one"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_be(in_memory, record, given, message):
    with pytest.raises(FedlitError, match=message):
        in_memory(many(record), **given, **SMALL)


def altered(count=2000, moving=True, values=None, **given):
    whole = np.random.default_rng(0).standard_normal((count, 50)).astype(np.float32) if values is None else values
    draws = np.random.default_rng(1)
    seen, start = TrainingWindows(**given).altered(whole, np.full(len(whole), 100), 40, moving, draws)
    return whole, seen, start


def test_a_share_between_none_and_the_upper_end_is_dropped_of_context_and_target():
    whole, seen, start = altered(drop_observations=0.2)
    lost = np.isnan(seen)
    assert np.array_equal(seen[~lost], whole[~lost])
    assert (start == 100).all()
    for part in (lost[:, :40], lost[:, 40:]):
        assert part.mean() == pytest.approx(0.1, abs=0.005)  # the mean of U(0, 0.2)
    # U(0, a) and then binomial of n: variance a²/12 + (a/2 - a²/3)/n
    assert lost.mean(1).var() == pytest.approx(0.2**2 / 12 + (0.1 - 0.04 / 3) / 50, rel=0.1)


def test_a_target_starts_after_a_random_number_of_samples():
    whole, seen, start = altered(min_context=10)
    before = (~np.isnan(seen[:, :40])).sum(1)
    assert np.isfinite(seen[:, 40:]).all()
    assert set(before) == set(range(10, 41))
    assert np.bincount(before)[10:].std() < 12  # about 65 of each
    for row in range(20):
        place = before[row]
        assert np.array_equal(seen[row, 40 - place :], whole[row, : place + 10])
        assert np.isnan(seen[row, : 40 - place]).all()
        assert start[row] == 100 - (40 - place)


def test_a_window_of_which_nothing_would_be_left_stays_whole():
    gone, seen, _ = altered(200, drop_observations=1.0)
    for part in (seen[:, :40], seen[:, 40:]):
        assert (~np.isnan(part)).any(1).all()
    still = np.zeros((300, 50), np.float32)
    still[:, 35:40] = 1, 2, 3, 2, 1  # what moves comes late
    still[:, 40:] = 2
    whole, seen, start = altered(values=still, min_context=5)
    assert ((np.fmax.reduce(seen[:, :40], 1) - np.fmin.reduce(seen[:, :40], 1)) > 0).all()
    kept = (seen == whole).all(1)
    assert 0.7 < kept.mean() < 1
    assert (start[kept] == 100).all()
    _, seen, _ = altered(moving=False, values=still, min_context=5)
    assert ((seen == whole).all(1)).mean() < 0.1  # where the scale is fixed, a flat context is as good as another


def test_the_scale_is_of_what_is_seen(in_memory, record):
    data = in_memory(many(record), min_context=10, drop_observations=0.5, **SMALL)
    data.setup()
    dataset = data.dataset("site-s0", "train")
    batch = data.as_trained_on(dataset, 7).batch(range(100), 0)
    context = batch["context"].numpy()
    assert np.fmin.reduce(context, 1).tolist() == [0.0] * 100
    assert np.fmax.reduce(context, 1).tolist() == pytest.approx([1.0] * 100)
    by_id = {r.id: r.values for r in data.records}
    original = batch["target"] * batch["scale"][:, None] + batch["offset"][:, None]
    for name, start, target in zip(batch["record"], batch["start"].tolist(), original.numpy(), strict=True):
        there = by_id[name][start + 40 : start + 50]
        assert np.allclose(target, there, atol=1e-5, equal_nan=False) or np.isnan(target).any()
        assert np.allclose(np.where(np.isnan(target), there, target), there, atol=1e-5)


def test_draws_are_of_the_seed_and_the_number_of_the_batch(in_memory, record):
    data = in_memory(many(record), drop_observations=0.2, min_context=20, **SMALL)
    dataset = data.dataset("site-s0", "train")

    def seen(seed, number):
        return data.as_trained_on(dataset, seed).batch(range(8), number)["context"]

    assert torch.equal(seen(1, 3).nan_to_num(9), seen(1, 3).nan_to_num(9))
    assert not torch.equal(seen(1, 3).nan_to_num(9), seen(1, 4).nan_to_num(9))
    assert not torch.equal(seen(1, 3).nan_to_num(9), seen(2, 3).nan_to_num(9))
    plain = in_memory(many(record), train_windows=10, **SMALL)
    whole = plain.dataset("site-s0", "train")
    assert plain.as_trained_on(whole, 1) is whole


def test_what_is_drawn_is_told(in_memory, record):
    given = {"train_windows": 20, "drop_observations": 0.2, "min_context": 30}
    data = in_memory(many(record), **given, **SMALL)
    assert {name: data.describe()["windows"][name] for name in given} == given
    assert data.describe()["clients"]["site-s0"]["windows"] == {"train": 20, "val": 56, "test": 56}
    note = data.overview().shown.tables[0].note
    assert note.endswith("train windows are at most 20 a client, drawn once, up to 20 % of each one's samples are "
                         "dropped in training, contexts have 30 samples or more there")  # fmt: skip
    usual = in_memory(many(record), **SMALL)
    assert not set(given) & set(usual.describe()["windows"])
    assert "drawn" not in usual.overview().shown.tables[0].note


@pytest.mark.parametrize("backbone", ["builtin", "amazon/chronos-t5-tiny", "amazon/chronos-2"])
def test_every_family_learns_from_windows_with_holes(in_memory, record, backbone):
    data = in_memory(many(record), drop_observations=0.9, min_context=1, **SMALL)
    task = ForecastingTask(backbone, None, prediction_length=10)
    task.use_stand_in()
    task.configure_model()
    dataset = data.dataset("site-s0", "train")
    batch = data.as_trained_on(dataset, 0).batch(range(64), 0)
    assert batch["target"].isnan().any()
    assert batch["context"].isnan().any()
    losses = task.losses(batch)
    assert torch.isfinite(losses).all()
    losses.mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)


def test_a_run_is_the_same_side_by_side_and_resumed(fit, in_memory, record, tmp_path):
    def run(name, **settings):
        task = ForecastingTask("builtin", LoRA(r=2), prediction_length=10)
        task.use_stand_in()
        given = {"batch_size": 4, "eval_windows": 4, "drop_observations": 0.2, "min_context": 8, "train_windows": 10}
        data = in_memory(many(record), **SMALL, **{**given, **settings.pop("data", {})})
        own = {"default_root_dir": str(tmp_path / name), "local_steps": 4, "naive": False, "max_rounds": 2,
               "evaluate_at": ["after_aggregation"]}  # fmt: skip
        return fit(FedAvg(), task, data, **{**own, **settings})

    def errors(folder):
        with (folder.path / "metrics.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row["metric"] == "rmse"]
        return {tuple(row.values())[:6]: float(row["value"]) for row in rows if row["round"] == "2"}

    once = errors(run("once"))
    assert len(once) >= 4
    assert errors(run("beside", clients_at_once=2)) == pytest.approx(once, rel=5e-5)
    half = run("half", max_rounds=1)
    assert errors(run("half", ckpt_path=str(half.path))) == once
    assert errors(run("whole", data={"drop_observations": 0.0})) != pytest.approx(once, rel=2e-4)
