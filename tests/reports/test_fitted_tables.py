"""Tables in a narrow terminal: names stay apart, numbers whole."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fedlit.metrics.forecasting import ForecastMetrics
from fedlit.reports import comparison
from fedlit.reports.tables import apart, fitted

LONG = [f"subject-Participant_{i:04d}_Baseline_recording_of_the_day" for i in range(10)]
WORDS = st.text("abAB01-_ ", min_size=1, max_size=40)


@given(st.lists(WORDS, min_size=1, max_size=30, unique=True), st.integers(3, 45))
def test_short_names_differ_and_each_fits_its_own_name_alone(names, width):
    short = apart(names, width)
    assert list(short) == names
    assert len(set(short.values())) == len(names)
    for name, own in short.items():
        pattern = ".*".join(map(re.escape, own.split("…")))
        assert [other for other in names if re.fullmatch(pattern, other, re.DOTALL)] == [name]
        assert len(own) <= len(name) + 1
    assert all(own == name for name, own in short.items()) or any(len(name) > width for name in names)


@given(st.integers(2, 60), st.integers(10, 30))
def test_names_that_differ_at_their_end_fit_the_width_and_keep_it(count, width):
    names = [f"subject-Participant_0001_Baseline_of_the_study_{i:02}" for i in range(count)]
    short = apart(names, width)
    assert max(map(len, short.values())) <= width
    assert all(own[-2:] == name[-2:] for name, own in short.items())


def test_what_names_share_at_their_beginning_gives_way_and_their_end_stays():
    short = apart(LONG, 24)
    assert all(f"{i:04d}" in own for i, own in enumerate(short.values()))
    assert apart(["site-a", "site-b"], 10) == {"site-a": "site-a", "site-b": "site-b"}
    assert apart([], 5) == {}


@given(
    st.lists(WORDS.map(lambda name: f"client-{name}"), min_size=1, max_size=20, unique=True),
    st.lists(WORDS.map(str.strip).filter(bool), min_size=1, max_size=6, unique=True),
    st.integers(60, 140),
)
def test_no_header_and_no_name_is_there_twice(names, rules, width):
    rows = [[name, *("0.1234 *" for _ in rules)] for name in names]
    heads, short = fitted(["client", *rules], rows, width)
    assert len(set(heads[1:])) == len(rules)
    assert len({row[0] for row in short}) == len(names)
    assert [row[1:] for row in short] == [row[1:] for row in rows]


def printed(width, results, naive=None, tmp_path=None, metrics=None):
    naive = [(*r[:2], f"naive: {name}", *r[3:]) for name, own in (naive or {}).items() for r in own]
    console = Console(file=io.StringIO(), width=width)
    comparison.Console, before = (lambda: console), comparison.Console
    try:
        folder = type("Folder", (), {"path": tmp_path})()
        comparison.lines, kept = (lambda folder, ordered: []), comparison.lines
        comparison.comparison(results, folder, ["data: SIMULATED"], metrics, naive)
    finally:
        comparison.Console, comparison.lines = before, kept
    return console.file.getvalue()


def row(client, value, metric="rmse"):
    return (1, "after_aggregation", "personal", client, "test", metric, value, 5)


class Metrics:
    headline = ("rmse",)
    higher_is_better = False
    note = "of scaled values"


def test_ten_clients_of_long_names_can_be_told_apart_at_80_columns(tmp_path):
    rules = {
        name: [row(c, 0.1 * k + 0.01 * i) for i, c in enumerate(LONG)] + [row("mean", 0.1 * k), row("worst", 0.2 * k)]
        for k, name in enumerate(["FedMedLoRAPlus", "ZeroShot", "LocalOnly", "Centralized"], 1)
    }
    naive = {"last value": [row(c, 0.02) for c in LONG] + [row("mean", 0.02), row("worst", 0.03)],
             "context mean": [row(c, 0.5) for c in LONG] + [row("mean", 0.5), row("worst", 0.5)]}  # fmt: skip
    text = printed(80, rules, naive, tmp_path, Metrics())
    assert max(len(line) for line in text.splitlines() if "│" in line) <= 80
    firsts = [line.split("│")[1].strip() for line in text.splitlines() if line.startswith("│ …")]
    assert len(firsts) == len(set(firsts)) == 10
    assert all(f"{i:04d}" in own for i, own in enumerate(firsts))
    assert "0.1100" in text
    assert "of scaled values" in text
    table = (tmp_path / "comparison.csv").read_text().splitlines()
    assert table[0] == (
        "client,metric,naive: last value,naive: context mean,ZeroShot,LocalOnly,Centralized,FedMedLoRAPlus"
    )
    by_client = text.split("rmse of each client")[1].split("└")[0]
    assert next(line for line in by_client.splitlines() if "0003" in line).count("0.") == 5, "the best floor alone"
    assert "FedMedLoRAPlus beats naive: last value in rmse at 0 of 10 clients" in text
    assert "FedMedLoRAPlus beats naive: context mean in rmse at 10 of 10 clients" in text


def test_all_that_needs_no_network_stands_beside_each_client_where_there_is_room(tmp_path):
    clients = ["site-1", "site-2", "mean"]
    floors = {f"last {i}": [row(c, 0.1 * i + 0.5 * j) for j, c in enumerate(clients)] for i in range(3)}
    rules = {name: [row(c, 0.3) for c in clients] for name in ("FedProx", "ZeroShot", "LocalOnly")}
    by_client = printed(80, rules, floors, tmp_path, Metrics()).split("rmse of each client")[1]
    assert next(line for line in by_client.splitlines() if "site-1" in line).count("0.") == 6
    assert all(f"FedProx beats naive: last {i} in rmse" in by_client for i in range(3))


def test_names_of_words_go_on_in_the_next_line_before_they_are_cut():
    rows = [["naive: commonest class", "0.1234"], ["FedAvg", "0.1234"]]
    assert [row[0] for row in fitted(["rule", "accuracy"], rows, 26)[1]] == ["naive:\ncommonest\nclass", "FedAvg"]
    rows = [["a b", "1"], ["a  b", "1"], ["a long name that is here", "1"]]
    assert len({row[0] for row in fitted(["rule", "n"], rows, 20)[1]}) == 3


def test_numbers_are_never_cut(tmp_path):
    rows = {"FedAvg": [row(c, v, m) for c, v in (("a", 123.45678), ("mean", 40.5721), ("worst", 51.2412))
                       for m in ("rmse", "mae", "smape")]}  # fmt: skip
    metrics = type("M", (), {"headline": ("rmse", "mae", "smape"), "higher_is_better": False})()
    naive = {f"forecast of kind {i}": rows["FedAvg"] for i in range(3)}
    text = printed(80, rows, naive, tmp_path, metrics)
    assert text.count("51.2412") == 12
    assert not [cell for line in text.splitlines() for cell in line.split("│")[2:] if "…" in cell]


def test_names_with_brackets_are_names_and_no_markup(tmp_path):
    text = printed(80, {"FedAvg": [row(c, 0.5) for c in ("site[1]", "b[red]", "mean")],
                        "Local[2]": [row("mean", 0.5)]}, {}, tmp_path, Metrics())  # fmt: skip
    assert all(name in text for name in ("site[1]", "b[red]", "Local[2]"))


def test_scores_of_what_needs_no_network_stand_beside_those_of_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "Console", lambda: Console(width=80))
    rows = [(1, "start", model, client, "test", metric, 1.0, 5) for model, metrics in
            (("personal", ("f1", "loss")), ("naive: dictionary", ("f1",))) for metric in metrics
            for client in ("mean", "weighted_mean", "worst", "std")]  # fmt: skip
    comparison.print_scores(rows, "FedAvg", ["data: real"], tmp_path, Metrics())
    text = capsys.readouterr().out
    assert all(name in text for name in ("personal f1", "personal loss", "naive: dictionary f1", "of scaled values"))
    assert "dictionary loss" not in text


def test_an_rmse_that_is_a_mean_of_batches_is_said_to_be_one():
    assert "mean over batches" not in ForecastMetrics().note
    assert "rmse is the mean over batches" in ForecastMetrics(rmse_reduction="batch_mean").note
    assert "percent of such values" in ForecastMetrics(rmse_reduction="batch_mean").note
