"""YAML 1.2 scalars, and a key only once."""

from __future__ import annotations

import math

import pytest
import yaml

from fedlit import strict_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1E5", 1e5), ("1.", 1.0), (".5", 0.5), ("-.5e1", -5.0), (".inf", math.inf),
        ("-.inf", -math.inf),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("true", True), ("False", False),
        ("12:30", "12:30"), ("1:30:00", "1:30:00"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"),
        ("017", 17), ("08", 8), ("-007", -7), ("0o17", 15), ("0x1F", 31), ("+3", 3), ("0", 0), ("0b1", "0b1"),
        ("null", None), ("~", None), ("", None), ("NULL", None), ("'3e-4'", "3e-4"), ("a: ", {"a": None}),
        ("1e", "1e"), ("e5", "e5"), (".", "."), ("-", [None]), ("=", "="), ("[1, no, 3e-4]", [1, "no", 3e-4]),
    ],
)  # fmt: skip
def test_scalars(text, value):
    got = strict_yaml.load(text)
    assert got == value
    assert type(got) is type(value)


def test_nan():
    assert math.isnan(strict_yaml.load(".nan"))


@pytest.mark.parametrize("text", ["a: 1\na: 2", "{a: 1, a: 1}", "x:\n  lr: 1\n  mu: 2\n  lr: 3", "1: a\n1: b"])
def test_a_key_given_twice_is_refused(text):
    with pytest.raises(yaml.YAMLError, match="given twice"):
        strict_yaml.load(text)


def test_no_python_objects():
    with pytest.raises(yaml.YAMLError):
        strict_yaml.load("!!python/object/apply:os.system ['true']")
