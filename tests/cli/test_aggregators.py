"""The table of rules: what it says of rules that a person can see through, and that the documents show the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fedlit.aggregators
from fedlit import tree
from fedlit.aggregators import Aggregator, FedAvg
from fedlit.cli import main
from fedlit.cli.aggregators import MARKERS, line, lines, markdown, plain, put_into, rules
from fedlit.errors import FedlitError

DOCUMENT = Path(__file__).parents[2] / "docs" / "aggregators.md"


def said(cls: type[Aggregator]) -> tuple[str, ...]:
    told = line(cls, "any")
    return told.paper, told.up, told.down, told.stays, told.sealed


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FedAvg", ("1602.05629", "model", "model", "nothing", "yes")),
        ("FedProx", ("1812.06127", "model", "model", "nothing", "yes")),
        ("LocalOnly", ("-", "nothing", "nothing", "model", "yes")),
        ("FedLA", ("2502.09744", "model, then nothing", "model", "nothing, then model", "yes")),
        ("Centralized", ("-", "all data", "nothing", "nothing", "yes")),
        ("ZeroShot", ("-", "nothing", "nothing", "nothing", "yes")),
    ],
)
def test_known_rules(name, expected):
    assert said(getattr(fedlit.aggregators, name)) == expected


def test_a_combinator_is_shown_with_averaging_as_its_parts():
    told = line(fedlit.aggregators.Stages, "combinator")
    assert (told.rule, told.up) == ("Stages *", "model")


@dataclass(frozen=True)
class Parts(FedAvg):
    """A goes up; the head stays; the paper that counts is arXiv:2003.00295, and not arXiv:1602.05629."""

    def init_memory(self, params: Any) -> Any:
        return {"heads": tree.pick(params, "head"), "seen": tree.leaves(params)[0].sum()}

    def init(self, params: Any) -> Any:
        return {"params": tree.pick(params, "lora_A"), "by": {}}

    def start(self, down: Any, memory: Any) -> Any:
        return {**down["params"], **memory["heads"]}

    def finish(self, w: Any, down: Any, memory: Any, work: Any) -> tuple[Any, Any]:
        return {"a": tree.pick(w, "lora_A"), "loss": work.end_loss}, {**memory, "heads": tree.pick(w, "head")}

    def down(self, state: Any, client: str) -> Any:
        return {"params": state["by"].get(client, state["params"])}

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        assert server.validate(state["params"]) > 0
        return {**state, "by": {client: upload["a"] for client, upload in server.gather(updates).items()}}


def test_a_rule_of_parts():
    expected = ("2003.00295", "a: A; loss", "A, then A (own)", "heads: head; seen", "no")
    assert said(Parts) == expected


@dataclass(frozen=True)
class InTurn(FedAvg):
    """A and B take turns; the norm is kept for every other client, too."""

    def init(self, params: Any) -> Any:
        return {"params": params, "round": tree.leaves(params)[0].new_zeros(())}

    def down(self, state: Any, client: str) -> Any:
        return tree.pick(state["params"], "lora_A" if state["round"] % 2 == 0 else "lora_B")

    def finish(self, w: Any, down: Any, memory: Any, work: Any) -> tuple[Any, Any]:
        return tree.sub(w, down), {"others": {"client-3": w, "client-4": w}}

    def aggregate(self, state: Any, updates: Any, server: Any) -> Any:
        return {**state, "round": state["round"] + 1}


def test_what_takes_turns_and_what_is_of_every_client():
    assert said(InTurn) == ("-", "A / B", "A / B", "others each client's: A / others each client's: B", "yes")


def test_every_exported_rule_is_there_once():
    shown = [one.rule.removesuffix(" *") for one in lines()]
    assert sorted(shown) == sorted(rules())
    assert set(rules()) == {
        name
        for name in fedlit.aggregators.__all__
        if issubclass(getattr(fedlit.aggregators, name), Aggregator) and name not in ("Aggregator", "Staged")
    }


def test_it_fits_a_wide_terminal(capsys):
    main(["aggregators"])
    shown = capsys.readouterr().out
    assert max(len(text) for text in shown.splitlines()) <= 160
    assert all(name in shown for name in rules())


def test_one_family(capsys):
    main(["aggregators", "--family", "reference"])
    named = [text.split()[0] for text in capsys.readouterr().out.splitlines() if "reference" in text]
    assert named == ["Centralized", "ZeroShot"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["aggregators", "--family", "averging"], "there is no family 'averging'; did you mean 'averaging'"),
        (["aggregators", "--markdwon"], "unrecognized arguments: --markdwon"),
        (["agregators"], "did you mean 'aggregators'"),
    ],
)
def test_mistakes(args, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 1
    assert message in capsys.readouterr().err


def test_it_is_listed_beside_the_other_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "aggregators List the rules: paper, what goes up and comes down" in shown
    assert "predict Write what" in shown


def test_the_document_shows_what_the_command_prints(capsys):
    main(["aggregators", "--markdown"])
    text = DOCUMENT.read_text()
    shown = text.partition(MARKERS[0])[2].partition(MARKERS[1])[0].strip()
    assert shown == capsys.readouterr().out.strip(), "run: fedlit aggregators --into docs/aggregators.md"


def test_the_document_says_something_of_every_family():
    headings = [text.removeprefix("### ") for text in DOCUMENT.read_text().splitlines() if text.startswith("### ")]
    assert {one.family for one in lines()} <= set(headings)


def test_writing_into_a_document(tmp_path):
    path = tmp_path / "a.md"
    path.write_text(f"before\n{MARKERS[0]}\nold\n{MARKERS[1]}\nafter\n")
    main(["aggregators", "--into", str(path)])
    table = markdown(lines())
    assert path.read_text() == f"before\n{MARKERS[0]}\n\n{table}\n\n{MARKERS[1]}\nafter\n"
    assert "[1602.05629](https://arxiv.org/abs/1602.05629)" in table
    path.write_text("nothing to replace")
    with pytest.raises(FedlitError, match=r"a\.md has no lines"):
        put_into(path, table)
    assert plain(lines()).count("\n") > len(rules())
