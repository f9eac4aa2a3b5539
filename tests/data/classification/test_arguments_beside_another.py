"""Arguments that count only beside another one are used, refused or told; labels are as tables write them."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import soundfile

from fedlit.data import ICBHI, IID, SPRSound, TextTable
from fedlit.data.base.records import BadRecord
from fedlit.errors import FedlitError

pytestmark = pytest.mark.filterwarnings("ignore:.*count as a subject each")
WRITERS = {
    "csv": lambda table, path: table.to_csv(path, index=False),
    "csv.gz": lambda table, path: table.to_csv(path, index=False),
    "tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "parquet": lambda table, path: table.to_parquet(path),
    "jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
}


def texts(folder, count=30, ending="csv", **columns):
    rows = {"text": [f"words of text {i}" for i in range(count)], "label": list("abc") * (count // 3)}
    rows["part"] = (["train"] * 3 + ["test"] * 2) * (count // 5)
    path = folder / f"t.{ending}"
    WRITERS[ending](pd.DataFrame(rows | columns), path)
    return path


def folds(data):
    return {
        split: {e.fold for c in data.clients for e in data.dataset(c, split).examples} for split in ("train", "test")
    }


def test_a_column_of_folds_is_the_split(tmp_path):
    path = texts(tmp_path)
    data = TextTable(path, fold_column="part", partition=IID(1))
    about = data.describe()
    assert about["split"]["rule"] == "fold"
    assert (about["official_test_in_training"], folds(data)) == (0, {"train": {"train"}, "test": {"test"}})
    assert data.config()["split"] == "fold"
    assert TextTable(path).config()["split"] == "subject"
    assert TextTable(path, fold_column="part", split="fold").config()["split"] == "fold"
    assert TextTable(path, fold_column="part", parity=True).config()["split"] == "subject"


@pytest.mark.parametrize("more", [{"split": "subject"}, {"split": "stratified"}, {"parity": True}])
def test_another_split_beside_a_column_of_folds_says_what_it_trains_on(more, tmp_path):
    data = TextTable(texts(tmp_path), fold_column="part", partition=IID(1), **more)
    with pytest.warns(UserWarning, match=r"of 12 rows that 'part' has in the official test part are trained on, since"):
        about = data.describe()
    trained = [e for e in data.dataset("client-1", "train").examples if e.fold == "test"]
    assert about["official_test_in_training"] == len(trained) > 0
    assert any(warning.startswith(f"{len(trained)} of 12 rows") for warning in about["warnings"])


def test_parity_says_which_arguments_it_overrules(tmp_path):
    path = texts(tmp_path)
    data = TextTable(path, partition=IID(1), parity=True, split="record", test_fraction=0.4)
    with pytest.warns(UserWarning, match=r"parity: data.split record, data.test_fraction 0.4 has no effect"):
        data.setup()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*no effect")
        TextTable(path, partition=IID(1), parity=True).setup()


def test_shares_beside_the_sources_own_parts_are_told(tmp_path):
    part = ["train", "train", "val", "test", "train"] * 6
    of = {"fold_column": "part", "partition": IID(1)}
    data = TextTable(texts(tmp_path, part=part), **of, val_fraction=0.3, test_fraction=0.1)
    with pytest.warns(UserWarning, match=r"^data.val_fraction 0.3, data.test_fraction 0.1 has no effect, the sou"):
        data.setup()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*no effect")
        TextTable(texts(tmp_path), **of, val_fraction=0.3).setup()  # taken of the training part, as there is no other
        TextTable(texts(tmp_path, part=part), **of, val_fraction=0.0, test_fraction=0.0).setup()
    cached = TextTable(texts(tmp_path), partition=IID(1), cache_folder=tmp_path)
    with pytest.warns(UserWarning, match="data.cache_folder has no effect: texts are kept in memory"):
        cached.setup()


def test_separators_and_formats_without_effect_are_told(tmp_path):
    data = TextTable(texts(tmp_path), label_separator="|", partition=IID(1))
    with pytest.warns(UserWarning, match="no row has two labels separated by data.label_separator '|'"):
        data.setup()
    data = TextTable(texts(tmp_path, ending="parquet"), encoding="latin-1", partition=IID(1))
    with pytest.warns(
        UserWarning, match="t.parquet is no csv file: data.delimiter, data.decimal and data.encoding have"
    ):
        data.setup()
    for arguments, message in (
        ({"delimiter": ";;"}, "data.delimiter is ';;': give one character"),
        ({"encoding": "latin-99"}, "data.encoding 'latin-99' is unknown"),
    ):
        with pytest.raises(FedlitError, match=message):
            TextTable(tmp_path, **arguments)


@pytest.mark.parametrize("ending", WRITERS)
def test_labels_and_subjects_are_the_text_of_the_table(ending, tmp_path):
    """Written by pandas as text, 01 stays 01 and 1.0 stays 1.0; so do texts with quotes, tabs and line breaks."""
    labels, subjects = ["01", "1", "1.0"] * 10, [f"{i // 2:03d}" for i in range(30)]
    written = [f'text {i} with "quotes",\ttabs;\nand lines µ' for i in range(30)]
    path = texts(tmp_path, ending=ending, label=labels, who=subjects, text=written)
    found = TextTable(path, group_column="who").read()
    assert [e.labels for e in found] == [(label,) for label in labels]
    assert [e.subject for e in found] == subjects
    assert [e.value for e in found] == written
    numbers = texts(tmp_path, ending=ending, label=[0, 1, 2] * 10)
    assert {e.label for e in TextTable(numbers).read()} == {"0", "1", "2"}


def test_a_german_table(tmp_path):
    path = tmp_path / "t.csv"
    pd.read_csv(texts(tmp_path)).assign(label=["Ödem", "Röntgen", "süß"] * 10).to_csv(
        path, index=False, sep=";", encoding="cp1252"
    )
    assert {e.label for e in TextTable(path, delimiter=";", encoding="cp1252").read()} == {"Ödem", "Röntgen", "süß"}
    with pytest.raises(FedlitError, match="it is not UTF-8.*set data.encoding"):
        TextTable(path, delimiter=";").read()


def test_labels_that_say_nothing_or_are_alike_are_told_with_a_mend_that_works(tmp_path):
    path = texts(tmp_path, label=["Asthma", "Asthma", "asthma", "NA", "?", "normal"] * 5)
    with pytest.warns(UserWarning, match="differ by case") as caught:
        TextTable(path, partition=IID(1)).setup()
    said = " ".join(str(one.message) for one in caught)
    assert "set data.rename {labels: {'asthma': 'Asthma'}}" in said
    assert "set data.rename {labels: {'?': null, 'NA': null}}" in said
    rename = {"labels": {"asthma": "Asthma", "?": None, "NA": None}}
    data = TextTable(path, partition=IID(1), rename=rename)
    about = data.describe()
    assert about["classes"] == ["Asthma", "normal"]
    assert len(about["excluded"]) == 10


@pytest.mark.parametrize("text", ["", "  ", "\u200b", "\u00a0\t", "\ufeff"])
def test_texts_that_show_nothing_are_bad_records(text, tmp_path):
    path = texts(tmp_path, text=[text] + [f"words {i}" for i in range(29)])
    with pytest.raises(BadRecord, match=r"(row 1 has an empty text|'row-1' has an empty text)"):
        TextTable(path, partition=IID(1)).setup()


def test_records_without_a_fold_are_left_out_by_skip(tmp_path):
    sounds(tmp_path, SPLIT)
    (tmp_path / "ICBHI_challenge_train_test.txt").unlink()
    with pytest.raises(BadRecord, match=r"has no fold: set data.split to subject; to leave it out"):
        ICBHI(tmp_path, **FOLDED).setup()


SPLIT = "".join(f"{101 + k}_1b1_Pl_sc_Meditron\t{('train', 'train', 'test')[k % 3]}\n" for k in range(12))
FOLDED = {"seconds": 1.0, "rate": 1000, "partition": IID(1), "split": "fold", "val_fraction": 0.2}


def sounds(folder, split, devices=()):
    """Twelve recordings of patients 101 to 112; ``devices`` are further ones of patient 103."""
    stems = [f"{101 + k}_1b1_Pl_sc_Meditron" for k in range(12)] + [f"103_1b1_Pl_sc_{name}" for name in devices]
    for number, stem in enumerate(stems):
        values = np.random.default_rng(number).normal(0, 0.1, 2000).astype(np.float32)
        soundfile.write(folder / f"{stem}.wav", values, 1000)
        (folder / f"{stem}.txt").write_text("0\t1\t0\t0\n1\t2\t1\t0\n")
    (folder / "ICBHI_challenge_train_test.txt").write_text(split)


def test_a_recording_that_the_official_list_has_with_another_device(tmp_path):
    sounds(tmp_path, SPLIT.replace("103_1b1_Pl_sc_Meditron", "103_1b1_Pl_sc_LittC2SE"))
    with pytest.warns(UserWarning, match="lists 1 recording.s. with another device: 103_.*Meditron as 103_.*LittC2SE"):
        about = ICBHI(tmp_path, **FOLDED).describe()
    assert any(name.startswith("103_") for name in about["clients"]["client-1"]["records"]["test"])


def test_where_the_device_is_not_unique_the_near_miss_is_shown_and_skip_leaves_it_out(tmp_path):
    sounds(tmp_path, SPLIT.replace("103_1b1_Pl_sc_Meditron", "103_1b1_Pl_sc_LittC2SE"), ["AKGC417L"])
    with pytest.raises(
        BadRecord, match=r"has no 103_1b1_Pl_sc_\w+, but 103_1b1_Pl_sc_LittC2SE: mend the list, or leave"
    ):
        ICBHI(tmp_path, **FOLDED).setup()
    data = ICBHI(tmp_path, **FOLDED, on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"4 bad record\(s\) skipped, 22 kept"):
        about = data.describe()
    assert {one["record"].partition("_")[0] for one in about["excluded"]} == {"103"}
    unlisted = "".join(line for line in SPLIT.splitlines(keepends=True) if not line.startswith("105"))
    sounds(tmp_path, unlisted + "999_1b1_Pl_sc_Meditron\ttest\n")
    with pytest.warns(UserWarning, match=r"lists 1 recording\(s\) that are not there: 999_1b1"):
        ICBHI(tmp_path, **FOLDED, on_bad_record="skip").setup()


def test_recordings_without_an_event_and_a_part_that_is_not_there_are_told(tmp_path):
    data = SPRSound("absent", seconds=0.25, partition=IID(1))
    data.use_stand_in(tmp_path)
    first = sorted((tmp_path / "BioCAS2022" / "train2022_json").glob("*.json"))[0]
    first.write_text('{"record_annotation": "Normal", "event_annotation": []}')
    data = SPRSound(tmp_path, seconds=0.25, partition=IID(1))
    with pytest.warns(UserWarning, match=r"1 recording\(s\) without an event have no example"):
        about = data.describe()
    assert {"record": first.stem, "reason": "has no event"} in about["excluded"]
    for folder in ("inter_test_json", "intra_test_json"):
        path = tmp_path / "BioCAS2022" / "test2022_json" / folder
        for one in path.glob("*.json"):
            one.rename(path.parent / one.name)
    with pytest.warns(
        UserWarning, match="data.test_part inter has no effect: there is no folder inter_test_json or int"
    ):
        SPRSound(tmp_path, seconds=0.25, partition=IID(1), test_part="inter").read()
