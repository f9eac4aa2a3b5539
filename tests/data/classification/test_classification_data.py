"""Examples of many clients: what is kept together, what is drawn, what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedlit.data import IID, BySite, BySubject, Dirichlet, PairwiseDirichlet
from fedlit.data.base.duplicates import content_key, merged
from fedlit.data.base.groups import draw, split_groups, split_parity
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.examples import Example
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")


class Given(ClassificationDataModule):
    """A reader of what it was given."""

    modality = "text"

    def __init__(self, given, modality="text", multi_label=False, class_names=None, **kwargs) -> None:
        self.given, self.modality, self.multi_label, self.class_names = given, modality, multi_label, class_names
        super().__init__(**{"partition": IID(1, unit="record")} | kwargs)

    def read(self):
        return list(self.given)

    def write_stand_in(self, folder):
        raise AssertionError("not used")


class Cutting(Given):
    """Records of two values a window."""

    def cut(self, example):
        count = example.value.shape[-1] // 2
        return [
            replace(example, id=f"{example.id}/{i}", values=example.value[..., 2 * i : 2 * i + 2]) for i in range(count)
        ]


def text(name, label="a", subject=None, value=None, site="s", fold=None):
    labels = label if isinstance(label, tuple) else (label,)
    return Example(name, subject or name, site, "text", labels, value or f"text of {name}", fold=fold)


def many(count=600, classes="abc", rows=3):
    """``rows`` examples a subject; classes in turn."""
    return [text(f"e{i}", classes[i // rows % len(classes)], f"p{i // rows}") for i in range(count)]


def sides(data):
    """Example id to the splits it is in, over all clients."""
    found = {}
    for client in data.clients:
        for split in SPLITS:
            for example in data.dataset(client, split).examples:
                found.setdefault(example.id, set()).add((client, split))
    return found


@pytest.mark.parametrize("partition", [Dirichlet(6, 0.3, min_records=12), PairwiseDirichlet(6, 0.3), IID(4, "record")])
def test_a_subject_is_on_one_side_at_all_clients(partition):
    data = Given(many(), partition=partition)
    data.setup()
    found = sides(data)
    assert len(found) == 600
    assert all(len(where) == 1 for where in found.values())
    of_subject = {}
    for example in data.examples:
        of_subject.setdefault(example.subject, set()).update(split for _, split in found[example.id])
    assert all(len(splits) == 1 for splits in of_subject.values())
    assert data.describe()["leaks"] == {"subjects": 0, "duplicates": 0}


def test_dirichlet_by_label_makes_unequal_mixes():
    given = many(rows=1)
    skewed = Given(given, partition=Dirichlet(6, 0.1, min_records=12)).describe()["statistics"]
    paired = Given(given, partition=PairwiseDirichlet(6, 0.1)).describe()["statistics"]
    even = Given(given, partition=IID(6)).describe()["statistics"]
    assert skewed["label"]["total_variation"] > paired["label"]["total_variation"] > even["label"]["total_variation"]


def test_the_split_is_even_in_classes():
    data = Given([text(f"e{i}", "a" if i % 10 else "b") for i in range(400)])
    counts = data.describe()["clients"]["client-1"]["class_counts"]
    assert {split: sum(own.values()) for split, own in counts.items()} == {"train": 240, "val": 60, "test": 100}
    for split, expected in (("train", 24), ("val", 6), ("test", 10)):
        assert abs(counts[split]["b"] - expected) <= 1
    at_random = Given(data.given, split="record", seed=3).describe()["clients"]["client-1"]["class_counts"]
    assert {split: sum(own.values()) for split, own in at_random.items()} == {"train": 240, "val": 60, "test": 100}


def test_a_class_with_one_unit_is_trained_on():
    data = Given([text(f"e{i}", "a" if i else "rare") for i in range(40)])
    counts = data.describe()["clients"]["client-1"]["class_counts"]
    assert counts["train"]["rare"] == 1
    assert data.describe()["absent_classes"] == {}


def test_a_subject_with_most_examples_goes_to_training():
    units = ["large"] * 60 + [f"u{i}" for i in range(40)]
    made = split_groups({"c": range(100)}, units, ["a"] * 100, 0.15, 0.25, seed=0)["c"]
    assert set(range(60)) == set(made["train"])
    assert (len(made["val"]), len(made["test"])) == (15, 25)


def test_duplicates_join_their_subjects_through_others():
    chain = [text("x1", subject="p1", value="same  Text"), text("x2", "b", subject="p2", value="SAME text")]
    chain += [text("x3", subject="p2", value="other"), text("x4", "b", subject="p3", value="other")]
    for seed in range(8):
        data = Given(many(60) + chain, seed=seed, partition=IID(2, "record"))
        with pytest.warns(UserWarning, match=r"2 value\(s\) occur more than once \(2 repeats\), 2 of them under diff"):
            data.setup()
        found = sides(data)
        assert len({split for name in ("x1", "x2", "x3", "x4") for _, split in found[name]}) == 1
    expected = {"values": 2, "repeats": 2, "with_different_labels": 2, "merged": True}
    assert data.describe()["duplicates"] == expected


def test_duplicates_that_are_not_merged_are_counted_where_they_leak():
    given = [text(f"e{i}", "ab"[i % 2], value=f"text {i // 2}") for i in range(80)]
    data = Given(given, merge_duplicates=False)
    with pytest.warns(UserWarning, match="not kept on one side"):
        description = data.describe()
    assert description["duplicates"]["values"] == 40
    found = sides(data)
    apart = sum(
        len({split for name in (f"e{2 * k}", f"e{2 * k + 1}") for _, split in found[name]}) > 1 for k in range(40)
    )
    assert description["leaks"]["duplicates"] == apart > 0


def test_merged_names_each_group_once():
    keys = [b"1", b"1", b"2", b"3", b"2", b"4"]
    assert merged(["a", "b", "b", "c", "d", "e"], keys) == ["a", "a", "a", "c", "a", "e"]


def test_content_key_tells_shape_and_type_apart():
    values = np.arange(4, dtype=np.float32)
    assert content_key(values) == content_key(values.copy())
    assert len({content_key(v) for v in (values, values.reshape(2, 2), values.view(np.uint8), "0123")}) == 4
    assert content_key(np.arange(8, dtype=np.float32)[::2]) == content_key(values * 2)


def test_parity_splits_each_class_40_30_30_and_counts_what_leaks():
    data = Given(many(300), parity=True, partition=IID(2, "record"))
    with pytest.warns(UserWarning, match=r"parity: \d+ subject"):
        description = data.describe()
    for own in description["clients"].values():
        for name, total in Counter(sum((Counter(c) for c in own["class_counts"].values()), Counter())).items():
            shares = [own["class_counts"][split][name] / total for split in ("train", "test", "val")]
            assert shares == pytest.approx([0.4, 0.3, 0.3], abs=1.01 / total)
    assert description["leaks"]["subjects"] > 60
    assert description["split"] == {"rule": "parity", "val_fraction": 0.3, "test_fraction": 0.3}
    assert Given(many(), parity=True, partition=None).describe()["partition"]["class"] == "PairwiseDirichlet"


def test_parity_by_hand():
    made = split_parity({"c": list(range(30))}, ["a"] * 10 + ["b"] * 20, seed=0)["c"]
    assert [sum(i < 10 for i in made[split]) for split in ("train", "test", "val")] == [4, 3, 3]
    assert [sum(i >= 10 for i in made[split]) for split in ("train", "test", "val")] == [8, 6, 6]


def signals(count=40, samples=8, **kwargs):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((count, 3, samples)).astype(np.float32)
    return [
        Example(f"r{i}", f"p{i // 2}", f"s{i % 2}", "eeg", ("ab"[i // 2 % 2],), values[i], 100.0, **kwargs)
        for i in range(count)
    ]


def test_windows_are_cut_after_the_split_and_before_the_partition_with_parity():
    data = Cutting(signals(), modality="signal", partition=IID(2))
    data.setup()
    found = sides(data)
    assert len(found) == 160
    assert {len(set.union(*(found[f"r{i}/{k}"] for k in range(4)))) for i in range(40)} == {1}
    own = data.describe()["clients"]["client-1"]
    assert own["examples"] == {split: 4 * len(names) for split, names in own["records"].items()}
    parity = Cutting(signals(), modality="signal", partition=IID(2, "record"), parity=True)
    with pytest.warns(UserWarning, match="parity"):
        parity.setup()
    found = sides(parity)
    assert len(found) == 160
    apart = [i for i in range(40) if len({c for k in range(4) for c, _ in found[f"r{i}/{k}"]}) > 1]
    assert len(apart) > 20
    with pytest.warns(UserWarning, match="parity"):
        served = Cutting(signals(), modality="signal", parity=True, server_examples=9).server_dataset()
    assert [len(served), served.examples[0].value.shape] == [9, (3, 2)]
    assert sum(parity.describe()["clients"]["client-1"]["examples"].values()) == 80


def test_batches_of_signals():
    data = Cutting(signals(), modality="signal", class_names=["b", "a"])
    dataset = data.dataset("client-1", "train")
    batch = dataset.__getitems__([0, 3])
    assert batch["x"].shape == (2, 3, 2)
    assert batch["x"].dtype == torch.float32
    names = [example.id for example in dataset.examples]
    assert batch["id"] == [names[0], names[3]]
    assert batch["client"] == ["client-1", "client-1"]
    by_id = {example.id: example for example in signals()}
    record, window = names[3].split("/")
    expected = by_id[record].values[:, 2 * int(window) : 2 * int(window) + 2]
    assert np.array_equal(batch["x"][1].numpy(), expected)
    assert batch["label"].tolist() == [["b", "a"].index(by_id[name.split("/")[0]].label) for name in batch["id"]]
    assert dataset[3]["label"] == batch["label"][1]
    loaded = next(iter(data.train_dataloader()))
    assert loaded["x"].shape == (32, 3, 2)
    assert len(loaded["id"]) == 32


def test_rows_of_a_shuffled_batch_of_several_clients_belong_together():
    data = Given(many(120, rows=1), partition=BySubject(4))
    data.setup()
    dataset = data.dataset(data.clients, "train")
    owner = {name: client for client in data.clients for name in data.describe()["clients"][client]["records"]["train"]}
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    batch = dataset.__getitems__(order)
    given = {example.id: example for example in data.given}
    assert len(set(batch["client"])) == 4
    assert batch["client"] == [owner[name] for name in batch["id"]]
    assert batch["x"] == [given[name].values for name in batch["id"]]
    assert [data.classes[i] for i in batch["label"]] == [given[name].label for name in batch["id"]]
    assert [owner[dataset[i]["id"]] for i in (0, len(dataset) - 1)] == [dataset.clients[0], dataset.clients[-1]]


def test_the_order_of_reading_makes_no_difference():
    given = many(90)
    one, two = Given(given, partition=Dirichlet(3, 1.0, min_records=9)), Given(given[::-1])
    two.partition = one.partition
    assert one.describe() == two.describe()


def test_a_small_client_keeps_all_sides_where_it_shares_subjects_with_a_large_one():
    units = ["u0", "u1", "u2"] + [f"u{i}" for i in range(40)]
    assignment = {"a-small": [0, 1, 2], "b-large": list(range(3, 43))}
    for seed in range(10):
        made = split_groups(assignment, units, ["a"] * 43, 0.3, 0.3, seed)
        assert [len(made["a-small"][split]) for split in SPLITS] == [1, 1, 1]
        assert [len(made["b-large"][split]) for split in SPLITS] == [16, 12, 12]
        side = {split: {units[i] for own in made.values() for i in own[split]} for split in SPLITS}
        assert sum(map(len, side.values())) == 40


def test_the_one_unit_of_a_class_is_trained_on_even_where_most_is_tested():
    for common in (20, 30, 40):
        classes = ["common"] * common + ["rare"]
        made = split_groups({"c": range(common + 1)}, [f"u{i}" for i in range(common + 1)], classes, 0.4, 0.4, 0)["c"]
        assert common in made["train"]


@pytest.mark.parametrize(("modality", "shape", "dtype"), [("image", (6, 5, 3), np.uint8), ("audio", (16,), np.float32)])
@pytest.mark.parametrize("file", [False, True])
def test_values_that_a_function_reads_are_read_once(modality, shape, dtype, file, tmp_path):
    rng = np.random.default_rng(0)
    arrays = (rng.random((12, *shape)) * 200).astype(dtype)
    reads = Counter()

    def reader(i):
        def read():
            reads[i] += 1
            return arrays[i]

        return read

    given = [Example(f"e{i}", f"e{i}", "s", modality, ("ab"[i % 2],), reader(i)) for i in range(12)]
    data = Given(given, modality=modality, cache_folder=tmp_path / "cache" if file else None)
    dataset = data.dataset("client-1", "train")
    for _ in range(2):
        batch = dataset.__getitems__(range(len(dataset)))
    assert batch["x"].dtype == torch.from_numpy(arrays).dtype
    wanted = arrays[[int(name[1:]) for name in batch["id"]]]
    assert np.array_equal(batch["x"].numpy(), wanted)
    assert set(reads.values()) == {1}
    if file:
        assert list((tmp_path / "cache").iterdir()) == []


def test_asking_for_no_client_is_refused():
    with pytest.raises(FedlitError, match="no client is asked for"):
        Given(many(30)).dataset([], "train")


def test_fraction_takes_whole_subjects_of_every_class():
    given = many(600)
    data = Given(given, fraction=0.1)
    data.setup()
    kept = Counter(example.subject for example in data.examples)
    assert set(kept.values()) == {3}
    assert Counter(example.label for example in data.examples) == {"a": 21, "b": 21, "c": 21}
    assert Given(given, fraction=0.001).describe()["statistics"]["sizes"]["max"] == 9
    assert draw(["u", "u", "v"], ["a", "b", "b"], 0.5, 0) in ([0, 1], [0, 1, 2])


def test_server_examples_are_kept_from_clients_with_their_subjects():
    for split in ("subject", "stratified"):
        data = Given(many(300), server_examples=20, split=split)
        data.setup()
        served = data.server_dataset()
        assert len(served) == 20
        assert set(served.clients) == {"server"}
        subjects = {example.subject for example in served.examples}
        assert not subjects & {example.subject for example in data.examples}
        assert len(data.examples) == 300 - 3 * len(subjects)
        assert data.describe()["server"] == [example.id for example in served.examples]
    assert Given(many(60)).server_dataset() is None
    with pytest.raises(FedlitError, match="server_examples is 60 of 60"):
        Given(many(60), server_examples=60).setup()


def test_the_sources_split():
    given = [text(f"e{i}", "ab"[i % 2], fold=("train", "val", "test", "train")[i % 4]) for i in range(80)]
    data = Given(given, split="fold", partition=IID(2))
    data.setup()
    for name, where in sides(data).items():
        assert next(iter(where))[1] == given[int(name[1:])].fold
    without = [replace(example, fold="test" if example.fold == "test" else "train") for example in given]
    data = Given(without, split="fold")
    counts = data.describe()["clients"]["client-1"]["examples"]
    assert counts == {"train": 51, "val": 9, "test": 20}
    with pytest.raises(FedlitError, match="'e0' has no fold"):
        Given(many(60), split="fold").setup()
    alone = [replace(example, site="left" if example.fold == "train" else "right") for example in given]
    with pytest.raises(FedlitError, match="'site-left' has no example in the source's val fold"):
        Given(alone, split="fold", partition=BySite()).setup()


def test_what_the_server_holds_leaks_to_no_client():
    copies = [text(f"copy{i}", "abc"[i % 3], value=f"text of e{i}") for i in range(0, 300, 3)]
    data = Given(many(300, rows=1) + copies, server_examples=60, split="stratified")
    with pytest.warns(UserWarning, match="occur more than once"):
        served = data.server_dataset()
    values = {example.value for example in served.examples}
    assert any(example.id.startswith("copy") for example in served.examples)
    assert not values & {example.value for example in data.examples}
    windows = Cutting(signals(), modality="signal", server_examples=4).server_dataset()
    assert [len(windows), windows.examples[0].value.shape] == [16, (3, 2)]
    folds = [text(f"e{i}", "ab"[i % 2], fold=("train", "test")[i // 2 % 2]) for i in range(80)]
    held = Given(folds, split="fold", server_examples=20).server_dataset()
    assert {example.fold for example in held.examples} == {"train"}
    with pytest.raises(FedlitError, match="too many"):
        Given(folds, split="fold", server_examples=41).setup()


def test_the_sources_validation_part_is_trained_on_where_none_is_wanted():
    given = [text(f"e{i}", "ab"[i % 2], fold=("train", "val", "test", "train")[i % 4]) for i in range(80)]
    data = Given(given, split="fold", val_fraction=0.0)
    assert data.describe()["clients"]["client-1"]["examples"] == {"train": 60, "val": 0, "test": 20}


def test_windows_that_are_kept_do_not_keep_their_record():
    data = Cutting(signals(), modality="signal", partition=IID(2, "record"), parity=True, fraction=0.2)
    with pytest.warns(UserWarning, match="parity"):
        data.setup()
    assert data.examples
    assert not any(np.shares_memory(e.value, record.values) for e in data.examples for record in data.given)


def test_multi_label():
    labels = [("a", "b"), (), ("b",), ("a",)]
    given = [text(f"e{i}", labels[i % 4]) for i in range(80)]
    assert [example.label for example in given[:4]] == ["a+b", "none", "b", "a"]
    data = Given(given, multi_label=True, partition=Dirichlet(3, 1.0, min_records=10))
    data.setup()
    dataset = data.dataset(data.clients, "train")
    batch = dataset.__getitems__(range(len(dataset)))
    assert len(batch["label"]) > 40
    for row, name in zip(batch["label"].tolist(), batch["id"], strict=True):
        assert row == [float(c in labels[int(name[1:]) % 4]) for c in "ab"]
    counts = data.describe()["clients"]
    assert sum(own["class_counts"][split].get("a", 0) for own in counts.values() for split in SPLITS) == 40


def test_a_class_absent_from_training_is_named():
    given = [text(f"e{i}", "ab"[i % 2] if i < 30 else "c", fold="train" if i < 30 else "test") for i in range(40)]
    data = Given(given, split="fold", val_fraction=0.0)
    with pytest.warns(UserWarning, match=r"1 client\(s\) test classes .* client-1 \(c\)"):
        data.setup()
    assert data.describe()["absent_classes"] == {"client-1": ["c"]}


def test_a_class_of_few_records_may_be_misspelt():
    given = many(60)
    given[7] = text("e7", "bb", "p2")
    with pytest.warns(UserWarning, match=r"1 class\(es\) of fewer than 3 records.*: bb \(1\); mend labels"):
        Given(given).setup()


def test_the_usual_partition_is_named_where_it_does_not_fit():
    with pytest.raises(FedlitError, match=r"data.partition is not given, and is Dirichlet\(clients=20.*: give one"):
        Given(many(60), partition=None).setup()
    with pytest.raises(FedlitError, match="ask for fewer clients$"):
        Given(many(60), partition=Dirichlet(20, 0.1, min_records=10)).setup()


def image(name, shape=(4, 4, 3), dtype=np.uint8, values=None):
    made = (np.arange(np.prod(shape)) + len(name)).reshape(shape).astype(dtype) if values is None else values
    return Example(name, name, "s", "image", (name[0],), made)


IMAGES = [image(f"{c}{i:0{i + 1}d}") for c in "ab" for i in range(6)]
BAD = {
    "text": (
        [text("odd", value="   ")],
        "'odd' has an empty text",
    ),
    "label": ([text("odd", "z")], "'odd' has the label 'z', which is no class: there are a, b, c"),
    "no label": ([text("odd", ())], "'odd' has no labels, one is needed"),
    "two labels": ([text("odd", ("a", "b"))], "'odd' has 2 labels, one is needed"),
    "empty label": ([text("odd", "")], "'odd' has the label ''"),
    "not text": ([text("odd", value=3)], "'odd' is int, not text"),
    "size": ([image("a-odd.png", (8, 4, 3))], r"'a-odd.png' is \(8, 4, 3\), the others are \(4, 4, 3\)"),
    "mode": ([image("a-odd.png", (4, 4))], r"'a-odd.png' is uint8 \(4, 4\), not uint8 \(height, width, 3\)"),
    "sixteen bits": ([image("a-odd.png", dtype=np.uint16)], "'a-odd.png' is uint16"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_or_skipped(case):
    odd, message = BAD[case]
    picture = odd[0].kind == "image"
    good, modality = (IMAGES, "image") if picture else (many(60), "text")
    names = ["a", "b"] if picture else ["a", "b", "c"]
    with pytest.raises(BadRecord, match=message):
        Given(good + odd, modality=modality, class_names=names).setup()
    data = Given(good + odd, modality=modality, class_names=names, on_bad_record="skip")
    with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped"):
        data.setup()
    assert [row["record"] for row in data.describe()["excluded"]] == [odd[0].id]
    assert len(data.examples) == len(good)
    Given(good + odd, modality=modality, class_names=names, exclude=["*odd*"]).setup()


def test_signals_with_missing_samples_and_unreadable_files_are_refused():
    values = np.ones((3, 8), np.float32)
    values[0, 2] = np.nan
    odd = Example("odd", "odd", "s", "eeg", ("a",), values)
    with pytest.raises(BadRecord, match=r"'odd' holds 1 missing or infinite sample"):
        Given([*signals(), odd], modality="signal").setup()

    def broken():
        raise BadRecord("odd.wav: not a sound file: mend it")

    with pytest.raises(BadRecord, match=r"odd\.wav: not a sound file: mend it; to leave it out"):
        Given([*signals(), replace(odd, values=broken)], modality="signal").setup()


def test_windows_of_two_lengths_do_not_fit_a_batch():
    given = [replace(e, values=e.values[:, :6] if e.id == "r3" else e.values) for e in signals()]

    class Whole(Given):
        def cut(self, example):
            return [replace(example, id=f"{example.id}/0")]

    data = Whole(given, modality="signal", val_fraction=0.0, test_fraction=0.0)
    with pytest.raises(FedlitError, match=r"'r3/0' of \(3, 6\) do not fit one batch"):
        data.dataset("client-1", "train").__getitems__(range(40))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "time"}, "data.split is 'time': give one of subject, record, fold, stratified"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"val_fraction": -0.1}, "data.val_fraction is -0.1"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"fraction": 0.0}, "data.fraction is 0.0"),
        ({"server_examples": -1}, "data.server_examples is -1"),
    ],
)
def test_arguments_that_are_none(arguments, message):
    with pytest.raises(FedlitError, match=message):
        Given(many(60), **arguments)


def test_data_that_cannot_be_used():
    with pytest.raises(FedlitError, match="two records are named 'e0'"):
        Given([*many(60), text("e0")]).setup()
    with pytest.raises(FedlitError, match="only label is a: two classes"):
        Given([text(f"e{i}") for i in range(9)]).setup()
    with pytest.raises(FedlitError, match="no record left to use: 60 left out"):
        Given(many(60), exclude=["*"]).setup()
    with pytest.raises(FedlitError, match=r"client 'subject-p0' has 1 group\(s\), a split needs 3"):
        Given(many(60), partition=BySubject()).setup()
    data = Given(many(60))
    with pytest.raises(FedlitError, match="no client 'x'"):
        data.dataset("x", "train")
    with pytest.raises(FedlitError, match="no split 'dev'"):
        data.dataset("client-1", "dev")


def test_a_description_is_json_and_the_same_for_the_same_seed():
    def made(seed):
        return json.dumps(Given(many(), partition=Dirichlet(4, 0.5, min_records=20), seed=seed).describe())

    assert made(1) == made(1)
    assert json.loads(made(1))["clients"] != json.loads(made(2))["clients"]
    assert Given(many(60), fraction=0.5).config()["fraction"] == 0.5


def test_classes_without_a_record_and_tests_of_one_class_are_said():
    given = many(60, "ab")
    with pytest.warns(UserWarning, match="1 of 3 classes have no record: lung"):
        Given(given, class_names=("a", "b", "lung")).setup()
    one_sided = [replace(e, fold="test" if e.labels == ("a",) else "train") for e in many(60, "ab")]
    with pytest.warns(UserWarning, match=r"all test examples are of one class \(a\)"):
        Given(one_sided, split="fold").setup()
