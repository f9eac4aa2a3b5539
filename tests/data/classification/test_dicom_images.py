"""DICOM images, written by pydicom and read back: the 8-bit values are worked out here by hand."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedlit.data import IID, ImageTable
from fedlit.data.base.records import BadRecord
from fedlit.data.files.dicom import is_dicom, read_dicom, windowed
from fedlit.errors import FedlitError

pydicom = pytest.importorskip("pydicom")
NAME = "Invented^Patient"
BORN = "19010203"


def dataset(pixels, photometric="MONOCHROME2", bits=None, **elements):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, NAME, BORN
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(made, name, value)
    return made


def saved(folder, pixels, name="a.dcm", **elements):
    path = folder / name
    dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def grey(path, window="file"):
    pixels, _ = read_dicom(path, window)
    assert pixels.dtype == np.uint8
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


CT = np.array([[0, 900], [1024, 1100], [1064, 4095]], np.uint16)


@pytest.mark.parametrize(("photometric", "inverted"), [("MONOCHROME2", False), ("MONOCHROME1", True)])
def test_rescaling_and_the_files_window_by_hand(photometric, inverted, tmp_path):
    """Hounsfield units are the values less 1024; the window of 40 and 400 reaches from -160 to 239."""
    window = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": [40, 300], "WindowWidth": [400, 2000]}
    path = saved(tmp_path, CT, photometric=photometric, bits=12, **window)
    units = CT.astype(float) - 1024
    by_hand = np.clip((units - 39.5) / 399 + 0.5, 0, 1)
    # -1024 -> 0; -124 -> 23; 0 -> 102; 76 -> 151; 40 -> 128; 3071 -> 255
    expected = np.array([[0, 23], [102, 151], [128, 255]])
    assert np.array_equal(np.round(255 * by_hand), expected)
    assert grey(path).tolist() == (255 - expected if inverted else expected).tolist()
    assert grey(path, [40, 400]).tolist() == grey(path).tolist()
    assert grey(path, [0, 100]).tolist() != grey(path).tolist()


def test_range_and_percentiles_leave_padding_out(tmp_path):
    values = np.array([[-2000, 0], [50, 100]], np.int16)
    padded = saved(tmp_path, values, PixelPaddingValue=-2000)
    assert grey(padded, "range").tolist() == [[0, 0], [128, 255]]
    assert read_dicom(padded, "file")[1]
    assert not read_dicom(padded, "range")[1]
    many = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    out = grey(saved(tmp_path, many, "b.dcm"), "percentile")
    assert ((out == 0).sum(), (out == 255).sum()) == pytest.approx((120, 120), abs=5)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_what_is_written_is_read_back(tmp_path_factory, data):
    """Depth, sign, slope, intercept and window drawn at random; the formula of PS3.3, C.11.2.1.2.1 sample by sample."""
    bits = data.draw(st.sampled_from([8, 10, 12, 16]))
    signed = data.draw(st.booleans()) and bits > 8
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    dtype = np.uint8 if bits == 8 else np.int16 if signed else np.uint16
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pixels = generator.integers(low, high + 1, (4, 5)).astype(dtype)
    slope, intercept = data.draw(st.sampled_from([1, 0.5, 2])), data.draw(st.integers(-1024, 1024))
    centre, width = data.draw(st.integers(-500, 500)), data.draw(st.integers(2, 4000))
    about = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": centre, "WindowWidth": width}
    out = grey(saved(tmp_path_factory.mktemp("d"), pixels, bits=bits, **about))
    for stored, found in zip(pixels.ravel().tolist(), out.ravel().tolist(), strict=True):
        x = stored * slope + intercept
        if x <= centre - 0.5 - (width - 1) / 2:
            expected = 0.0
        elif x > centre - 0.5 + (width - 1) / 2:
            expected = 255.0
        else:
            expected = ((x - (centre - 0.5)) / (width - 1) + 0.5) * 255
        assert abs(found - expected) <= 0.5 + 1e-9


def test_other_functions_of_windows(tmp_path):
    values = np.array([0.0, 5, 10])
    assert windowed(values, 5, 10, "LINEAR_EXACT").tolist() == [0, 0.5, 1]
    assert windowed(values, 5, 10, "SIGMOID") == pytest.approx([1 / (1 + np.e**2), 0.5, 1 / (1 + np.e**-2)])
    assert windowed(np.array([4.4, 4.6]), 5, 1).tolist() == [0, 1]
    pixels = np.array([[0, 5, 10]], np.uint8)
    window = {"WindowCenter": 5, "WindowWidth": 10}
    assert grey(saved(tmp_path, pixels, VOILUTFunction="LINEAR_EXACT", **window)).tolist() == [[0, 128, 255]]
    for odd in ({"VOILUTFunction": "CUBIC"}, {"WindowWidth": 0}):
        with pytest.raises(BadRecord, match=r"a.dcm: what it says of rescaling, windows or palettes cannot be read"):
            read_dicom(saved(tmp_path, pixels, **(window | odd)))


def test_colours_and_palettes(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    assert np.array_equal(read_dicom(saved(tmp_path, rgb, photometric="RGB"))[0], rgb)
    black_and_white = np.array([[[0, 128, 128], [255, 128, 128]]], np.uint8)
    found, _ = read_dicom(saved(tmp_path, black_and_white, photometric="YBR_FULL"))
    assert found.tolist() == [[[0, 0, 0], [255, 255, 255]]]
    table = np.array([0, 0x8000, 0xFF00], np.uint16)
    palette = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = np.roll(table, number).tobytes()
    found, _ = read_dicom(saved(tmp_path, np.array([[0, 1, 2]], np.uint8), photometric="PALETTE COLOR", **palette))
    assert found[0].tolist() == [[0, 255, 128], [128, 0, 255], [255, 128, 0]]
    deep = np.array([[[0, 2048, 4095]]], np.uint16)
    assert read_dicom(saved(tmp_path, deep, photometric="RGB", bits=12))[0].tolist() == [[[0, 128, 255]]]


def test_packed_pixels(tmp_path):
    """Run lengths are read without a further package; what needs one names it."""
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, RLELossless

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    packed = dataset(pixels, WindowCenter=128, WindowWidth=256)
    packed.compress(RLELossless)
    packed.save_as(tmp_path / "r.dcm", enforce_file_format=True)
    plain = saved(tmp_path, pixels, WindowCenter=128, WindowWidth=256)
    assert np.array_equal(read_dicom(tmp_path / "r.dcm")[0], read_dicom(plain)[0])
    for syntax, message in (
        (JPEGLosslessSV1, r"packed as JPEG Lossless.*: pip install pylibjpeg pylibjpeg-libjpeg, or save it unpacked"),
        (JPEG2000Lossless, "cut short or damaged"),
    ):
        packed = dataset(pixels)
        packed.file_meta.TransferSyntaxUID = syntax
        packed.PixelData = encapsulate([b"\xff\x4f\xff\x51 no picture"])
        packed["PixelData"].is_undefined_length = True
        packed.save_as(tmp_path / "j.dcm", enforce_file_format=True)
        with pytest.raises(BadRecord, match=f"j.dcm: its pixels are {message}"):
            read_dicom(tmp_path / "j.dcm")


def test_no_field_of_the_patient_is_ever_seen(tmp_path, caplog, capsys):
    """Neither in memory, nor in errors, warnings and logs, whatever is wrong with the file."""
    pixels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    odd = {
        "frames": {"NumberOfFrames": 2, "PixelData": pixels.tobytes() * 2},
        "unknown": {"photometric": "HSV"},
        "short": {"PixelData": b"\0\0"},
        "width": {"WindowCenter": 1, "WindowWidth": 0},
    }
    paths = [saved(tmp_path, pixels, f"{name}.dcm", **about) for name, about in odd.items()]
    broken = saved(tmp_path, pixels, "broken.dcm")
    content = broken.read_bytes()
    # A date that is none, and a file that ends in the middle of the name.
    (tmp_path / "date.dcm").write_bytes(content.replace(BORN.encode(), b"Patient9"))
    (tmp_path / "cut.dcm").write_bytes(content[: content.index(b"Invented") + 9])
    nothing = dataset(pixels)
    del nothing.PixelData
    nothing.save_as(tmp_path / "none.dcm", enforce_file_format=True)
    paths += [tmp_path / "cut.dcm", tmp_path / "none.dcm"]
    said = []
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for path in paths:
            with pytest.raises(BadRecord, match=rf"{path.name}: ") as caught:
                read_dicom(path)
            said += [str(caught.value), str(caught.value.__cause__), repr(caught.value.__context__)]
            assert caught.value.__suppress_context__ or caught.value.__context__ is None
        read_dicom(tmp_path / "date.dcm")
        from fedlit.data.files.dicom import _elements

        assert not any("Patient" in element.keyword for element in _elements(broken))
    said += [str(one.message) for one in warned] + [caplog.text, *capsys.readouterr()]
    assert not any(word in text for text in said for word in ("Invented", "Patient9", BORN))


def table(folder, count=24):
    generator = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for number in range(count):
        values = generator.integers(0, 4096, (8, 8)).astype(np.uint16)
        # Some without the ending, as archives have them.
        saved(folder, values, f"IM{number}" if number % 2 else f"{number}.dcm", bits=12)
    names = [f"IM{number}" if number % 2 else f"{number}.dcm" for number in range(count)]
    pd.DataFrame({"path": names, "label": list("ab") * (count // 2)}).to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


@pytest.mark.filterwarnings("ignore:.*count as a subject")
def test_a_header_that_holds_something_else_is_told_without_it(tmp_path):
    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    path = saved(tmp_path, pixels, NumberOfFrames="77")
    path.write_bytes(path.read_bytes().replace(b"77", b"Jo"))
    with pytest.raises(BadRecord, match="a.dcm: its number of frames cannot be read: mend the header") as error:
        read_dicom(path)
    assert "Jo" not in str(error.value)
    with pytest.raises(BadRecord, match="photometric interpretation is not one of MONOCHROME1") as error:
        read_dicom(saved(tmp_path, pixels, photometric=NAME.upper()))
    assert NAME.upper() not in str(error.value)
    short = pydicom.Dataset()
    short.LUTDescriptor, short.LUTData = [4, 0, 8], b"\0\x40"
    with pytest.raises(BadRecord, match="rescaling, windows or palettes cannot be read"):
        read_dicom(saved(tmp_path, pixels, VOILUTSequence=[short]))


def test_a_table_of_dicom_files(tmp_path):
    path = table(tmp_path)
    data = ImageTable(path, size=8, partition=IID(2))
    with pytest.warns(UserWarning, match=r"24 DICOM file\(s\) have no window, .*set data.dicom_window"):
        data.setup()
    example = next(one for one in data.examples if one.id == "IM1")
    assert np.array_equal(example.value, read_dicom(tmp_path / "IM1", "range")[0])
    wide = ImageTable(path, size=8, partition=IID(2), dicom_window=[2048, 4096])
    wide.setup()
    assert np.array_equal(
        next(one for one in wide.examples if one.id == "IM1").value, read_dicom(tmp_path / "IM1", [2048.0, 4096.0])[0]
    )
    assert NAME.partition("^")[0] not in str(data.describe())
    (tmp_path / "0.dcm").write_text("no image")
    assert not is_dicom(tmp_path / "0.dcm")
    with pytest.raises(BadRecord, match=r"0.dcm: cannot be read as DICOM: copy it again, or save it as"):
        ImageTable(path, size=8, partition=IID(2)).setup()


@pytest.mark.parametrize("window", ["soft", [40], [40, 0], [float("nan"), 9], 40])
def test_windows_that_are_none(window):
    with pytest.raises(
        FedlitError, match=r"data.dicom_window is .*: give file, range, percentile, or \[centre, width\]"
    ):
        ImageTable("t.csv", dicom_window=window)


def test_pydicom_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FedlitError, match=r"a.dcm: DICOM images need pydicom: pip install 'fedlit\[dicom\]'"):
        read_dicom(saved(tmp_path, CT))
