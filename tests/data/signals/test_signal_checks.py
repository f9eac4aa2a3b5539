"""What is wrong or odd in records and arguments, and how it is said."""

from dataclasses import replace

import numpy as np
import pytest
from records_in_memory import SMALL, many

from fedlit.data import BadRecord, BySubject
from fedlit.data.signals.checks import amplitude_outliers, fault, gaps, missing_code
from fedlit.errors import FedlitError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(600), "record 'bad' is flat: every sample is 0"),
        (np.append(np.arange(599), np.inf), r"holds 1 infinite sample\(s\)"),
        (np.full(600, np.nan), "holds no sample that is not missing"),
        (np.arange(49.0), r"has 49 samples \(0.49 s at 100 Hz\), fewer than context_length \+ prediction_length = 50"),
    ],
)
def test_a_bad_record_is_refused_or_skipped_aloud(in_memory, record, values, message):
    given = [*many(record), record("bad", values=values, site="s0")]
    with pytest.raises(BadRecord, match=message + ".*data.on_bad_record skip"):
        in_memory(given, **SMALL).setup()
    data = in_memory(given, on_bad_record="skip", **SMALL)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 8 kept: bad"):
        data.setup()
    excluded = data.describe()["excluded"]
    assert [entry["record"] for entry in excluded] == ["bad"]
    in_memory(given, exclude=["ba*"], **SMALL).setup()
    with pytest.raises(FedlitError, match="no record left.*bad"):
        in_memory(given[-1:], on_bad_record="skip", **SMALL).setup()


def test_too_short_is_judged_at_the_rate_of_use(in_memory, record):
    given = many(record, samples=600)
    in_memory(given, rate=50.0, **SMALL).setup()
    with pytest.raises(BadRecord, match="has 30 samples"):
        in_memory(given, rate=5.0, **SMALL).setup()
    with pytest.raises(FedlitError, match="data.rate is 0.001: records at 100 Hz cannot be resampled"):
        in_memory(given, rate=0.001, **SMALL).setup()


@pytest.mark.parametrize("factor", [5, 0.2, 1000])
def test_wrong_gain_is_named(in_memory, record, factor):
    given = many(record)
    given.append(record("loud", site="s0", values=factor * given[0].values))
    data = in_memory(given, **SMALL)
    with pytest.warns(UserWarning, match=r"1 record\(s\) differ .*: loud \(.*x\): check the gain in the header"):
        data.setup()
    assert "loud" in data.describe()["warnings"][0]
    assert list(data.describe()["amplitude"]) == ["loud"]


def test_kinds_are_not_compared_with_each_other(record):
    given = many(record) + [record(f"i{n}", kind="icg", values=50 * record(f"i{n}").values) for n in range(4)]
    assert amplitude_outliers(given) == {}
    assert fault(given[0], 600) is None
    assert gaps(given[0]) == (0, 0)


def test_numbers_that_stand_for_missing_samples_are_said(in_memory, record):
    given = many(record)
    given[0].values[[5, 7, 9]] = -999
    given[1].values[:] = 32767 * (given[1].values > 0)  # clipped, but nothing else
    given[2].values[3] = 9999
    assert [missing_code(own) for own in given[:3]] == [-999, None, None]
    with pytest.warns(UserWarning, match=r"1 record\(s\) hold a number that looks like .*: s0-p0 \(-999\): leave such"):
        in_memory(given, **SMALL).setup()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"parity": True, "val_fraction": 0.2}, ["data.val_fraction: no effect beside data.parity"]),
        ({"parity": True, "scale": "none", "split": "fold"}, ["data.scale, data.split: no effect beside data.parity"]),
        ({"parity": True, "split": "record"}, []),
        ({"split": "fold", "test_fraction": 0.3}, ["data.test_fraction: no effect beside data.split fold"]),
        ({"split": "fold", "val_fraction": 0.0}, []),
        ({"split": "record", "val_fraction": 0.2}, []),
    ],
)
def test_arguments_without_effect_are_told(in_memory, record, kwargs, said):
    given = [replace(r, fold=fold, id=r.id + fold) for fold in ("train", "val", "test") for r in many(record)]
    facts = in_memory(given, **kwargs, **SMALL).describe()
    assert [message for message in facts["warnings"] if "no effect" in message] == [
        f"{s}: leave out one or the other" for s in said
    ]


def test_mixed_rates_are_said(in_memory, record):
    given = [*many(record), record("fast", rate=500.0, site="s0")]
    with pytest.warns(UserWarning, match=r"ecg records have different rates \(100, 500 Hz\): set data.rate"):
        in_memory(given, **SMALL).setup()


def test_a_client_without_windows_is_named(in_memory, record):
    given = [record(f"p{n}", samples=1000 if n else 150) for n in range(3)]
    with pytest.raises(
        FedlitError, match="client 'subject-p0' has no val windows: its longest val part has 22 samples"
    ):
        in_memory(given, partition=BySubject(), split="time", **SMALL).setup()
    holed = record("p3", samples=1000)
    holed.values[np.arange(0, 1000, 8)] = np.nan
    with pytest.raises(FedlitError, match="client 'subject-p3' has no train windows: .* missing samples"):
        in_memory([holed], partition=BySubject(), split="time", **SMALL).setup()


def test_one_subject_cannot_be_split_by_subject(in_memory, record):
    with pytest.raises(FedlitError, match=r"client 'subject-p0' has 1 subject\(s\).*set data.split to time"):
        in_memory([record("p0")], partition=BySubject(), **SMALL).setup()


def test_a_subject_in_several_splits_is_said(in_memory, record):
    given = [record(f"p-{n}", subject="p") for n in range(6)]
    with pytest.warns(UserWarning, match=r"1 subject\(s\) have records in several splits: p:"):
        in_memory(given, split="record", **SMALL).setup()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"context_length": 0}, "data.context_length is 0"),
        ({"rate": -1.0}, "data.rate is -1"),
        ({"rate": float("nan")}, "data.rate is nan"),
        ({"stride": 0}, "data.stride is 0"),
        ({"split": "subjects"}, "data.split is 'subjects': give one of subject, record, time, fold"),
        ({"scale": "minmax"}, "data.scale is 'minmax'"),
        ({"on_bad_record": "ignore"}, "data.on_bad_record is 'ignore'"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"max_missing": 2.0}, "data.max_missing is 2"),
    ],
)
def test_arguments_out_of_range(in_memory, kwargs, message):
    with pytest.raises(FedlitError, match=message):
        in_memory([], **kwargs)


def test_unknown_client_split_and_twin_ids(in_memory, record):
    data = in_memory(many(record), **SMALL)
    with pytest.raises(FedlitError, match="no client 'x': there are site-s0, site-s1"):
        data.dataset("x", "train")
    with pytest.raises(FedlitError, match="no split 'dev'"):
        data.dataset("site-s0", "dev")
    with pytest.raises(FedlitError, match="two records are named 's0-p0'"):
        in_memory([*many(record), record("s0-p0")], **SMALL).setup()


def test_an_exclusion_that_hits_nothing_is_said(in_memory, record):
    with pytest.warns(UserWarning, match="no record is named like zz"):
        in_memory(many(record), exclude=["zz*"], **SMALL).setup()


def test_of_several_wrong_records_the_first_by_name_is_told(in_memory, record):
    flat, infinite = (record(name, values=np.full(600, size), site="s0") for name, size in (("x10", 1), ("x9", np.inf)))
    with pytest.raises(BadRecord, match="record 'x9' holds 600 infinite"):
        in_memory([flat, *many(record), infinite], **SMALL).setup()
    with pytest.raises(FedlitError, match="two records are named 's0-p0'"):
        in_memory([flat, *many(record), record("s0-p0"), infinite], exclude=["s0-p0"], **SMALL).setup()
    with pytest.raises(BadRecord, match="record 'x9' holds"):
        in_memory([*many(record, rate=10.0), record("z", rate=1e9), infinite], rate=10.0, **SMALL).setup()
    with pytest.raises(FedlitError, match="data.rate is 10: records at 1e.09 Hz cannot be resampled"):
        in_memory([infinite, record("b", rate=1e9), *many(record, rate=10.0)], rate=10.0, **SMALL).setup()
    kept = in_memory([flat, *many(record), infinite], exclude=["x9"], on_bad_record="skip", **SMALL)
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 8 kept: x10"):
        kept.setup()
    assert [entry["record"] for entry in kept.describe()["excluded"]] == ["x10", "x9"]


def test_a_record_of_two_channels_is_refused(in_memory, record):
    two = record("two", values=np.ones((600, 2)))
    with pytest.raises(BadRecord, match=r"record 'two' has values of shape \(600, 2\): give one channel, \(samples,\)"):
        in_memory([*many(record), two], **SMALL).setup()
