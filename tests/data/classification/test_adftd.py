"""EEG of ds004504, and EEGLAB's files."""

from __future__ import annotations

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from signal_files import waves, write_set

from fedlit.data import IID, Dirichlet, FederatedDataModule, PairwiseDirichlet
from fedlit.data.base.records import BadRecord
from fedlit.data.classification.adftd import ADFTD, CHANNELS
from fedlit.data.files.eeglab import read_set
from fedlit.errors import FedlitError

SPLITS = ("train", "val", "test")
LAYOUTS = [(layout, fdt) for layout in ("struct", "flat", "hdf5") for fdt in (False, True)]


def dataset(folder, groups="AFC" * 4, samples=1200, shuffled=True):
    """ds004504 in small: one file a participant, channels in another order than the reader's."""
    names = list(reversed(CHANNELS)) if shuffled else list(CHANNELS)
    lines = ["participant_id\tGender\tAge\tGroup\tMMSE"]
    for number, group in enumerate(groups, 1):
        subject = f"sub-{number:03d}"
        path = folder / "derivatives" / subject / "eeg" / f"{subject}_task-eyesclosed_eeg.set"
        write_set(path, number * 10 * waves(19, samples, 500, number), names=names)
        lines.append(f"{subject}\tM\t60\t{group}\t20")
    (folder / "participants.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize(("layout", "fdt"), LAYOUTS)
def test_what_is_written_is_what_is_read(tmp_path, layout, fdt):
    data = waves(3, 250, 500)
    read = read_set(write_set(tmp_path / "a.set", data, 250.0, ["Fp1", "Cz", "O2"], layout, fdt))
    assert read.rate == 250
    assert read.names == ["Fp1", "Cz", "O2"]
    assert read.values.dtype == np.float32
    assert np.array_equal(read.values, data)


def test_a_renamed_pair_is_read(tmp_path):
    data = waves(2, 100, 500)
    write_set(tmp_path / "new.set", data, fdt=True, data="old.fdt")
    assert np.array_equal(read_set(tmp_path / "new.set").values, data)


@pytest.mark.parametrize("layout", ["struct", "flat", "hdf5"])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": None}, r"a.set: holds no data, nor the name of an .fdt file"),
        ({"srate": None}, r"a.set: srate is absent, not a number above 0"),
        ({"srate": 0.0}, r"a.set: srate is .*0.*, not a number above 0"),
        ({"trials": 4}, r"a.set: holds 4 epochs: use the continuous recording"),
        ({"data": "b.fdt"}, r"a.set: its samples are in b.fdt, which is not beside it"),
        ({"data": "b.fdt", "nbchan": None}, r"a.set: nbchan is absent"),
        ({"names": ["Cz"]}, r"a.set: 1 channel names in chanlocs for 2 channels"),
    ],
)
def test_set_files_that_lack_something(tmp_path, layout, fields, message):
    with pytest.raises(BadRecord, match=message):
        read_set(write_set(tmp_path / "a.set", waves(2, 100, 500), layout=layout, **fields))


def test_files_that_are_damaged(tmp_path):
    path = write_set(tmp_path / "a.set", waves(2, 1000, 500), fdt=True)
    fdt = tmp_path / "a.fdt"
    fdt.write_bytes(fdt.read_bytes()[:-40])
    with pytest.raises(BadRecord, match=r"a.fdt: has 7960 bytes, 2 channels of 1000 samples have 8000: copy the file"):
        read_set(path)
    whole = write_set(tmp_path / "b.set", waves(2, 1000, 500))
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(BadRecord, match=r"b.set: cannot be read as a .set file of EEGLAB \(.*copy the file again"):
        read_set(whole)
    whole.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(BadRecord, match=r"b.set: cannot be read as a .set file"):
        read_set(whole)
    (tmp_path / "c.set").symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadRecord, match="c.set: is absent, or a link to a file that was not downloaded"):
        read_set(tmp_path / "c.set")


def test_participants_windows_and_classes(tmp_path):
    data = ADFTD(dataset(tmp_path), partition=IID(2), rate=250, scale="none")
    description = data.describe()
    assert data.classes == ["healthy", "frontotemporal dementia", "Alzheimer disease"]
    assert len(data.examples) == 12
    first = data.examples[0]
    assert (first.id, first.subject, first.kind, first.label) == ("sub-001", "sub-001", "eeg", "Alzheimer disease")
    assert first.rate == 250
    made = data.dataset(data.clients, "train")
    batch = made.__getitems__(range(len(made)))
    assert batch["x"].shape == (len(made), 19, 250)
    for name, row, label in zip(batch["id"], batch["x"].numpy(), batch["label"].tolist(), strict=True):
        number, window = int(name[4:7]), int(name.split("/")[1])
        assert label == {"A": 2, "F": 1, "C": 0}["AFC"[(number - 1) % 3]]
        # the reader's first channel is the file's last: 19 Hz; its last the file's first: 1 Hz
        clock = window + np.arange(250) / 250
        for channel, frequency in ((0, 19), (18, 1)):
            expected = number * 10 * np.sin(2 * np.pi * frequency * clock)
            assert np.corrcoef(expected, row[channel])[0, 1] > 0.97
            assert np.ptp(row[channel]) == pytest.approx(2 * number * 10, rel=0.35)
    assert {name.split("/")[1] for name in batch["id"]} == {"0", "1"}
    assert description["leaks"] == {"subjects": 0, "duplicates": 0}
    assert description["signals"]["rate"] == 250


@pytest.mark.parametrize("scale", ["record", "window", "none"])
def test_scales(tmp_path, scale):
    data = ADFTD(dataset(tmp_path), partition=IID(2), window_seconds=2.0, scale=scale, channels=["cz", "FP2"])
    data.setup()
    x = data.dataset(data.clients, "train").__getitems__([0, 1])["x"].numpy()
    assert x.shape == (2, 2, 512)
    close = np.abs(x.std(axis=2) - 1).max()
    assert close < 1e-4 if scale == "window" else (close > 1e-4 if scale == "record" else x.std() > 5)
    assert (close < 0.2) == (scale != "none")
    assert (np.abs(x.mean(axis=2)).max() < 1e-5) == (scale == "window")


def test_windows_evenly_spaced(tmp_path):
    data = ADFTD(dataset(tmp_path, samples=5100), partition=IID(2), max_windows=3)
    data.setup()
    ids = {e.id.split("/")[1] for e in data.dataset(data.clients, "train").examples}
    assert ids == {"1", "5", "8"}
    assert (
        ADFTD(tmp_path, partition=IID(2), window_seconds=0.5).describe()["clients"]["client-1"]["examples"]["val"] == 20
    )


def test_parity_deals_out_windows(tmp_path):
    data = ADFTD(dataset(tmp_path, samples=4100), partition=PairwiseDirichlet(2, 10.0), parity=True, fraction=0.5)
    with pytest.warns(UserWarning, match="parity: .* subject"):
        description = data.describe()
    assert len(data.examples) == 48
    assert description["leaks"]["subjects"] > 6
    shares = [sum(own["examples"][s] for own in description["clients"].values()) / 48 for s in SPLITS]
    assert np.allclose(shares, [0.4, 0.3, 0.3], atol=0.08)
    example = data.examples[0]
    assert example.values.base is None or example.values.base.shape == example.values.shape
    assert description["signals"]["resampled"] == "linear"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sub-003\tM\t60\tC\t20\n", ""), "participants.tsv: no row for sub-003, which has a recording: add its row"),
        (("\tC\t", "\tB\t"), "participants.tsv: Group of sub-003 is 'B': give one of C, F, A"),
        (("Group", "Diagnosis"), "no column 'Group', there are participant_id, Gender, Age, Diagnosis, MMSE"),
        (("\t", ","), "participants.tsv: no column 'participant_id'"),
        (("sub-002", "sub-001"), "participant_id 'sub-001' is listed more than once"),
    ],
)
def test_participants_that_are_wrong(tmp_path, change, message):
    table = dataset(tmp_path) / "participants.tsv"
    table.write_text(table.read_text().replace(*change, -1 if change[0] == "\t" else 1))
    with pytest.raises(FedlitError, match=message):
        ADFTD(tmp_path, partition=IID(2)).setup()
    if "Group of" in message or "no row" in message:
        with pytest.warns(UserWarning, match=r"1 bad record\(s\) skipped, 11 kept: sub-003"):
            ADFTD(tmp_path, partition=IID(2), on_bad_record="skip").setup()


def test_participants_without_a_recording_are_said(tmp_path):
    table = dataset(tmp_path) / "participants.tsv"
    table.write_text(table.read_text() + "sub-099\tF\t70\tA\t10\n")
    with pytest.warns(UserWarning, match="1 of 13 participants have no recording: sub-099"):
        ADFTD(tmp_path, partition=IID(2)).read()


def test_recordings_that_are_wrong(tmp_path):
    dataset(tmp_path, groups="AFC" * 2)
    path = tmp_path / "derivatives" / "sub-004" / "eeg" / "sub-004_task-eyesclosed_eeg.set"
    for data, names, message in (
        (waves(19, 400, 500), CHANNELS, r"sub-004.*.set: 0.8 s long, shorter than data.window_seconds 1.0"),
        (waves(2, 900, 500), ["Fp1", "Cz"], r"sub-004.*.set: no channel 'Fp2', there are Fp1, Cz: set data.channels"),
        (np.full((19, 900), 3.0, np.float32), CHANNELS, r"sub-004.*.set: every channel is constant"),
        (np.full((19, 900), np.nan, np.float32), CHANNELS, r"channel Fp1 has no sample that is not missing"),
    ):
        write_set(path, data, names=names)
        with pytest.raises(BadRecord, match=message + ".*data.exclude"):
            ADFTD(tmp_path, partition=IID(1)).setup()
    ADFTD(tmp_path, partition=IID(1), exclude=["sub-004"]).setup()


def test_folders_that_are_not_the_data(tmp_path):
    with pytest.raises(FedlitError, match="folder is empty: set data.root to the folder with participants.tsv"):
        ADFTD(tmp_path).setup()
    (tmp_path / "x").write_text("")
    with pytest.raises(FedlitError, match="no derivatives/sub-.*set data.root to the folder ds004504"):
        ADFTD(tmp_path).setup()
    write_set(tmp_path / "derivatives" / "sub-001" / "eeg" / "a.set", waves(19, 900, 500), names=CHANNELS)
    with pytest.raises(FedlitError, match="participants.tsv: .*No such file.*give a file"):
        ADFTD(tmp_path).setup()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ["Cz", "cz"]}, "data.channels is Cz, cz: name each channel once"),
        ({"channels": []}, "data.channels is empty"),
        ({"rate": 0}, "data.rate is 0"),
        ({"window_seconds": -1.0}, "data.window_seconds is -1"),
        ({"window_seconds": 0.001}, "less than a sample at data.rate 256 Hz"),
        ({"window_seconds": None, "max_windows": 3}, "data.max_windows needs windows"),
        ({"scale": "z"}, "data.scale is 'z': give one of record, window, none"),
    ],
)
def test_arguments_that_are_wrong(arguments, message):
    with pytest.raises(FedlitError, match=message):
        ADFTD("x", **arguments)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("arguments", [{}, {"parity": True, "fraction": 0.2, "scale": "window"}])
def test_stand_in(tmp_path, arguments):
    data = ADFTD("absent", **arguments)
    data.use_stand_in(tmp_path)
    description = data.describe()
    assert description["simulated"]
    assert len(data.clients) == 20
    assert len({example.subject for example in data.examples}) == 88
    assert all(len(data.dataset(client, split)) for client in data.clients for split in SPLITS)
    wanted = PairwiseDirichlet(20, 0.1) if arguments else Dirichlet(20, 0.1, min_records=4)
    assert data.usual_partition() == wanted


def test_from_a_config():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(FederatedDataModule, "data")
    arguments = {"root": "data", "max_windows": 9, "fraction": 0.5, "scale": "window"}
    made = {"data": {"class_path": "fedlit.data.ADFTD", "init_args": arguments}}
    data = parser.instantiate(parser.parse_object(made)).data
    assert data.config() | arguments == data.config()
    assert data.config()["window_seconds"] == 1.0
