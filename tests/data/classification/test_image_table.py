"""Images in files, and tables of them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pandas as pd
import pytest
from jsonargparse import ArgumentParser
from PIL import Image

from fedlit.data import IID, BySite, FederatedDataModule
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.tables import ImageTable
from fedlit.data.files.images import read_image, resized
from fedlit.data.generated.examples import stand_in_image
from fedlit.errors import FedlitError


def at_size(path, size, resize):
    return resized(path, read_image(path), size, resize)


SPLITS = ("train", "val", "test")
GREY = np.arange(0, 240, 15, dtype=np.uint8).reshape(4, 4)
COLOURS = np.stack([GREY, GREY[::-1], GREY.T], axis=2)


def saved(folder, pixels, name="a.png", mode=None, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def png_of_16_bits(path, colour_type, channels):
    """A PNG written by hand: 4 by 4 pixels, 16 bits a channel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(8 * channels)) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def table(folder, count=60, size=8, **columns):
    names = [f"scans/{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        saved(folder, stand_in_image(number, number % 3, size, size), name)
    rows = {"file": names, "finding": list("xyz") * (count // 3), "patient": [i // 3 for i in range(count)]}
    rows |= {"ward": ["A", "B"] * (count // 2), "part": ["train", "dev", "test"] * (count // 3)} | columns
    pd.DataFrame(rows).to_csv(folder / "table.csv", index=False)
    return folder / "table.csv"


NAMED = {"path_column": "file", "label_column": "finding", "size": 8}


@pytest.mark.parametrize(
    ("mode", "pixels", "expected"),
    [
        ("RGB", COLOURS, COLOURS),
        ("L", GREY, np.repeat(GREY[..., None], 3, 2)),
        ("LA", np.stack([GREY, GREY], 2), np.repeat(GREY[..., None], 3, 2)),
        ("RGBA", np.concatenate([COLOURS, GREY[..., None]], 2), COLOURS),
        ("1", GREY > 100, np.repeat(((GREY > 100) * np.uint8(255))[..., None], 3, 2)),
    ],
)
def test_modes_that_become_rgb(mode, pixels, expected, tmp_path):
    path = saved(tmp_path, pixels)
    with Image.open(path) as written:
        assert written.mode == mode
    value = read_image(path)
    assert value.dtype == np.uint8
    assert np.array_equal(value, expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transparency", [None, 0, bytes([0, 128])])
def test_palettes_are_looked_up(transparency, tmp_path):
    image = Image.new("P", (2, 2))
    image.putpalette([255, 0, 0, 0, 255, 7])
    image.putdata([0, 1, 1, 0])
    image.save(tmp_path / "p.png", **({} if transparency is None else {"transparency": transparency}))
    with Image.open(tmp_path / "p.png") as written:
        assert written.mode == "P"
    red, green = [255, 0, 0], [0, 255, 7]
    assert read_image(tmp_path / "p.png").tolist() == [[red, green], [green, red]]


def test_an_image_is_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    assert np.array_equal(read_image(saved(tmp_path, COLOURS, exif=exif)), np.rot90(COLOURS, -1))


def test_crop_and_squash(tmp_path):
    wide = np.zeros((4, 11, 3), np.uint8)
    wide[:, 3:7] = COLOURS
    path = saved(tmp_path, wide)
    assert np.array_equal(at_size(path, 4, "crop"), COLOURS)
    high = saved(tmp_path, wide.transpose(1, 0, 2), "b.png")
    assert np.array_equal(at_size(high, 4, "crop"), COLOURS.transpose(1, 0, 2))
    halves = np.zeros((8, 40, 3), np.uint8)
    halves[:, 20:] = 200
    squashed = at_size(saved(tmp_path, halves), 8, "squash")
    assert squashed.shape == (8, 8, 3)
    assert (squashed[:, :2] == 0).all()
    assert (squashed[:, 6:] == 200).all()
    assert at_size(path, 9, "crop").shape == (9, 9, 3)
    # Antialiased: fine stripes become their mean, not one of the two.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert abs(at_size(saved(tmp_path, stripes), 4, "squash").astype(int) - 100).max() <= 8


@pytest.mark.parametrize("mode", ["I;16", "F", "I", "CMYK"])
def test_other_modes_are_refused(mode, tmp_path):
    pixels = {"I;16": GREY.astype(np.uint16), "F": GREY.astype(np.float32), "I": GREY.astype(np.int32)}
    path = saved(tmp_path, pixels.get(mode, COLOURS), "deep.tif", None if mode in pixels else mode)
    with pytest.raises(BadRecord, match=f"deep.tif: its mode is {mode}, not 1, L, .* of 8 bits .*: convert it to RGB"):
        read_image(path)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colours_of_16_bits_are_refused(colour_type, channels, tmp_path):
    path = png_of_16_bits(tmp_path / "deep.png", colour_type, channels)
    with pytest.raises(BadRecord, match=r"deep.png: its mode is RGBA? of 16 bits"):
        read_image(path)
    with pytest.raises(BadRecord, match=r"its mode is I;16, "):
        read_image(png_of_16_bits(tmp_path / "grey.png", 0, 1))


def test_files_that_are_no_images(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        path = saved(tmp_path, noise, name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(BadRecord, match=rf"{name}: cannot be read as an image \(.*truncated"):
            read_image(path)
    path.write_text("no image")
    with pytest.raises(BadRecord, match=r"a.png: cannot be read as an image \(no format that Pillow knows\): save"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(BadRecord, match="a.png: cannot be read"):
        read_image(path)
    with pytest.raises(BadRecord, match="no.png: cannot be read as an image .No such file"):
        read_image(tmp_path / "no.png")
    frames = [Image.fromarray(noise), Image.fromarray(255 - noise)]
    frames[0].save(tmp_path / "two.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadRecord, match="two.tif: holds 2 images, one is needed"):
        read_image(tmp_path / "two.tif")


def test_a_table_of_images(tmp_path):
    marks = {"group_column": "patient", "site_column": "ward", "fold_column": "part"}
    data = ImageTable(table(tmp_path), **NAMED, **marks, split="subject")
    with pytest.warns(UserWarning, match="11 of 20 rows that 'part' has in the official test part are trained on"):
        data.setup()
    assert isinstance(data.usual_partition(), BySite)
    assert data.clients == ["site-A", "site-B"]
    assert data.classes == ["x", "y", "z"]
    example = next(one for one in data.examples if one.id == "scans/4.png")
    assert (example.subject, example.site, example.label, example.fold) == ("1", "A", "y", "val")
    assert example.kind == "image"
    batch = data.dataset("site-A", "train").__getitems__([0, 1])
    assert batch["x"].shape == (2, 8, 8, 3)
    for name, image in zip(batch["id"], batch["x"].numpy(), strict=True):
        number = int(name.removeprefix("scans/").removesuffix(".png"))
        assert np.array_equal(image, stand_in_image(number, number % 3, 8, 8))
    assert data.describe()["leaks"] == {"subjects": 0, "duplicates": 0}


def test_paths_start_where_they_are_told_to(tmp_path):
    path = table(tmp_path / "images")
    moved = path.rename(tmp_path / "table.csv")
    data = ImageTable(moved, **NAMED, folder=tmp_path / "images", partition=IID(2))
    data.setup()
    assert len(data.examples) == 60
    with pytest.raises(BadRecord, match="row 1 names .*scans/0.png, and there is no such file: mend the path, or set "):
        ImageTable(moved, **NAMED).read()


def test_copies_of_an_image_stay_on_one_side(tmp_path):
    path = table(tmp_path)
    (tmp_path / "scans/7.png").write_bytes((tmp_path / "scans/3.png").read_bytes())
    data = ImageTable(path, **NAMED, partition=IID(2))
    with pytest.warns(UserWarning, match="1 value.s. occur more than once"):
        description = data.describe()
    assert description["leaks"]["duplicates"] == 0
    assert description["duplicates"]["with_different_labels"] == 1


@pytest.mark.parametrize(
    ("arguments", "columns", "message"),
    [
        ({"path_column": "path"}, {}, "no column 'path', there are file, finding, patient, ward, part: name the"),
        ({"site_column": "hospital"}, {}, "no column 'hospital'"),
        ({"classes": ["x", "y"]}, {}, "'scans/2.png' has the label 'z', which is no class: there are x, y"),
        ({}, {"finding": [""] + ["x"] * 59}, "'scans/0.png' has no labels, one is needed"),
        (
            {"fold_column": "part"},
            {"part": ["new"] * 60},
            "row 1 has text of 3 character(s) as part that names",
        ),
        ({"group_column": "patient"}, {"patient": [""] + ["b"] * 59}, "row 1 has an empty 'patient'"),
        ({}, {"file": [""] + ["scans/1.png"] * 59}, "row 1 has an empty file: fill it in"),
        ({}, {"file": ["scans/1.png"] * 60}, "two records are named 'scans/1.png'"),
        ({"size": 9}, {}, "scans/0.png: is 8 x 8 pixels, not 9 x 9: set data.resize to crop or squash, or data.size"),
    ],
)
def test_tables_that_are_wrong(arguments, columns, message, tmp_path):
    path = table(tmp_path, **columns)
    with pytest.raises(FedlitError) as caught:
        ImageTable(path, **(NAMED | arguments)).setup()
    assert message in str(caught.value)


def test_arguments_that_are_none_and_a_table_that_is_not_there(tmp_path):
    with pytest.raises(FedlitError, match="data.resize is 'fit': give one of error, crop, squash"):
        ImageTable(tmp_path, resize="fit")
    with pytest.raises(FedlitError, match="data.size is 0"):
        ImageTable(tmp_path, size=0)
    with pytest.raises(FedlitError, match="data.label_separator is empty"):
        ImageTable(tmp_path, label_separator="")
    with pytest.raises(FedlitError, match=r"none.csv: cannot be read as a table \(No such file"):
        ImageTable(tmp_path / "none.csv").read()


def test_bad_images_can_be_skipped(tmp_path):
    path = table(tmp_path)
    saved(tmp_path, GREY.astype(np.uint16), "scans/5.png")
    (tmp_path / "scans/6.png").write_text("no image")
    with pytest.raises(BadRecord, match=r"scans/5.png: its mode is I;16.*; to leave it out: data.exclude"):
        ImageTable(path, **NAMED).setup()
    data = ImageTable(path, **NAMED, partition=IID(2), on_bad_record="skip")
    with pytest.warns(UserWarning, match="2 bad record"):
        description = data.describe()
    assert [one["record"] for one in description["excluded"]] == ["scans/5.png", "scans/6.png"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"parity": True, "label_separator": ";"},
        {"site_column": "ward", "group_column": "patient", "id_column": "n", "classes": ["u", "v"], "resize": "crop"},
        {"fold_column": "part", "split": "fold", "partition": IID(5), "cache_folder": "cache"},
    ],
)
def test_stand_ins_are_read_back(arguments, tmp_path):
    if "cache_folder" in arguments:
        arguments = arguments | {"cache_folder": tmp_path / "cache"}
    data = ImageTable("absent.csv", folder="absent", size=16, **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["stand_in"]
    assert len(data.clients) == getattr(arguments.get("partition"), "clients", 20)
    assert all(len(data.dataset(client, split)) for client in data.clients for split in SPLITS)
    assert data.dataset(data.clients, "test").__getitems__([0])["x"].shape == (1, 16, 16, 3)


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "t.csv", "path_column": "file", "folder": "images", "size": 32, "resize": "crop"}
    arguments |= {"label_column": "finding", "site_column": "ward", "split": "fold", "fraction": 0.5}
    made = {"data": {"class_path": "fedlit.data.classification.tables.ImageTable", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()
    assert data.config()["classes"] is None


def test_a_cell_that_can_be_no_path(tmp_path):
    pd.DataFrame({"path": ["word " * 1000], "label": ["a"]}).to_csv(tmp_path / "t.csv")
    with pytest.raises(
        BadRecord, match=r"row 1 has a path that can be no path \(File name too long\): mend it, or set"
    ):
        ImageTable(tmp_path / "t.csv", id_column="label").read()
