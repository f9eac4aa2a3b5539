import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import Record
from fedlit.data.base.records import SPLITS
from fedlit.data.signals.splits import split_as_published, split_clients
from fedlit.errors import FedlitError


def make(name: str, subject: str | None = None, samples: int = 100, fold=None, rate: float = 100.0) -> Record:
    return Record(name, subject or name, "a", "ecg", rate, np.zeros(samples, np.float32), fold=fold)


def held(records, parts):
    return {split: [records[part.record].id for part in parts[split]] for split in SPLITS}


def test_subjects_are_on_one_side():
    records = [make(f"{s}-{n}", f"s{s}") for s in range(10) for n in range(3)]
    parts = split_clients(records, {"a": list(range(30))}, "subject", 0.15, 0.25, seed=0)["a"]
    subjects = {split: {records[part.record].subject for part in parts[split]} for split in SPLITS}
    assert [len(subjects[split]) for split in SPLITS] == [6, 2, 2]
    assert not subjects["train"] & subjects["val"] | subjects["train"] & subjects["test"]
    assert sum(len(parts[split]) for split in SPLITS) == 30
    other = split_clients(records, {"a": list(range(30))}, "subject", 0.15, 0.25, seed=1)["a"]
    assert held(records, parts) != held(records, other)


@settings(max_examples=60, deadline=None)
@given(owners=st.lists(st.integers(0, 8), min_size=6, max_size=40), seed=st.integers(0, 4))
def test_a_subject_of_several_clients_is_on_the_same_side_everywhere(owners, seed):
    records = [make(f"r{i}", f"s{owner}") for i, owner in enumerate(owners)]
    assignment = {"a": list(range(0, len(records), 2)), "b": list(range(1, len(records), 2))}
    try:
        made = split_clients(records, assignment, "subject", 0.2, 0.2, seed)
    except FedlitError as error:
        if "partition with fewer, larger clients" in str(error):
            return
        raise
    side = {}
    for parts in made.values():
        assert all(parts[split] for split in SPLITS)
        for split in SPLITS:
            for part in parts[split]:
                assert side.setdefault(records[part.record].subject, split) == split


@pytest.mark.parametrize(("count", "val", "need"), [(2, 0.15, 3), (1, 0.0, 2)])
def test_too_few_subjects(count, val, need):
    records = [make(f"r{i}") for i in range(count)]
    with pytest.raises(FedlitError, match=rf"client 'site-b' has {count} subject\(s\), .* needs {need}.*split to time"):
        split_clients(records, {"site-b": list(range(count))}, "subject", val, 0.25, 0)
    more = [*records, make("more")]
    parts = split_clients(more, {"site-b": list(range(count + 1))}, "subject", val, 0.25, 0)["site-b"]
    assert len(parts["train"]) == len(parts["test"]) == 1


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.25), (0.0, 0.4), (0.45, 0.45), (0.3, 0.0)])
@pytest.mark.parametrize("count", [3, 4, 7, 50])
def test_shares(val, test, count):
    records = [make(f"r{i}") for i in range(count)]
    parts = split_clients(records, {"a": list(range(count))}, "record", val, test, 0)["a"]
    assert sum(len(parts[split]) for split in SPLITS) == count
    assert parts["train"]
    assert bool(parts["val"]) == (val > 0)
    assert bool(parts["test"]) == (test > 0)
    if count == 50:
        assert len(parts["test"]) == pytest.approx(test * 50, abs=1)


def test_time_parts_follow_each_other():
    records = [make("r", samples=1000), make("q", samples=101)]
    parts = split_clients(records, {"a": [0, 1]}, "time", 0.15, 0.25, 0)["a"]
    spans = [(parts[split][0].start, parts[split][0].stop) for split in SPLITS]
    assert spans == [(0, 600), (600, 750), (750, 1000)]
    assert parts["test"][1].stop == 101
    assert split_clients(records, {"a": [0]}, "time", 0.0, 0.4, 0)["a"]["val"] == []


def test_folds_of_the_source():
    records = [make(f"r{fold}", fold=fold) for fold in SPLITS]
    parts = split_clients(records, {"a": [0, 1, 2]}, "fold", 0.15, 0.25, 0)["a"]
    assert held(records, parts) == {split: [f"r{split}"] for split in SPLITS}
    parts = split_clients(records, {"a": [0, 1, 2]}, "fold", 0.0, 0.25, 0)["a"]
    assert held(records, parts) == {"train": ["rtrain", "rval"], "val": [], "test": ["rtest"]}
    with pytest.raises(FedlitError, match="client 'a' has no record in the source's val fold"):
        split_clients(records, {"a": [0, 2]}, "fold", 0.15, 0.25, 0)
    with pytest.raises(FedlitError, match="record 'x' has no fold"):
        split_clients([make("x")], {"a": [0]}, "fold", 0.15, 0.25, 0)


def test_parity_cuts_long_recordings_in_time():
    records = [make("r", samples=60_000), make("q", samples=60_001)]
    parts, rule = split_as_published(records, [0, 1], "a", "subject", 0)
    assert rule == "time 60/40"
    assert [(part.start, part.stop) for part in parts["train"]] == [(0, 36_000), (0, 36_000)]
    assert [(part.start, part.stop) for part in parts["test"]] == [(36_000, 60_000), (36_000, 60_001)]
    assert parts["val"] == []


def test_parity_deals_out_short_records():
    records = [make(f"r{i}", samples=1000) for i in range(10)]
    parts, rule = split_as_published(records, list(range(10)), "a", "subject", 0)
    assert rule == "records 60/40"
    assert (len(parts["train"]), len(parts["val"]), len(parts["test"])) == (6, 0, 4)
    assert split_as_published(records, list(range(10)), "a", "time", 0)[1] == "time 60/40"
    assert split_as_published(records, [0], "a", "subject", 0)[1] == "time 60/40"
    with pytest.raises(FedlitError, match="client 'a' has 1 record"):
        split_as_published(records, [0], "a", "record", 0)
