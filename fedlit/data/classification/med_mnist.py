"""MedMNIST: small medical images of twelve kinds, in one layout."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlit.data.base.records import Fold
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.med_mnist_sets import ADDRESS, SETS, SIZES
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.generated.examples import stand_in_image
from fedlit.errors import FedlitError

PARTS: tuple[Fold, ...] = ("train", "val", "test")


class MedMNIST(ClassificationDataModule):
    """One 2D set of MedMNIST (Yang et al. 2023, doi:10.1038/s41597-022-01721-8), from its official file.

    All parts that the file has are pooled; they are the ``fold``. The sets name no patient, so each image is a subject
    of its own. The official parts keep patients apart where the source does (the CT scans of ``organ*mnist``, the
    centres of ``pathmnist``): with ``split`` ``fold`` that holds here too, with the others one patient's images may be
    on both sides. Ordinal grades (``retinamnist``) are taken as classes. Grey images become RGB of equal channels.

    The file's images are held in memory once, as they are in it (5.6 GB for ``chestmnist`` at 224), or, with
    ``cache_folder``, in a file there.

    Args:
        root: Folder with the file, ``<name>.npz`` for 28 pixels and ``<name>_<size>.npz`` for others; or the file.
        name: Which set: ``pathmnist``, ``organamnist``, ...
        size: Height and width (pixels): 28, 64, 128 or 224.
        check_md5: Refuse a file that is not the official one, by its md5 sum (MedMNIST 3.0.2).
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "image"

    def __init__(self, root: Path, name: str, size: int = 28, check_md5: bool = True, **kwargs: Any) -> None:
        if name not in SETS:
            raise FedlitError(f"data.name is {name!r}: give one of {', '.join(SETS)}")
        if size not in SIZES:
            raise FedlitError(f"data.size is {size!r}: MedMNIST has {', '.join(map(str, SIZES))}")
        self.root = Path(root)
        self.name = name
        self.size = size
        self.check_md5 = check_md5
        self.about = SETS[name]
        self.class_names = self.about.classes
        self.multi_label = self.about.multi_label
        super().__init__(**kwargs)

    @property
    def file_name(self) -> str:
        """Name of the official file."""
        return f"{self.name}.npz" if self.size == SIZES[0] else f"{self.name}_{self.size}.npz"

    def read(self) -> list[Example]:
        """One example per image, named by its part and its place in it, from 0."""
        path = self._file()
        if self.check_md5 and not self.stand_in:
            self._check_sum(path)
        out: list[Example] = []
        mend = f"take the official file from {ADDRESS}"
        try:
            with zipfile.ZipFile(path) as archive:
                there = [part for part in PARTS if f"{part}_images.npy" in archive.namelist()]
                if not there:
                    names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
                    raise FedlitError(
                        f"{path}: holds {names}, and none of train_images, val_images, test_images: {mend}"
                    )
                for part in there:
                    out += self._part(path, archive, part)
        except FedlitError:
            raise
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            what = getattr(error, "strerror", None) or " ".join(str(error).split())
            raise FedlitError(f"{path}: cannot be read ({what}): {mend}") from error
        lacking = [part for part in PARTS if part not in there]
        if lacking:
            self.say(f"{path} has no official {' and no '.join(lacking)} part: only {' and '.join(there)} is read")
        return out

    def write_stand_in(self, folder: Path) -> None:
        """The official file, with three parts of equal size."""
        classes = len(self.about.classes)
        _, count = self.stand_in_size(120 if self.split == "fold" else 60)
        arrays: dict[str, Any] = {}
        for k, part in enumerate(PARTS):
            numbers = range(k, count, len(PARTS))
            of_class = [number // len(PARTS) % classes for number in numbers]
            images = [stand_in_image(*pair, self.size, self.size) for pair in zip(numbers, of_class, strict=True)]
            arrays[f"{part}_images"] = np.stack([image[..., 0] if self.about.grey else image for image in images])
            labels = np.array(of_class, np.uint8)[:, None]
            if self.multi_label:
                labels = (labels == np.arange(classes)) | ((labels + 1) % classes == np.arange(classes))
            arrays[f"{part}_labels"] = labels.astype(np.uint8)
        np.savez(folder / self.file_name, **arrays)

    def _file(self) -> Path:
        """The set's file: ``root``, or in it."""
        if self.root is not None and self.root.is_file():
            return self.root
        folder = self.folder_to_read(self.file_name)
        if not (folder / self.file_name).is_file():
            others = ", ".join(sorted(path.name for path in folder.glob("*.npz"))) or "no .npz file"
            raise FedlitError(
                f"{folder}: no {self.file_name}, there is {others}: take it from {ADDRESS}, or set data.name and "
                "data.size"
            )
        return folder / self.file_name

    def _check_sum(self, path: Path) -> None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        official = self.about.md5[SIZES.index(self.size)]
        if found != official:
            raise FedlitError(
                f"{path}: its md5 sum is {found}, that of the official {self.file_name} {official}: take the file from "
                f"{ADDRESS}, or set data.check_md5 to false"
            )

    def _part(self, path: Path, archive: zipfile.ZipFile, part: Fold) -> list[Example]:
        """The examples of a part; their values are views of its images."""
        if f"{part}_labels.npy" not in archive.namelist():
            raise FedlitError(f"{path}: has {part}_images and no {part}_labels: take the official file from {ADDRESS}")
        images, labels = self._array(archive, f"{part}_images.npy"), _array(archive, f"{part}_labels.npy")
        sizes = (len(images), self.size, self.size)
        if images.dtype != np.uint8 or images.shape not in (sizes, (*sizes, 3)):
            raise FedlitError(
                f"{path}: {part}_images is {images.dtype} {images.shape}, not uint8 {sizes} or {(*sizes, 3)}: set "
                "data.size to the images' size, or take the official file"
            )
        columns = len(self.about.classes) if self.multi_label else 1
        if labels.dtype.kind not in "iu" or labels.shape != (len(images), columns):
            raise FedlitError(
                f"{path}: {part}_labels is {labels.dtype} {labels.shape}, {part}_images has {len(images)}, and "
                f"{self.name} needs whole numbers ({len(images)}, {columns}): mend the labels, or set data.name"
            )
        if self.multi_label and labels.size and (labels.min() < 0 or labels.max() > 1):
            row = int(np.flatnonzero((labels < 0) | (labels > 1))[0]) // columns
            raise FedlitError(f"{path}: {part}_labels row {row} holds {labels[row].tolist()}: mend it to 0 and 1")
        out = []
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{part}-{i}"
            value = image if image.ndim == 3 else np.broadcast_to(image[..., None], (*image.shape, 3))
            out.append(Example(name, name, "site-unknown", "image", self._names(label), value, fold=part))
        return out

    def _names(self, label: npt.NDArray[np.integer]) -> tuple[str, ...]:
        classes = self.about.classes
        if self.multi_label:
            return tuple(name for name, has in zip(classes, label, strict=True) if has)
        number = int(label[0])
        # A number that is no class stays one, for the check of labels to name it.
        return (classes[number] if 0 <= number < len(classes) else str(number),)

    def _array(self, archive: zipfile.ZipFile, member: str) -> Any:
        """An array in memory, or in a file without a name in ``cache_folder``."""
        if self.cache_folder is None:
            return _array(archive, member)
        try:
            Path(self.cache_folder).mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self.cache_folder)  # noqa: SIM115  # open as long as the map
            with archive.open(member) as source:
                shutil.copyfileobj(source, file)
            file.seek(0)
        except OSError as error:
            mend = "set data.cache_folder to a folder with room that can be written to"
            raise FedlitError(f"{self.cache_folder}: {error.strerror}: {mend}") from error
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
        return np.asarray(np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C"))


def _array(archive: zipfile.ZipFile, member: str) -> Any:
    with archive.open(member) as source:
        return np.lib.format.read_array(source, allow_pickle=False)
