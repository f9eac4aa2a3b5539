"""Fed-ISIC2019 in FLamby's layout."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from jsonargparse import ArgumentParser
from PIL import Image

from fedlit.data import Dirichlet, FederatedDataModule
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.fed_isic import CENTRES, DIAGNOSES, FedISIC2019
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
# As FLamby's file is written, with ids of no one: each diagnosis, and each centre.
ROWS = """image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK,target,center,fold,fold2
ISIC_0000001,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0,2,train,train_2
ISIC_0000002,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1,0,train,train_0
ISIC_0000003,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,2,0,test,test_0
ISIC_0000004,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,0.0,3,0,train,train_0
ISIC_0000005_downsampled,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,0.0,4,4,test,test_4
ISIC_0000006,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,0.0,5,2,train,train_2
ISIC_0000007,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0,0.0,6,1,train,train_1
ISIC_0000008,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0,0.0,7,3,train,train_3
ISIC_0000009,0.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1,5,train,train_5
"""
IMAGES = "ISIC_2019_Training_Input_preprocessed"


def folder_of(path, rows=ROWS, name="train_test_split"):
    (path / IMAGES).mkdir(exist_ok=True)
    for line in rows.splitlines()[1:]:
        image = np.zeros((224, 300, 3), np.uint8)
        image[:, 38:262] = 128
        Image.fromarray(image).save(path / IMAGES / f"{line.split(',')[0]}.jpg", quality=95)
    (path / name).write_text(rows)
    return path


def test_images_that_are_not_listed_are_told(tmp_path):
    folder = folder_of(tmp_path)
    (folder / IMAGES / "ISIC_0000099.jpg").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"1 image\(s\) are not in train_test_split, and not read: ISIC_0000099"):
        FedISIC2019(folder).read()


@pytest.mark.parametrize("name", ["train_test_split", "train_test_split.csv"])
def test_rows_of_the_official_file(name, tmp_path):
    data = FedISIC2019(folder_of(tmp_path, name=name))
    with pytest.warns(UserWarning, match="ISIC_2019_Training_Metadata.csv is absent: images of one lesion may"):
        read = data.read()
    assert [example.label for example in read] == [*DIAGNOSES, "NV"]
    hot = pd.read_csv(tmp_path / name)
    assert [example.label for example in read] == list(hot[list(DIAGNOSES)].idxmax(axis=1))
    assert [example.site for example in read] == [CENTRES[number] for number in (2, 0, 0, 0, 4, 2, 1, 3, 5)]
    assert Counter(example.fold for example in read) == {"train": 7, "test": 2}
    assert all(example.subject == example.id for example in read)
    value = read[0].value
    assert (value.dtype, value.shape) == (np.uint8, (224, 224, 3))
    # The middle, cut out and not squeezed.
    assert abs(value[:, 8:-8].astype(int) - 128).max() <= 8


def test_images_of_a_lesion_are_one_subject(tmp_path):
    folder_of(tmp_path)
    lines = ["image,age_approx,anatom_site_general,lesion_id,sex", "ISIC_0000001,55.0,lower extremity,HAM_0001,male"]
    lines += ["ISIC_0000006,55.0,,HAM_0001,male", "ISIC_0000002,,,BCN_0002,", "ISIC_0000003,,,,", "ISIC_9,,,HAM_3,"]
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(lines) + "\n")
    data = FedISIC2019(tmp_path)
    with pytest.warns(UserWarning, match=r"has no lesion of 6 image\(s\), each its own: ISIC_0000003") as caught:
        read = {example.id: example.subject for example in data.read()}
    assert len(caught) == 1
    assert read["ISIC_0000001"] == read["ISIC_0000006"] == "HAM_0001"
    assert read["ISIC_0000002"] == "BCN_0002"
    assert read["ISIC_0000003"] == "ISIC_0000003"


@pytest.mark.filterwarnings("ignore")
def test_lesions_stay_on_one_side_and_clients_are_centres(tmp_path):
    data = FedISIC2019("absent", size=32)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["stand_in"]
    assert data.clients == sorted(f"site-{centre}" for centre in CENTRES)
    assert data.classes == list(DIAGNOSES)
    assert description["leaks"] == {"subjects": 0, "duplicates": 0}
    sides = defaultdict(set)
    for own in description["clients"].values():
        for split in SPLITS:
            for name in own["records"][split]:
                sides[int(name.removeprefix("ISIC_")) // 2].add(split)
    assert len(sides) == 180
    assert all(len(own) == 1 for own in sides.values())
    assert data.dataset(data.clients, "train").__getitems__([0, 1])["x"].shape == (2, 32, 32, 3)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {"split": "fold"},
        {"parity": True},
        {"split": "stratified", "server_examples": 12},
        {"partition": Dirichlet(8, 0.5, min_records=20)},
    ],
)
def test_stand_ins_are_read_back(arguments, tmp_path):
    data = FedISIC2019("absent", size=16, **arguments)
    data.use_stand_in(tmp_path)
    data.setup()
    clients = 20 if "parity" in arguments else getattr(arguments.get("partition"), "clients", 6)
    assert len(data.clients) == clients
    assert all(len(data.dataset(client, split)) for client in data.clients for split in SPLITS)


@pytest.mark.filterwarnings("ignore")
def test_folders_that_are_wrong(tmp_path):
    def message():
        data = FedISIC2019(tmp_path)
        with pytest.raises(FedlitError) as caught:
            data.setup()
        return str(caught.value)

    assert "folder is empty" in message()
    (tmp_path / "ISIC_2019_Training_Input").mkdir()
    assert "Input_preprocessed: no such folder: run FLamby's resize_images.py" in message()
    (tmp_path / IMAGES).mkdir()
    assert "no train_test_split: copy it from FLamby's fed_isic2019/dataset_creation_scripts" in message()
    folder_of(tmp_path)
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text("image,lesion\nISIC_1,HAM_1\n")
    assert "no column 'lesion_id': use the file of the ISIC 2019 challenge" in message()
    (tmp_path / "ISIC_2019_Training_Metadata.csv").unlink()
    path = tmp_path / IMAGES / "ISIC_0000004.jpg"
    path.write_bytes(path.read_bytes()[:900])
    assert "ISIC_0000004.jpg: cannot be read as an image (" in message()
    path.unlink()
    assert f"train_test_split: row 4 names {path}, and there is no such file" in message()
    with pytest.raises(FedlitError, match="data.size is 0"):
        FedISIC2019(tmp_path, size=0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",2,0,test", ",8,0,test", "'ISIC_0000003' has the label '8', which is no class: there are MEL, NV"),
        (",2,0,test", ",2,6,test", "train_test_split: row 3 has center '6': give 0 to 5"),
        (",2,0,test", ",2,0,val", "train_test_split: row 3 has fold 'val': give train or test"),
        (",target,", ",label,", "no column 'target', there are image, MEL"),
    ],
)
def test_rows_that_are_wrong(old, new, message, tmp_path):
    folder_of(tmp_path)
    (tmp_path / "train_test_split").write_text(ROWS.replace(old, new))
    with pytest.raises(FedlitError) as caught:
        FedISIC2019(tmp_path).setup()
    assert message in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_what_is_excluded_need_not_be_there(tmp_path):
    folder_of(tmp_path)
    (tmp_path / IMAGES / "ISIC_0000004.jpg").unlink()
    with pytest.raises(BadRecord, match="row 4"):
        FedISIC2019(tmp_path).read()
    assert len(FedISIC2019(tmp_path, exclude=["ISIC_0000004"]).read()) == 8
    assert len(FedISIC2019(tmp_path, on_bad_record="skip").read()) == 8


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "size": 128, "split": "fold", "batch_size": 64}
    made = {"data": {"class_path": "fedlit.data.classification.fed_isic.FedISIC2019", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()
