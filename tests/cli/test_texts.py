"""Names that look like numbers, and values of another kind than is wanted, in a config file."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit import strict_yaml
from fedlit.cli.app import build
from fedlit.cli.texts import wants_text
from fedlit.errors import FedlitError

PLAIN = """
trainer: {max_rounds: 1, enable_progress_bar: false, logger: null}
aggregator: {class_path: AGGREGATOR}
model: {class_path: ClassificationTask, init_args: {backbone: 'stand-in:vit', learning_rate: 3e-4, MODEL}}
data: {class_path: CLASS, init_args: {DATA}}
"""


def parsed(tmp_path, **parts):
    """What the command line makes of a config file."""
    text = PLAIN
    given = {"AGGREGATOR": "FedAvg", "MODEL": "weight_decay: 1e-2", "CLASS": "SimulatedImages", "DATA": "sites: 2"}
    for name, value in (given | parts).items():
        text = text.replace(name, value)
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return build(["fit", "--config", str(path)], run=False)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[002, 01]", ["002", "01"]), ("[0, 1]", ["0", "1"]), ("[yes, no]", ["yes", "no"]),
        ("[1e3, 1.50]", ["1e3", "1.50"]),
        ("['002', x]", ["002", "x"]), ("[0x1F, -3]", ["0x1F", "-3"]), ("[2024-01-01, 12:30]", ["2024-01-01", "12:30"]),
        ("[.inf, 1_0]", [".inf", "1_0"]),
    ],
)  # fmt: skip
def test_items_of_a_list_of_texts_keep_their_text(written, names, tmp_path):
    command = parsed(tmp_path, MODEL=f"classes: {written}")
    assert command.model.classes == names
    assert command.model.learning_rate == 3e-4
    again = strict_yaml.load_config(command.trainer.config_yaml)["model"]["init_args"]
    assert ([strict_yaml.as_text(name) for name in again["classes"]], again["learning_rate"]) == (names, 3e-4)
    assert type(command.model.learning_rate) is float


def test_keys_and_values_of_mappings_and_single_texts_keep_their_text(tmp_path):
    command = parsed(
        tmp_path, CLASS="WFDBFolder", DATA="root: 007, channels: {002: 01, 3: ecg}, rate: 1e2",
        AGGREGATOR="FlexLoRA, init_args: {ranks: {01: 2, 1: 0x4}}",
    )  # fmt: skip
    data, rule = command.datamodule, command.trainer.aggregator
    assert str(data.root) == "007"
    assert data.channels == {"002": "01", "3": "ecg"}
    assert data.rate == 100
    assert rule.ranks == {"01": 2, "1": 4}
    assert [type(rank) for rank in rule.ranks.values()] == [int, int]


def test_an_argument_that_may_be_a_number_stays_one(tmp_path):
    command = parsed(tmp_path, MODEL="class_weights: [1, 2e0]", DATA="sites: 02, seed: 007")
    assert command.model.class_weights == [1.0, 2.0]
    assert (command.datamodule.sites, command.datamodule.seed) == (2, 7)
    assert type(command.datamodule.seed) is int
    yaml.safe_load(command.trainer.config_yaml)


WRONG = {
    "a list for a text": {"MODEL": "backbone2: [1]"},
    "a mapping for a text": {"DATA": "partition: {class_path: IID, init_args: {clients: {a: 1}}}"},
    "a text for a number": {"MODEL": "gamma: fast"},
    "a list for a number": {"MODEL": "gamma: [1]"},
    "true for a number": {"MODEL": "gamma: true"},
    "a text for a list": {"MODEL": "classes: abc"},
    "a number for a list": {"MODEL": "classes: 3"},
    "a mapping for a list": {"MODEL": "classes: {a: 1}"},
    "nothing in a list": {"MODEL": "classes: [a, null]"},
    "true in a list of texts": {"MODEL": "classes: [true, false]"},
    "a list in a list of texts": {"MODEL": "classes: [[a], b]"},
    "a list for a mapping": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: [002, ecg]"},
    "a number for a mapping": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: 002"},
    "a mapping within a mapping": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: {a: {b: c}}"},
    "nothing within a mapping": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: {a: null}"},
    "a list as a key": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: {[a, b]: c}"},
    "a mapping as a key": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: {{a: b}: c}"},
    "a key twice": {"CLASS": "WFDBFolder", "DATA": "root: x, channels: {002: a, 002: b}"},
    "a text for a rule": {"AGGREGATOR": "7"},
    "a list for a rule": {"AGGREGATOR": "[FedAvg]"},
    "a text for ranks": {"AGGREGATOR": "FlexLoRA, init_args: {ranks: {a: two}}"},
    "a list for arguments": {"DATA": "]]"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_kind_is_one_line_that_names_the_argument(name, tmp_path):
    with pytest.raises(FedlitError) as caught:
        parsed(tmp_path, **WRONG[name])
    said = str(caught.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert len(said) < 600


def test_what_is_no_text_is_told_to_be_quoted(tmp_path):
    with pytest.raises(FedlitError, match=r"classes.*True.*write it in quotes"):
        parsed(tmp_path, MODEL="classes: [true, false]")
    with pytest.raises(FedlitError, match=r"classes.*write it in quotes"):
        parsed(tmp_path, MODEL="classes: [a, null]")


@settings(max_examples=200, deadline=None)
@given(st.from_regex(r"[-+]?[0-9]{1,5}(\.[0-9]{0,3})?([eE][-+]?[0-9]{1,2})?", fullmatch=True))
def test_any_number_keeps_its_text_and_its_value(text):
    number = strict_yaml.load_config(text)
    assert strict_yaml.as_text(number) == text
    plain = strict_yaml.as_number(number)
    assert plain == strict_yaml.load(text)
    assert type(plain) is type(strict_yaml.load(text))
    assert strict_yaml.load(f"{{{text}: 1}}") == {text: 1}


def test_which_arguments_want_text():
    assert all(wants_text(kind) for kind in (str, str | None, str | list[str] | None))
    assert not any(wants_text(kind) for kind in (int, str | int, float | str | None, bool | str, list[str], None))
