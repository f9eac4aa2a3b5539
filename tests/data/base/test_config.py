"""Every constructor argument that changes what is trained on is in ``config()``, and so in a run's fingerprint."""

import inspect
import json
from pathlib import Path

import pytest

import fedlit.data
from fedlit.data import BySite, BySubject, FederatedDataModule, Modality, Nested, Partition
from fedlit.runs.fingerprint import describe

PLACES = {
    "root": "data are known by who holds which record; their folder may move",
    "folder": "where a table's files lie may move as well",
    "cache_folder": "decoded values are the same in a file and in memory",
}
"""Arguments that a fingerprint leaves out, and why."""
NEEDED = {"columns": {"a": "ecg"}, "table_rate": 250.0, "name": "bloodmnist", "rate": 100.0}
CHANNELS = {"EDFFolder": {"ECG": "ecg"}, "EDFClasses": ["Cz"]}
OTHER = {
    "annotated": {"a": ["entities"]}, "assertions": True, "batch_size": 7, "channels": ["Fz"], "check_md5": False,
    "classes": ["a", "b"], "columns": {"b": "icg"}, "context_length": 99, "default_type": "x", "eval_batch_size": 3,
    "encoding": "latin-1", "offsets": "utf16",
    "eval_stride": 5, "eval_windows": 6, "exclude": ["a*"], "files": ["*.x"], "fold_column": "f", "fraction": 0.5,
    "group_column": "g", "id_column": "i", "kinds": ["ecg", "icg"], "label_column": "l", "label_pattern": "(a)",
    "label_separator": ";", "labels": "statements", "lead": "V2", "leads": ["V2"], "level": "record",
    "mask_test": False, "max_missing": 0.1, "max_windows": 2, "merge_duplicates": False, "min_count": 3,
    "min_likelihood": 50.0, "mix": 2.0, "name": "pathmnist", "names": {"1": "a"}, "notes": 99,
    "on_bad_record": "skip", "padding": "zeros", "pairs": "every", "parity": True, "rename": {"labels": {"a": None}},
    "external_sites": ["site-a"],
    "partition": BySubject(3),
    "path_column": "p", "per_subject": 3, "prediction_length": 9, "rate": 50.0, "raw_suffix": ".raw",
    "resize": "crop", "scale": "none", "scenarios": ["Apnea"], "schema": {"entities": ["a"]}, "seconds": 3.0,
    "seed": 4, "sentences": 5, "server_examples": 2, "server_records": 2, "simulation_seed": 8, "site_by": "folder",
    "site_column": "s", "site_pattern": "(x)", "sites": 2, "size": 64, "split": "record", "stride": 4,
    "subject_column": "s", "subject_pattern": "(y)", "subjects": 90, "table": Path("t.csv"), "table_rate": 60.0,
    "tag_column": 2, "test_fraction": 0.3, "test_part": "inter", "text_column": "t", "types": ["a"],
    "unit": "sentence", "val_fraction": 0.1, "window_seconds": 4.0,
    "decimal": ",", "delimiter": ";", "time_column": "clock", "time_format": "%H",
    "time_unit": "ms", "time_zone": "Europe/Berlin",
    "annotation_pattern": "(b)", "comment_pattern": "(c)", "kind": "emg", "pair_pattern": "(d)", "record_column": "r",
    "rest_label": "none", "rhythms": "atr",
    "drop_observations": 0.2, "min_context": 64, "train_windows": 400, "windows_per_record": 1,
    "dicom_window": "percentile", "fill_gaps_seconds": 0.5, "long": "pieces",
}  # fmt: skip
"""A value of each argument that is nowhere the default."""


def public(kind: type) -> list[type]:
    made = {cls for cls in vars(fedlit.data).values() if isinstance(cls, type) and issubclass(cls, kind)}
    return sorted(made - {kind}, key=lambda cls: cls.__name__)


def arguments(cls: type) -> dict[str, inspect.Parameter]:
    """Of a class and its bases."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base.__module__.startswith("fedlit."):
            own = list(inspect.signature(base.__init__).parameters.values())[1:]
            found = {p.name: p for p in own if p.kind is not p.VAR_KEYWORD} | found
    return found


def made(cls: type, **given: object) -> FederatedDataModule:
    needed = {n for n, p in arguments(cls).items() if n in NEEDED and (p.default is p.empty or n == "table_rate")}
    places: dict[str, object] = {"root": Path("data")} if "root" in arguments(cls) else {}
    places |= {"channels": CHANNELS[cls.__name__]} if cls.__name__ in CHANNELS else {}
    return cls(**(places | {name: NEEDED[name] for name in needed} | given))


@pytest.mark.parametrize("reader", public(FederatedDataModule))
def test_every_argument_of_a_reader_is_in_its_config(reader):
    usual = made(reader).config()
    names = arguments(reader)
    assert usual.keys() == {"class", *names}
    for name in names.keys() - PLACES.keys():
        kinds = name == "channels" and reader.__name__ in ("WFDBFolder", "EDFFolder")
        value = {"a": "icg"} if kinds else OTHER[name]
        value = ["b"] if (reader.__name__, name) == ("SignalClassTable", "columns") else value
        value = ["tfm_icg"] if (reader.__name__, name) == ("VitalSigns", "channels") else value
        more = {"window_seconds": 4.0} if name == "max_windows" else {}
        more = {"time_column": "clock"} if name in ("time_unit", "time_zone", "time_format") else more
        if "record_column" in names and name in ("record_column", "label_column", "label_separator"):
            more = {"table": Path("t.csv")}
        if name == "rest_label" and "rhythms" in names:
            more = {"rhythms": "atr"}
        changed = made(reader, **{name: value}, **more).config()
        wanted = value.config() if isinstance(value, Partition) else str(value) if name == "table" else value
        assert changed[name] == wanted != usual[name], name
        assert json.loads(json.dumps(changed)) == changed


FIELDS = {
    "alpha": (0.5, 0.7), "by": ("site", "kind"), "clients": (4, 6), "inner": (BySite(), BySubject()),
    "kind": ("ecg", "icg"), "min_records": (2, 3), "other": ("bp", "icg"), "outer": (BySite(), BySubject()),
    "partition": (BySite(), Nested(BySite(), BySubject(2))), "path": ("a.csv", "b.csv"), "unit": ("subject", "record"),
}  # fmt: skip
"""Two values of each field of a partition."""


@pytest.mark.parametrize("partition", public(Partition))
def test_every_field_of_a_partition_is_in_its_config(partition):
    names = list(inspect.signature(partition).parameters)
    usual = {name: FIELDS[name][0] for name in names}
    config = partition(**usual).config()
    assert config.keys() == {"class", *names}
    for name in names:
        changed = partition(**(usual | {name: FIELDS[name][1]})).config()
        assert changed[name] != config[name]
        assert json.loads(json.dumps(changed)) == changed


def test_a_fingerprint_says_what_config_says():
    config = made(fedlit.data.SimulatedVitals, partition=Modality(BySite(2), "icg")).config()
    assert describe(made(fedlit.data.SimulatedVitals, partition=Modality(BySite(2), "icg"))) == config
