"""A sensor that is off gives a constant in raw units: such windows have no scale, and no say in any figure."""

import numpy as np
import pytest
import torch
from records_in_memory import SMALL, many

from fedlit.data import BySubject
from fedlit.data.signals.resampling import resample
from fedlit.errors import FedlitError


def with_off(record, name="off", samples=2000, level=512.0, **kwargs):
    made = record(name, samples=samples, **kwargs)
    made.values[samples // 10 : samples // 3] = level
    made.values[int(samples * 0.7) : int(samples * 0.85)] = level
    return made


def all_of(data, client):
    for split in ("train", "val", "test"):
        windows = data.dataset(client, split)
        if len(windows):
            yield windows.__getitems__(range(len(windows)))


@pytest.mark.parametrize("scale", ["context", "standard"])
@pytest.mark.parametrize("split", ["time", "subject"])
def test_no_window_without_movement_is_cut_in_any_part(in_memory, record, scale, split):
    given = [with_off(record, f"off{n}") for n in range(4)]
    kept = in_memory(given, scale=scale, split=split, partition=BySubject(4 if split == "time" else 1), **SMALL)
    with pytest.warns(UserWarning, match=r"client\(s\) have many windows whose context does not move.*\(3\d%\)"):
        kept.setup()
    facts = kept.describe()
    raw = in_memory(given, scale="none", split=split, partition=BySubject(4 if split == "time" else 1), **SMALL)
    for client, own in facts["clients"].items():
        assert own["windows_flat"] > 10
        before = raw.describe()["clients"][client]
        assert before["windows_flat"] == 0
        assert sum(before["windows"].values()) == sum(own["windows"].values()) + own["windows_flat"]
        for batch in all_of(kept, client):
            assert batch["scale"].max() < 600
            assert batch["target"].abs().max() < 600
    assert {name: flat["stretches"] for name, flat in facts["flat"].items()} == {f"off{n}": 2 for n in range(4)}
    assert facts["flat"]["off0"]["samples"] == 466 + 300


def test_windows_of_the_server_are_looked_at_too(in_memory, record):
    data = in_memory([with_off(record, f"off{n}", site="a") for n in range(6)], server_records=2, **SMALL)
    with pytest.warns(UserWarning, match="does not move"):
        served = data.server_dataset()
    assert served.__getitems__(range(len(served)))["scale"].min() < 600
    assert not (served.__getitems__(range(len(served)))["scale"] == 1).any()
    assert data.describe()["server_left_out"]["windows_flat"] > 10


def test_a_client_whose_windows_are_all_flat_is_named(in_memory, record):
    values = np.full(1000, 512.0)
    values[0] = 0
    given = [*many(record, subjects=3, sites=1, samples=1000), record("off", values=values, site="z")]
    with pytest.raises(FedlitError, match="client 'subject-off' has no val windows: 0 .* and 87 a context that"):
        in_memory(given, partition=BySubject(), split="time", **SMALL).setup()
    in_memory(given, partition=BySubject(), split="time", scale="none", **SMALL).setup()


def test_a_signal_that_moves_everywhere_loses_nothing(in_memory, record):
    facts = in_memory(many(record), **SMALL).describe()
    assert facts["flat"] == {}
    assert facts["warnings"] == []
    assert {own["windows_flat"] for own in facts["clients"].values()} == {0}


def test_under_parity_flat_parts_stay_and_are_counted(in_memory, record):
    made = record("p0", samples=7000)
    made.values[4200:] = 3
    data = in_memory([made, record("p1", samples=7000)], parity=True, partition=BySubject(), **SMALL)
    facts = data.describe()["clients"]
    test = data.dataset("subject-p0", "test")
    assert facts["subject-p0"]["windows_flat"] == facts["subject-p0"]["windows"]["test"] == len(test) > 0
    assert facts["subject-p1"]["windows_flat"] == 0
    batch = test.__getitems__(range(5))
    assert torch.equal(batch["target"], torch.zeros_like(batch["target"]))


@pytest.mark.parametrize(("old", "new"), [(250, 100), (100, 250), (360, 125)])
def test_what_is_flat_is_flat_at_another_rate(old, new):
    values = (512 + 50 * np.sin(np.arange(20 * old) / old * 7)).astype(np.float32)
    values[8 * old : 14 * old] = 4095
    made = resample(values, old, new)
    assert (made[9 * new : 13 * new] == 4095).all()
    assert np.isfinite(made).all()
    assert abs(made[4 * new] - values[4 * old]) < 1
