"""MedMNIST in its official layout."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from fedlit.data import IID, Dirichlet, FederatedDataModule
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.med_mnist import MedMNIST
from fedlit.data.classification.med_mnist_sets import SETS, SIZES
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
UNCHECKED = {"check_md5": False}


def arrays(count=30, size=28, channels=3, classes=9, parts=SPLITS):
    generator = np.random.default_rng(0)
    out = {}
    for part in parts:
        shape = (count, size, size, channels) if channels == 3 else (count, size, size)
        out[f"{part}_images"] = generator.integers(0, 256, shape, np.uint8)
        out[f"{part}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    return out


def written(folder, name="pathmnist.npz", **given):
    np.savez_compressed(folder / name, **(given or arrays()))
    return folder / name


def refused(path, **arguments):
    with pytest.raises(FedlitError) as caught:
        MedMNIST(path, **({"name": "pathmnist"} | UNCHECKED | arguments)).setup()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_table_of_facts():
    counts = {name: len(one.classes) for name, one in SETS.items()}
    assert counts == {
        "pathmnist": 9,
        "chestmnist": 14,
        "dermamnist": 7,
        "octmnist": 4,
        "pneumoniamnist": 2,
        "retinamnist": 5,
        "breastmnist": 2,
        "bloodmnist": 8,
        "tissuemnist": 8,
        "organamnist": 11,
        "organcmnist": 11,
        "organsmnist": 11,
    }
    sums = [one for facts in SETS.values() for one in facts.md5]
    assert len(set(sums)) == len(sums) == 12 * len(SIZES)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in sums)
    assert [name for name, one in SETS.items() if one.multi_label] == ["chestmnist"]
    coloured = {"pathmnist", "dermamnist", "retinamnist", "bloodmnist"}
    assert {name for name, one in SETS.items() if not one.grey} == coloured


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [(name, {}) for name in SETS]
    + [
        ("organamnist", {"parity": True, "fraction": 0.2}),
        ("organsmnist", {"split": "fold", "partition": Dirichlet(20, 0.1, min_records=40)}),
        ("chestmnist", {"split": "stratified", "server_examples": 8}),
        ("breastmnist", {"size": 64, "partition": IID(3)}),
    ],
)
def test_stand_ins_are_read_back(name, arguments, tmp_path):
    data = MedMNIST("absent", name, **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    size = arguments.get("size", 28)
    assert (tmp_path / (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")).is_file()
    assert description["stand_in"]
    assert data.classes == list(SETS[name].classes)
    assert len(data.clients) == getattr(arguments.get("partition"), "clients", 20)
    for client in data.clients:
        assert all(len(data.dataset(client, split)) for split in SPLITS)
    batch = data.dataset(data.clients, "test").__getitems__([0, 1])
    assert batch["x"].shape == (2, size, size, 3)
    assert batch["label"].shape == ((2, 14) if name == "chestmnist" else (2,))
    assert sum(map(sum, (own["examples"].values() for own in description["clients"].values()))) == len(data.examples)


def test_images_and_labels_are_those_of_the_file(tmp_path):
    given = arrays()
    read = MedMNIST(written(tmp_path, **given), "pathmnist", **UNCHECKED).read()
    assert [example.id for example in read[29:32]] == ["train-29", "val-0", "val-1"]
    assert Counter(example.fold for example in read) == dict.fromkeys(SPLITS, 30)
    for example in read:
        part, number = example.id.split("-")
        assert np.array_equal(example.value, given[f"{part}_images"][int(number)])
        assert example.label == SETS["pathmnist"].classes[int(number) % 9]
        assert example.subject == example.id


def test_grey_images_are_repeated_and_the_array_is_held_once(tmp_path):
    given = arrays(channels=1, classes=11, size=64)
    path = written(tmp_path, "organcmnist_64.npz", **given)
    read = MedMNIST(tmp_path, "organcmnist", 64, **UNCHECKED).read()
    assert path.is_file()
    assert all(np.array_equal(read[3].value[..., k], given["train_images"][3]) for k in range(3))
    assert read[3].value.strides[2] == 0
    owners = {id(example.value.base.base if example.value.base.base is not None else example.value.base)
              for example in read if example.fold == "train"}  # fmt: skip
    assert len(owners) == 1
    assert all(not example.value.flags.owndata for example in read)


def test_labels_of_several_columns(tmp_path):
    given = arrays(channels=1)
    rows = np.zeros((30, 14), np.uint8)
    rows[0, [1, 13]] = 1
    given |= {f"{part}_labels": rows for part in SPLITS}
    read = MedMNIST(written(tmp_path, "chestmnist.npz", **given), "chestmnist", **UNCHECKED).read()
    assert read[0].labels == ("cardiomegaly", "hernia")
    assert read[1].labels == ()
    given["val_labels"] = rows * 2
    assert "val_labels row 0 holds [0, 2, 0" in refused(written(tmp_path, "chestmnist.npz", **given), name="chestmnist")


def test_a_cache_folder_holds_the_images(tmp_path):
    path = written(tmp_path)
    plain = MedMNIST(path, "pathmnist", **UNCHECKED)
    cached = MedMNIST(path, "pathmnist", **UNCHECKED, cache_folder=tmp_path / "cache")
    for ours, theirs in zip(plain.read(), cached.read(), strict=True):
        assert np.array_equal(ours.value, theirs.value)
    assert not cached.read()[0].value.flags.writeable
    assert list((tmp_path / "cache").iterdir()) == []
    (tmp_path / "file").write_text("")
    message = refused(path, cache_folder=tmp_path / "file" / "cache")
    assert "set data.cache_folder to a folder" in message
    assert "cannot be read" not in message


def test_a_file_that_is_not_the_official_one(tmp_path, monkeypatch):
    path = written(tmp_path)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    message = refused(tmp_path, check_md5=True)
    assert str(path) in message
    assert found in message
    assert "a8b06965200029087d5bd730944a56c1" in message
    assert "set data.check_md5 to false" in message
    facts = replace(SETS["pathmnist"], md5=(found, *SETS["pathmnist"].md5[1:]))
    monkeypatch.setitem(SETS, "pathmnist", facts)
    assert len(MedMNIST(tmp_path, "pathmnist").read()) == 90


def test_files_that_cannot_be_used(tmp_path):
    assert "data.name is 'mnist': give one of pathmnist, chestmnist" in refused(tmp_path, name="mnist")
    assert "data.size is 32: MedMNIST has 28, 64, 128, 224" in refused(tmp_path, size=32)
    assert "folder is empty" in refused(tmp_path)
    written(tmp_path, "other.npz")
    assert "no pathmnist_64.npz, there is other.npz: take it from https" in refused(tmp_path, size=64)
    path = written(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "pathmnist.npz: cannot be read (File is not a zip file)" in refused(tmp_path)
    broken = bytearray(whole)
    broken[2000:2100] = bytes(100)
    path.write_bytes(bytes(broken))
    assert "pathmnist.npz: cannot be read" in refused(tmp_path)
    written(tmp_path, a=np.zeros(3))
    assert "holds a, and none of train_images, val_images, test_images" in refused(tmp_path)


@pytest.mark.parametrize("cached", [False, True])
def test_a_pickle_is_refused(cached, tmp_path):
    given = arrays()
    given["val_images"] = np.array([{"a": 1}] * 30, dtype=object)
    path = written(tmp_path, **given)
    assert "cannot be read (Object arrays cannot be loaded when allow_pickle=False)" in refused(
        path, cache_folder=tmp_path / "cache" if cached else None
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"val_images": np.zeros((30, 32, 32, 3), np.uint8)}, "val_images is uint8 (30, 32, 32, 3), not uint8 (30, 28"),
        ({"val_images": np.zeros((30, 28, 28, 3), np.uint16)}, "val_images is uint16 (30, 28, 28, 3), not uint8"),
        ({"val_labels": np.zeros((29, 1), np.uint8)}, "val_labels is uint8 (29, 1), val_images has 30, and pathmnist"),
        (
            {"val_labels": np.zeros((30, 14), np.uint8)},
            "needs whole numbers (30, 1): mend the labels, or set data.name",
        ),
        ({"val_labels": np.zeros((30, 1), np.float32)}, "val_labels is float32"),
        ({"val_labels": np.full((30, 1), 9, np.uint8)}, "'val-0' has the label '9', which is no class: there are adi"),
    ],
)
def test_arrays_that_are_wrong(changed, message, tmp_path):
    found = refused(written(tmp_path, **(arrays() | changed)))
    assert message in found
    assert "cannot be read" not in found


def test_a_file_without_labels(tmp_path):
    given = arrays()
    del given["test_labels"]
    assert "pathmnist.npz: has test_images and no test_labels: take" in refused(written(tmp_path, **given))


def test_labels_outside_the_set_can_be_skipped(tmp_path):
    given = arrays()
    given["val_labels"][3] = 200
    path = written(tmp_path, **given)
    with pytest.raises(BadRecord, match="'val-3' has the label '200'"):
        MedMNIST(path, "pathmnist", partition=IID(2), **UNCHECKED).setup()
    data = MedMNIST(path, "pathmnist", partition=IID(2), on_bad_record="skip", **UNCHECKED)
    with pytest.warns(UserWarning, match="1 bad record"):
        data.setup()
    assert len(data.examples) == 89


def test_the_real_images(shared):
    """718 images, of the test part only; counts as the manifest beside them has them."""
    folder = shared / "img_pathmnist_subset"
    if not (folder / "pathmnist.npz").is_file():
        pytest.skip(f"no {folder}")
    with pytest.raises(FedlitError, match="its md5 sum is .*, that of the official pathmnist.npz a8b069"):
        MedMNIST(folder, "pathmnist").setup()
    data = MedMNIST(folder, "pathmnist", partition=Dirichlet(10, 0.5, min_records=20), **UNCHECKED)
    with pytest.warns(UserWarning, match="has no official train and no val part: only test is read"):
        description = data.describe()
    counts = Counter()
    for own in description["clients"].values():
        for split in SPLITS:
            counts.update(own["class_counts"][split])
    assert [counts[name] for name in data.classes] == [147, 78, 26, 60, 112, 60, 85, 28, 122]
    assert description["leaks"] == {"subjects": 0, "duplicates": 0}
    with np.load(folder / "pathmnist.npz", allow_pickle=False) as file:
        images, labels = file["test_images"], file["test_labels"]
    batch = data.dataset(data.clients[0], "train").__getitems__(range(5))
    for name, image, label in zip(batch["id"], batch["x"].numpy(), batch["label"].tolist(), strict=True):
        number = int(name.removeprefix("test-"))
        assert np.array_equal(image, images[number])
        assert label == labels[number, 0]


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "name": "organamnist", "size": 224, "check_md5": False, "split": "fold"}
    made = {"data": {"class_path": "fedlit.data.classification.med_mnist.MedMNIST", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()
