"""How much of what was given reaches the model: counted by client, told above a share, and pieces in its place."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from fedlit.data import ICBHI, IID, ImageTable, SoundTable
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.reach import Reach, cut_off, told
from fedlit.data.classification.sounds import fitted, pieces
from fedlit.errors import FedlitError
from fedlit.runs.fingerprint import data_fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:.*count as a subject each")
SPLITS = ("train", "val", "test")
RATE = 1000


def noise(number, seconds):
    return np.random.default_rng(number).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def sounds(folder, lengths, changed=None, **columns):
    folder.mkdir(exist_ok=True)
    for number, seconds in enumerate(lengths):
        values = (changed or {}).get(number, noise(number, seconds))
        soundfile.write(folder / f"s{number:02d}.wav", values, RATE, subtype="FLOAT")
    names = [f"s{number:02d}.wav" for number in range(len(lengths))]
    pd.DataFrame({"file": names, "label": list("ab") * (len(lengths) // 2)} | columns).to_csv(folder / "t.csv")
    return folder / "t.csv"


def table(path, **arguments):
    return SoundTable(path, **({"rate": RATE, "seconds": 2.0, "partition": IID(2), "padding": "crop"} | arguments))


def test_what_is_cut_off_is_summed():
    total = cut_off([Reach(10, 2), Reach(2, 2), Reach(1, 1)], "s")
    assert total == {"unit": "s", "given": 13, "used": 5, "records": 1}
    assert told(total, "mend it") == "8 of 13 s (62%) of 1 record(s) are cut off: mend it"
    assert told(cut_off([Reach(100, 95)], "s"), "") is None
    assert told(cut_off([], "s"), "") is None


def test_seconds_that_are_cut_off_are_counted_by_client(tmp_path):
    path = sounds(tmp_path, [5.0] * 6 + [2.0] * 6)
    data = table(path)
    with pytest.warns(UserWarning, match=r"18 of 42 s \(43%\) of 6 record\(s\) are cut off: raise data.seconds"):
        about = data.describe()
    assert about["cut"] == {"unit": "s", "given": 42, "used": 24, "records": 6}
    clients = about["clients"].values()
    assert all(client["cut"]["used"] == 2 * 6 for client in clients)
    assert sum(client["cut"]["given"] for client in clients) == 42
    for client in clients:
        ids = [name for own in client["records"].values() for name in own]
        assert client["cut"]["records"] == sum(name < "s06" for name in ids)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*cut off")
        table(sounds(tmp_path / "b", [2.05] * 12), group_column="file").setup()


def test_a_run_made_before_anything_was_counted_goes_on(tmp_path):
    """Neither the new arguments, while they hold their defaults, nor the new facts are in a run's fingerprint."""
    data = table(sounds(tmp_path, [2.0] * 12))
    about = data.describe()
    before = {name: {k: v for k, v in own.items() if k != "cut"} for name, own in about["clients"].items()}
    made = data_fingerprint(data, about)
    assert made["records_sha256"] == data_fingerprint(data, about | {"clients": before})["records_sha256"]
    assert made.keys().isdisjoint({"long", "delimiter", "decimal", "encoding"})
    assert data_fingerprint(table(tmp_path / "t.csv", long="pieces"), about)["long"] == "pieces"


@pytest.mark.parametrize("padding", ["crop", "circular", "zeros"])
@pytest.mark.parametrize("seconds", [2.0, 2.1, 4.0, 5.0, 7.3])
def test_pieces_hold_every_sample(padding, seconds):
    values = noise(1, seconds)
    found = pieces(values, RATE, 2.0, padding)
    assert found.shape == (-(-round(seconds * RATE) // 2000), 2000)
    if seconds > 2:
        assert np.array_equal(found[0], fitted(values, RATE, 2.0, padding))
    starts = np.linspace(0, len(values) - 2000, len(found)).round().astype(int)
    if padding == "crop":
        assert all(np.array_equal(own, values[k : k + 2000]) for own, k in zip(found, starts, strict=True))
    held = {k + i for k in starts for i in range(2000)}
    assert held == set(range(len(values)))
    if padding != "crop":
        assert np.array_equal(pieces(values[:900], RATE, 2.0, padding)[0], fitted(values[:900], RATE, 2.0, padding))
        return
    with pytest.raises(FedlitError, match="lower it, or set data.padding"):
        pieces(values[:900], RATE, 2.0, padding)


@pytest.mark.parametrize("cached", [False, True])
def test_pieces_of_a_sound_stay_on_one_side_of_the_split(cached, tmp_path):
    path = sounds(tmp_path / "s", [5.0, 2.0, 4.0] * 8)
    data = table(path, long="pieces", cache_folder=tmp_path / "cache" if cached else None)
    about = data.describe()
    assert about["cut"] == {"unit": "s", "given": 88, "used": 88, "records": 0}
    assert about["sounds"]["long"] == "pieces"
    found = {}
    for client in data.clients:
        for split in SPLITS:
            dataset = data.dataset(client, split)
            batch = dataset.__getitems__(range(len(dataset)))
            for name, value, label in zip(batch["id"], batch["x"].numpy(), batch["label"].tolist(), strict=True):
                found.setdefault(name.partition("/")[0], []).append((client, split, name, value, label))
    assert len(found) == 24
    for number in range(24):
        own = found[f"s{number:02d}.wav"]
        assert len(own) == (3, 1, 2)[number % 3]
        assert len({(client, split) for client, split, *_ in own}) == 1
        values = noise(number, (5.0, 2.0, 4.0)[number % 3])
        for _, _, name, value, label in own:
            start = (1500, 0, 2000)[number % 3] * int(name.rpartition("/")[2])
            assert np.array_equal(value, values[start : start + 2000])
            assert data.classes[label] == "ab"[number % 2]


def test_pieces_with_parity_are_dealt_out_one_by_one_and_are_the_same(tmp_path):
    path = sounds(tmp_path, [5.0, 4.0] * 12)
    data = table(path, long="pieces", parity=True)
    with pytest.warns(UserWarning, match=r"parity: .* subject\(s\)"):
        data.setup()
    assert len(data.examples) == 12 * 3 + 12 * 2
    for example in data.examples:
        number, piece = int(example.id[1:3]), int(example.id.rpartition("/")[2])
        start = (1500, 2000)[number % 2] * piece
        assert np.array_equal(example.value, noise(number, 5.0 - number % 2)[start : start + 2000])


def test_silent_pieces_are_left_out_and_counted_and_a_silent_part_is_no_fault(tmp_path):
    half = np.concatenate([noise(0, 2.0), np.zeros(4000, np.float32)])
    path = sounds(tmp_path, [6.0] * 12, {0: half})
    data = table(path, long="pieces")
    with pytest.warns(UserWarning, match=r"2 silent piece\(s\) of 1 sound\(s\) left out: s00.wav"):
        about = data.describe()
    assert about["sounds"]["silent_pieces_left_out"] == {"s00.wav": 2}
    assert sum(sum(client["examples"].values()) for client in about["clients"].values()) == 11 * 3 + 1
    with pytest.warns(UserWarning, match="are cut off"):
        assert "s00.wav" in {one.id for one in table(path).setup() or table(path).read()}


def test_long_cycles_are_counted_too(tmp_path):
    for number in range(12):
        stem = f"{101 + number}_1b1_Al_sc_Meditron"
        soundfile.write(tmp_path / f"{stem}.wav", noise(number, 4.0), RATE, subtype="FLOAT")
        (tmp_path / f"{stem}.txt").write_text("0\t3\t0\t0\n3\t4\t1\t0\n")
    data = ICBHI(tmp_path, rate=RATE, seconds=2.0, partition=IID(1))
    with pytest.warns(UserWarning, match=r"12 of 48 s \(25%\) of 12 record\(s\) are cut off"):
        assert data.describe()["cut"] == {"unit": "s", "given": 48, "used": 36, "records": 12}


def images(folder, shape, changed=None):
    folder.mkdir(exist_ok=True)
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (*shape, 3), np.uint8)
        Image.fromarray((changed or {}).get(number, pixels)).save(folder / f"{number}.png")
    pd.DataFrame({"path": [f"{i}.png" for i in range(12)], "label": list("ab") * 6}).to_csv(folder / "t.csv")
    return folder / "t.csv"


def test_borders_of_images_that_are_cropped_are_counted(tmp_path):
    path = images(tmp_path, (8, 16))
    with pytest.warns(UserWarning, match=r"768 of 1536 pixels \(50%\) of 12 record\(s\) are cut off: data.resize"):
        about = ImageTable(path, size=8, resize="crop", partition=IID(2)).describe()
    assert about["clients"]["client-1"]["cut"] == {"unit": "pixels", "given": 768, "used": 384, "records": 6}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*cut off")
        whole = ImageTable(path, size=8, resize="squash", partition=IID(2), group_column="path").describe()
    assert whole["cut"]["records"] == 0


BLANK = {
    "silent": (SoundTable, lambda folder: sounds(folder, [2.0] * 12, {3: np.zeros(2000, np.float32)}), "s03.wav",
               r"record 's03.wav' is silent, every sample is 0: leave it out"),
    "one tone of nothing": (SoundTable, lambda folder: sounds(folder, [2.0] * 12, {3: np.full(2000, 0.5, np.float32)}),
                            "s03.wav", r"record 's03.wav' is silent, every sample is 0.5"),
    "black": (ImageTable, lambda folder: images(folder, (8, 8), {3: np.zeros((8, 8, 3), np.uint8)}), "3.png",
              r"record '3.png' is of one colour, \(0, 0, 0\): leave it out"),
    "red": (ImageTable, lambda folder: images(folder, (8, 8), {3: np.full((8, 8, 3), (200, 0, 9), np.uint8)}), "3.png",
            r"record '3.png' is of one colour, \(200, 0, 9\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", BLANK)
def test_values_that_hold_nothing_are_bad_records_of_every_modality(case, tmp_path):
    reader, write, name, message = BLANK[case]
    path = write(tmp_path)
    more = {"size": 8} if reader is ImageTable else {"rate": RATE, "seconds": 2.0, "padding": "crop"}
    with pytest.raises(BadRecord, match=message + ".*data.exclude"):
        reader(path, partition=IID(2), **more).setup()
    data = reader(path, partition=IID(2), on_bad_record="skip", **more)
    with pytest.warns(UserWarning, match=rf"1 bad record\(s\) skipped, 11 kept: {name}"):
        about = data.describe()
    assert [one["record"] for one in about["excluded"]] == [name]
    published = reader(path, partition=IID(1), parity=True, **more)
    with pytest.warns(UserWarning, match=r"parity: 1 example\(s\) of a single value are kept, as in the published"):
        about = published.describe()
    assert about["blank"] == [name]
    assert len(published.examples) == 12


class Halves(SoundTable):
    def cut(self, example):
        value = example.value
        middle = len(value) // 2
        return [
            replace(example, id=f"{example.id}/{i}", values=part)
            for i, part in enumerate((value[:middle], value[middle:]))
        ]


@pytest.mark.parametrize("parity", [False, True])
def test_a_subclass_that_cuts_sounds_by_itself_is_asked(parity, tmp_path):
    data = Halves(sounds(tmp_path, [2.0] * 12), partition=IID(1), rate=RATE, seconds=2.0, padding="crop", parity=parity)
    data.setup()
    parts = [data.dataset(data.clients, split) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == 24
    assert {tuple(part[0]["x"].shape) for part in parts} == {(RATE,)}
