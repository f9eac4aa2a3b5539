"""Signals in a mapped file: the same windows as from memory, one record at a time, and nothing left behind."""

import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from records_in_memory import SMALL, many
from torch.utils.data import DataLoader

from fedlit.data import SignalDataModule, SimulatedVitals
from fedlit.data.signals.store import SignalStore
from fedlit.data.signals.windows import Windows
from fedlit.errors import FedlitError


class OneByOne(SignalDataModule):
    """A reader that makes its records when they are asked for."""

    def __init__(self, make, **kwargs):
        self.make = make
        super().__init__(**kwargs)

    def read(self):
        yield from self.make()

    def write_stand_in(self, folder):
        raise AssertionError("not used")


def holed(record):
    """Records in an order that is not that of their names, of several lengths, two with gaps."""
    given = [record(f"s{n % 2}-p{n}", site=f"s{n % 2}", samples=500 + 7 * n) for n in (11, 3, 10, 0, 2, 9, 1, 8)]
    given[1].values[100:120] = np.nan
    given[4].values[490:] = np.nan
    return given


def unnamed():
    """Files without a name that this process holds open."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")
    gc.collect()
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if (to := os.readlink(f"/proc/self/fd/{number}")).endswith("(deleted)"):
                found.append(to)
    return sorted(found)


def test_arrays_come_back_as_they_were_put_in():
    arrays = [np.arange(3.0), np.zeros(0), np.array([np.nan, -0.0], ">f4"), np.arange(20, dtype=np.int16)[::-2]]
    with SignalStore() as store:
        assert [store.add(array) for array in arrays] == [0, 3, 3, 5]
        flat = store.mapped()
    assert type(flat) is np.ndarray
    assert flat.dtype == np.float32
    assert flat.tobytes() == np.concatenate([array.astype(np.float32) for array in arrays]).tobytes()
    with pytest.raises(ValueError, match="read-only"):
        flat[0] = 1


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_windows_have_the_bytes_they_would_have_from_memory(record, kind):
    given = holed(record)
    data = OneByOne(lambda: kind(given), split="time", stride=3, **SMALL)
    data.setup()
    assert [r.id for r in data.records] == [f"s{n % 2}-p{n}" for n in (0, 2, 8, 10, 1, 3, 9, 11)]
    by_id = {r.id: r.values for r in given}
    assert all(r.values.tobytes() == by_id[r.id].tobytes() for r in data.records)
    plain = np.concatenate([by_id[r.id] for r in data.records])
    ends = np.cumsum([len(r.values) for r in data.records])
    base = {r.id: int(end) - len(r.values) for r, end in zip(data.records, ends, strict=True)}
    for split in ("train", "val", "test"):
        windows = data.dataset(data.clients, split)
        runs = [replace(run, base=base[run.record]) for run in windows.runs]
        wanted = Windows(plain, runs, 40, 10).__getitems__(range(len(windows)))
        got = windows.__getitems__(range(len(windows)))
        for name, value in wanted.items():
            if isinstance(value, torch.Tensor):
                assert got[name].numpy().tobytes() == value.numpy().tobytes()
            else:
                assert got[name] == value


def test_resampled_and_filtered_records_too(record):
    given = [*holed(record), record("flat", values=np.ones(600))]
    data = OneByOne(lambda: given, rate=50.0, exclude=["s0-p2"], on_bad_record="skip", **SMALL)
    with pytest.warns(UserWarning, match="skipped, 7 kept: flat"):
        data.setup()
    assert data._flat.size == sum(-(-len(r.values) // 2) for r in given[:-1] if r.id != "s0-p2")
    assert data.describe()["gaps"].keys() == {"s1-p3"}


def test_records_are_not_held_while_others_are_read(record):
    alive = []

    def make():
        for one in many(record, rate=100.0):
            values = one.values.copy()
            alive.append(weakref.ref(values))
            assert sum(ref() is not None for ref in alive) <= 2, "this one and the one before"
            yield replace(one, values=values)
            del values

    data = OneByOne(make, rate=50.0, **SMALL)
    data.setup()
    assert len(alive) == 8
    assert not [ref for ref in alive if ref() is not None]
    unreachable = OneByOne(make, rate=0.001, **SMALL)
    with pytest.raises(FedlitError, match="cannot be resampled"):
        unreachable.setup()


MEMORY = textwrap.dedent("""
    import threading, time
    import numpy as np
    from fedlit.data import BySubject, Record, SignalDataModule

    def anonymous():
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

    class Long(SignalDataModule):
        def read(self):
            for n in range(32):
                values = np.random.default_rng(n).standard_normal(2**19, np.float32)
                yield Record(f"p{n}", f"p{n}", "a", "ecg", 100.0, values)

        def write_stand_in(self, folder):
            pass

    def watch():
        while not done.is_set():
            seen.append(anonymous())
            time.sleep(0.001)

    data, done, before = Long(partition=BySubject(), split="time"), threading.Event(), anonymous()
    seen = []
    thread = threading.Thread(target=watch)
    thread.start()
    data.setup()
    done.set()
    thread.join()
    windows = data.dataset(data.clients, "train")
    for first in range(0, len(windows), 512):
        windows.__getitems__(range(first, min(first + 512, len(windows))))
    print(data._flat.nbytes / 2**20, max(seen) - before, anonymous() - before)
""")


def test_set_up_needs_memory_for_a_record_and_not_for_the_data_set():
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    run = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    held, peak, after = map(float, run.stdout.split())
    assert held == 64
    assert peak < 32
    assert after < 32


def test_the_file_goes_with_the_module(in_memory, record, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = unnamed()
    data = in_memory(many(record), **SMALL)
    data.setup()
    windows = data.dataset("site-s0", "train")
    assert len(unnamed()) == len(before) + 1
    assert list(tmp_path.iterdir()) == []
    del data
    gc.collect()
    assert len(unnamed()) == len(before) + 1, "its windows still look into the file"
    assert len(windows[0]["context"]) == 40
    del windows
    gc.collect()
    assert unnamed() == before


def test_the_file_goes_after_an_error(in_memory, record):
    before = unnamed()

    def broken():
        yield from many(record)
        raise OSError("the disk is away")

    with pytest.raises(OSError, match="the disk is away") as caught:
        OneByOne(broken, **SMALL).setup()
    assert caught.tb is not None
    assert unnamed() == before, "also while the error is kept, and with it what the set-up held"
    with pytest.raises(FedlitError, match="is flat"):
        in_memory([*many(record), record("bad", values=np.zeros(600))], **SMALL).setup()
    with pytest.raises(FedlitError, match="needs 3"):
        in_memory(many(record, subjects=2), **SMALL).setup()
    gc.collect()
    assert unnamed() == before


@contextlib.contextmanager
def files_no_larger_than(size):
    """As on a full disk: a write that goes on beyond it fails."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("samples", [300, 600, 50_000])
def test_a_full_disk(in_memory, record, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = in_memory(many(record, samples=samples), **SMALL)
    before = unnamed()
    with pytest.raises(FedlitError) as caught, files_no_larger_than(8 * samples):
        data.setup()
    assert str(caught.value) == (
        f"{tmp_path}: the signals cannot be kept in a file (File too large): free some space there, "
        "or set the environment variable TMPDIR to a folder with more"
    )
    assert unnamed() == before
    data.setup()
    assert data.clients == ["site-s0", "site-s1"]


def test_no_folder_to_write_to(in_memory, record, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(
        FedlitError, match=r"absent: the signals cannot be kept in a file \(No such file or directory\):"
    ):
        in_memory(many(record), **SMALL).setup()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "absent")])
    with pytest.raises(FedlitError, match=r"^temporary folder: .* \(No usable temporary directory found.*TMPDIR"):
        in_memory(many(record), **SMALL).setup()


def batches(data):
    data.setup()
    windows = data.dataset(data.clients, "train")
    return windows.__getitems__(range(len(windows)))


def test_a_module_that_was_set_up_can_be_copied_and_pickled():
    data = SimulatedVitals()
    wanted = batches(data)
    for other in (copy.copy(data), copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert torch.equal(batches(other)["context"], wanted["context"])
        assert other.describe() == data.describe()
    again = copy.deepcopy(SimulatedVitals())
    assert torch.equal(batches(again)["target"], wanted["target"])


def test_forked_workers_look_into_the_same_file(in_memory, record):
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    data = in_memory(many(record), **SMALL)
    data.setup()
    windows = data.dataset(data.clients, "train")
    loader = DataLoader(
        windows, batch_size=len(windows), num_workers=1, collate_fn=data.collate, multiprocessing_context="fork"
    )
    (batch,) = loader
    assert torch.equal(batch["context"], batches(data)["context"])
