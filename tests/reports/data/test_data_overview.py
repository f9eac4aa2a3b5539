"""``fedlit data``: what it shows of each kind of data, and what it does not do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from documents_in_memory import many as notes
from documents_in_memory import ready
from from_memory import FromMemory
from rich.console import Console

import fedlit.data
from fedlit.cli import build, main
from fedlit.data import (
    IID,
    BySite,
    SimulatedImages,
    SimulatedSounds,
    SimulatedTexts,
    SimulatedVitals,
    SoundTable,
    WFDBLabels,
)
from fedlit.data.base.module import FederatedDataModule
from fedlit.data.base.overview import Overview, Shown, Table, by_reason, told
from fedlit.data.base.records import Record
from fedlit.data.files.wfdb import write_channels
from fedlit.data.signals.module import SignalDataModule
from fedlit.data.signals.overview import look
from fedlit.errors import FedlitError
from fedlit.reports.data.html import PRIVATE, as_html
from fedlit.reports.data.plain import as_json
from fedlit.reports.data.show import show
from fedlit.reports.data.text import print_overview

VITALS = ["--data", "SimulatedVitals", "--data.subjects", "12", "--data.sites", "2", "--data.seconds", "20"]
FORECAST = ["data", *VITALS, "--model", "ForecastingTask"]
IMAGES = ["data", "--data", "SimulatedImages", "--data.subjects", "24", "--data.sites", "2", "--data.mix", "5"]
INSTRUCTION = ["--model", "InstructionTask", "--model.backbone", "stand-in:llama"]
NOTES = ["data", "--data", "SimulatedNotes", "--data.notes", "40", "--data.sites", "2", *INSTRUCTION]


class Given(FromMemory, SignalDataModule):
    """Records."""


class Tags(HTMLParser):
    """Tags of a file, its addresses, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.said = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.said.append(data)


def signals(count=6, channels=("ecg",), site="a", **kwargs):
    values = np.sin(np.arange(600) / 7).astype(np.float32)
    return [
        Record(f"{site}{i}-{kind}", f"{site}{i}", site, kind, 100.0, values, "mV", recording=f"{site}{i}")
        for i in range(count)
        for kind in channels
    ]


def signal_data(given, **kwargs):
    small = {"context_length": 40, "prediction_length": 10, "partition": BySite(), "split": "subject"}
    return Given(given, **(small | kwargs))


def printed(overview, width=80):
    console = Console(width=width, record=True, color_system=None, file=StringIO())
    print_overview(overview, console)
    return console.export_text()


def table(overview, title):
    found = next(own for own in overview.shown.tables if own.title == title)
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.fixture
def nothing_is_built(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a backbone is built")

    for name in (
        "forecasting.ForecastingTask",
        "classification.ClassificationTask",
        "documents.instruction.InstructionTask",
    ):
        monkeypatch.setattr(f"fedlit.tasks.{name}.configure_model", refuse)
    monkeypatch.setattr("fedlit.federation.loop.FederatedLoop.__init__", refuse)
    monkeypatch.setattr("fedlit.runs.folder.RunFolder.make", refuse)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (FORECAST, ["SimulatedVitals, data: SIMULATED", "ecg", "mV", "windows"]),
        ([*IMAGES, "--model", "ClassificationTask"], ["32 x 32", "striped", "120"]),
        (NOTES, ["Chemical", "Relations by type", "mentions"]),
    ],
)
def test_each_kind_is_shown_and_no_backbone_or_folder_is_made(
    args, words, nothing_is_built, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    main([*args, "--html", "look.html", "--json", "look.json"])
    said = capsys.readouterr().out
    assert all(word in said for word in words[:-1])
    assert max(map(len, said.splitlines())) <= 80
    assert "\x1b" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look.html", "look.json"]
    page = Tags((tmp_path / "look.html").read_text())
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert json.loads((tmp_path / "look.json").read_text())["simulated"] is True


def test_it_takes_the_file_of_fit_with_overrides(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "seed_everything: 3\ntrainer: {max_rounds: 2, accelerator: cuda, devices: 4}\n"
        "aggregator: {class_path: FedProx, init_args: {mu: 0.1}}\n"
        "model: {class_path: ForecastingTask, init_args: {prediction_length: 16}}\n"
        "data: {class_path: SimulatedVitals, init_args: {subjects: 12, sites: 2, seconds: 20, prediction_length: 16}}\n"
    )
    made = build(["data", "--config", "c.yaml", "--data.context_length", "100"])
    assert made.datamodule.context_length == 100
    assert made.datamodule.seed == 3
    assert "prediction length 16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*FORECAST, "--data.subject", "3"], "there is no 'subject'; did you mean"),
        ([*FORECAST, "--trainer.max_rounds", "0"], "max_rounds"),
        ([*FORECAST, "--ckpt_path", "last"], "looks at data and at no run"),
        (["data", "--model", "ForecastingTask"], "required: data"),
        ([*IMAGES, *INSTRUCTION], "SimulatedImages"),
        (["data", "--data", "SignalTable", "--data.root", "absent", "--data.columns", "{a: ecg}",
          "--data.table_rate", "100", "--model", "ForecastingTask"], "absent"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_1(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(args)
    assert end.value.code == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1
    assert said[0].startswith("fedlit: error: ")
    assert message in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, None, 2), "samples are drawn in HTML only"),
        (("look.html", None, -1), "samples is -1: give a number, 0 for none"),
        (("no/such/folder.html", None, None), "no/such/folder.html: No such file or directory: give a file in a"),
    ],
)
def test_files_and_samples_that_cannot_be_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FedlitError, match=message):
        show(signal_data(signals()).overview, *arguments)


def test_the_horizon_of_the_data_must_be_the_models():
    with pytest.raises(FedlitError, match="data.prediction_length is 32, model.prediction_length 64: set both alike"):
        build([*FORECAST, "--data.prediction_length", "32"])


def test_hours_count_a_recording_once_and_channels_have_amplitude_gaps_and_flat_share():
    given = signals(channels=("ecg", "icg"))
    values = np.concatenate([np.full(300, 5.0), np.sin(np.arange(300))]).astype(np.float32)
    values[500:] = np.nan
    given[1] = Record("a0-icg", "a0", "a", "icg", 100.0, values, "Ohm", recording="a0")
    data = signal_data(given)
    shown = data.overview()
    assert shown.shown.totals["records"] == 12
    assert shown.shown.totals["hours"] == pytest.approx(6 * 6 / 3600)
    assert sum(row["hours"] for row in table(shown, "Who holds what")) == pytest.approx(6 * 6 / 3600)
    ecg, odd, _ = table(shown, "Channels")
    assert (ecg["unit"], ecg["Hz"], ecg["records"], ecg["missing %"], ecg["flat %"]) == ("mV", "100", 6, 0, 0)
    assert ecg["99 %"] == pytest.approx(1, abs=0.02)
    assert (odd["unit"], odd["missing %"], odd["flat %"]) == ("Ohm", pytest.approx(100 / 6), pytest.approx(60))
    assert shown.found["gaps"] == "a0-icg: gaps 1, samples 100"


def test_a_long_record_is_looked_at_in_places_and_a_short_one_whole():
    assert len(look(np.zeros(100 * 1000, np.float32), 100.0).values) == 64 * 100
    short = look(np.arange(30, dtype=np.float32), 100.0)
    assert (len(short.values), short.flat) == (30, 0)


def test_what_was_left_out_is_counted_by_reason():
    data = signal_data([*signals(8), *signals(3, site="b")], exclude=["a0*", "b*"], partition=BySite())
    shown = data.overview()
    assert [(count, reason) for count, reason, _ in shown.left_out] == [
        (3, "excluded by 'b*'"),
        (1, "excluded by 'a0*'"),
    ]
    assert "Left out: 4" in printed(shown)
    twice = replace(shown, left_out=[(7001, "x", "r1"), (7001, "y", "r2")])
    rows = [line.split() for line in printed(twice).splitlines() if line.rstrip().endswith(("r1", "r2"))]
    assert rows == [["7001", "x", "r1"], ["7001", "y", "r2"]]
    assert as_html(twice).count(">7001<") == 2
    reasons = [{"record": f"r{i}", "reason": f"record 'r{i}' has {i} samples"} for i in (1, 2, 3)]
    assert by_reason(reasons) == [(3, "record 'r1' has 1 samples", "r1, r2, r3")]


def test_findings_that_are_not_known_are_shown_too():
    class New(Given):
        def _describe_findings(self):
            return super()._describe_findings() | {"sounds_cut": {"longer_than_8_s": 57}, "new": ["x"], "none": {}}

        def _describe_client(self, client):
            return super()._describe_client(client) | {"windows_late": 7}

    shown = New(signals(), context_length=40, prediction_length=10, partition=BySite()).overview()
    assert shown.found["sounds cut"] == "longer than 8 s 57"
    assert shown.found["new"] == "x"
    assert "none" not in shown.found
    assert ("site-a", "windows late", "7") in shown.shown.tables[-1].rows
    assert "longer than 8 s 57" in printed(shown)


def test_sections_are_told_in_a_few_words():
    assert told({"a_b": 1, "c": 0}) == "a b 1"
    assert told([]) == told({}) == told({"merged": True}) == told(None) == ""
    assert told([f"r{i}" for i in range(20)]).startswith("20: r0, r1")
    assert told({f"r{i}": {"x": i} for i in range(1, 20)}).startswith("19: r1, r2")


@pytest.mark.parametrize("kind", [SimulatedTexts, SimulatedSounds, SimulatedImages])
def test_classes_and_sizes_of_each_client_and_split(kind):
    data = kind(subjects=24, sites=2, mix=5.0)
    shown = data.overview(samples=2)
    rows = table(shown, "Who holds what")
    assert [(row["client"], row["split"]) for row in rows[:3]] == [("site-1", s) for s in ("train", "val", "test")]
    assert sum(row["examples"] for row in rows) == 96 == shown.shown.totals["examples"]
    bars = shown.shown.charts[0]
    assert bars.names == kind.class_names
    for client, split, counts in bars.rows:
        assert list(counts) == np.bincount(data.dataset(client, split).labels, minlength=len(bars.names)).tolist()
    assert len(shown.shown.samples) == {"text": 0, "audio": 2 * 2, "image": 2 * 4}[data.modality]
    if kind is SimulatedSounds:
        assert shown.shown.totals["hours"] == pytest.approx(96 / 3600)


def test_no_word_of_a_text_or_document_is_shown():
    texts, documents = SimulatedTexts(subjects=24, sites=2, mix=5.0), ready(notes())
    texts.setup()
    for data, words in ((texts, [e.value for e in texts.examples]), (documents, [d.text for d in documents.documents])):
        shown = data.overview(samples=3)
        assert not shown.shown.samples
        for out in (as_html(shown), as_json(shown), printed(shown)):
            assert not any(text in out for text in words)


def test_samples_are_in_the_html_alone_and_only_if_wanted():
    data = SimulatedVitals(subjects=12, sites=2, seconds=20.0)
    with_samples, without = data.overview(2), data.overview(0)
    page, bare = as_html(with_samples), as_html(without)
    assert PRIVATE in page
    assert page.count("<polyline") == 2 * 2 * 2
    assert "<polyline" not in bare
    assert PRIVATE not in bare
    assert "no sample of the data" in bare
    assert as_json(with_samples) == as_json(without)


def test_a_window_is_drawn_in_its_own_units_with_its_target():
    data = signal_data(signals())
    curve = data.overview(1).shown.samples[0]
    record = next(own for own in data.records if own.id in curve.caption)
    start = round(float(re.search(r"from ([\d.]+) s", curve.caption)[1]) * 100)
    assert (curve.target, curve.rate, curve.unit) == (40, 100.0, "mV")
    assert np.array_equal(curve.values[0], record.values[start : start + 50])


def test_names_are_escaped_in_html_and_are_no_markup_in_text():
    evil = "<script>alert(1)</script>[bold]&\"'"
    values = np.sin(np.arange(600) / 7).astype(np.float32)
    given = [Record(f"{evil}{i}", f"{evil}{i}", evil, evil, 100.0, values, evil) for i in range(6)]
    shown = signal_data(given, exclude=[f"{evil.replace('[', '[[]')}0"]).overview(2)
    page = Tags(as_html(shown))
    assert "script" not in page.tags
    assert any("<script>alert(1)" in own for own in page.said)
    assert "[bold]" in printed(shown, 200)
    table = Table("<b>", ("client", "<i>"), (("<u>", "<s>"),), "<em>")
    odd = Overview(
        "<x>", False, {"<p>": "<q>"}, Shown({"<n>": 1}, [table]), {"<f>": "<g>"}, [(1, "<h>", "<k>")], ["<w>"]
    )
    assert not {"b", "i", "u", "s", "x", "q", "n", "f", "g", "h", "k", "w", "em"} & set(Tags(as_html(odd)).tags)


def test_the_same_data_give_the_same_bytes():
    pages = []
    for _ in range(2):
        shown = SimulatedImages(subjects=24, sites=2, mix=5.0).overview(3)
        pages.append((as_html(shown), as_json(shown), printed(shown)))
    assert pages[0] == pages[1]


def test_many_clients_are_cut_in_text_and_whole_in_html():
    given = [own for i in range(40) for own in signals(3, site=f"h{i:02d}")]
    shown = signal_data(given).overview(1)
    said, page = printed(shown), as_html(shown)
    assert "10 more clients: --html or --json has them all" in said
    assert "site-h39" in page
    assert "site-h39" not in said.split("Channels")[0]
    assert "16 more clients are not drawn" in page


def test_warnings_are_told_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([*FORECAST, "--data.exclude", "[nobody]"])
    out, err = capsys.readouterr()
    assert out.count("no record is named like nobody") == 1
    assert "nobody" not in err


def test_data_of_other_classes_tell_their_counts():
    from toys import ToyData

    shown = ToyData().overview()
    assert table(shown, "Who holds what")[0].keys() == {"client", "split", "examples"}


def test_channels_to_classify_are_shown_as_they_are_in_the_files(tmp_path):
    reach = []
    for number in range(12):
        wave = (1 + number) * np.sin(np.arange(400) / 5)
        reach.append(np.subtract(*np.percentile(wave, [99, 1])))
        write_channels(tmp_path, f"A{number}", 100.0, {"II": wave, "V1": wave * 2}, {"II": "mV", "V1": "mV"},
                       [f"Dx: {number % 2}"])  # fmt: skip
    data = WFDBLabels(tmp_path, channels=["II", "V1"], rate=50.0, window_seconds=2.0, subject_pattern="(.+)")
    (row,) = table(data.overview(), "Channels as read")
    assert [row[name] for name in ("client", "unit", "Hz", "recordings")] == ["site-A", "mV", "100", 12]
    middle = np.median(reach)
    assert row["amplitude of each channel"] == f"II {middle:.3g}, V1 {2 * middle:.3g}"


def test_what_was_not_looked_for_is_told_apart_from_what_is_not_there():
    data = ready(notes(), annotated={"site-a": ["entities"]})
    of_a, of_b = (
        [row for row in table(data.overview(), "Relations by type") if row["client"] == c] for c in ("site-a", "site-b")
    )
    assert {row["of each type"] for row in of_a} == {"not looked for"}
    assert all(row["of each type"].startswith("shows ") for row in of_b)
    types = {row["client"]: row["relations"] for row in table(data.overview(), "Types looked for")}
    assert types == {"site-a": "none", "site-b": "shows, treats"}


def test_the_page_names_readers_that_there_are():
    page = (Path(__file__).parents[3] / "docs" / "reading.md").read_text()
    tables = [line.split("|")[2:] for line in page.splitlines() if line.startswith("|")]
    named = {name for cells in tables for cell in cells for name in re.findall(r"`([A-Z]\w+)`", cell)}
    classes = {name: getattr(fedlit.data, name) for name in fedlit.data.__all__ if not name.endswith("DataModule")}
    readers = {name for name, own in classes.items() if isinstance(own, type) and issubclass(own, FederatedDataModule)}
    assert named - readers == set()
    assert readers - named == set()


def test_long_names_stay_apart_at_80_columns_and_numbers_whole():
    places = [f"university-heart-centre-of-the-north-{name}-ward" for name in ("adult", "child")]
    said = printed(signal_data([own for site in places for own in signals(3, ("ecg", "icg"), site)]).overview())
    assert max(map(len, said.splitlines())) <= 80
    named = {line.split("  ")[0].strip() for line in said.splitlines() if " train " in line}
    assert len(named) == 2
    channels = [line.split() for line in said.splitlines() if "ecg" in line]
    assert [row[1:5] for row in channels] == [["ecg", "mV", "100", "3"]] * 2
    tiny = [replace(own, values=own.values * np.float32(2.345e-4)) for own in signals(3, site="hospital-north")]
    (row,) = (line for line in printed(signal_data(tiny).overview()).splitlines() if " ecg " in line)
    assert len(row.split()[0]) >= 12  # and the rest of the name below


def test_names_that_no_terminal_or_file_takes_are_replaced(tmp_path):
    odd = "\x1b[31m\udc80\x07"
    shown = Overview(
        "x", False, {"root": odd}, Shown({}, [Table("t", ("client",), ((odd,),))]), {}, [(1, odd, odd)], [odd]
    )
    said = printed(shown)
    assert not {"\x1b", "\udc80", "\x07"} & set(said)
    assert "\ufffd[31m" in said
    show(lambda samples: shown, str(tmp_path / "look.html"), str(tmp_path / "look.json"), None)
    assert json.loads((tmp_path / "look.json").read_text())["warnings"] == [odd]
    assert "\\udc80" in (tmp_path / "look.html").read_text()


def test_hours_of_sounds_are_those_of_their_files_not_of_what_they_are_padded_to(tmp_path):
    import soundfile

    rows = ["file,label"]
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", np.sin(np.arange(8000 * (1 + number % 3)) * (1 + number)), 8000)
        rows.append(f"{number}.wav,{'ab'[number % 2]}")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    data = SoundTable(tmp_path / "index.csv", rate=8000.0, partition=IID(1), split="record")
    assert data.overview().shown.totals["hours"] == pytest.approx(4 * (1 + 2 + 3) / 3600)
