"""Fed-ISIC2019: photographs of skin lesions from six centres, in the layout of FLamby."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord, Fold
from fedlit.data.base.tables import read_columns, read_rows
from fedlit.data.classification.examples import Example
from fedlit.data.classification.images import ImageReader
from fedlit.data.files.images import Resize
from fedlit.data.generated.examples import stand_in_image
from fedlit.errors import FedlitError

DIAGNOSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""Names of target 0 to 7."""
CENTRES = ("BCN", "HAM_vidir_molemax", "HAM_vidir_modern", "HAM_rosendahl", "MSK", "HAM_vienna_dias")
"""Names of center 0 to 5, as FLamby's README names them."""
IMAGES = "ISIC_2019_Training_Input_preprocessed"
SPLIT = "train_test_split"
LESIONS = "ISIC_2019_Training_Metadata.csv"
FOLDS: dict[str, Fold] = {"train": "train", "test": "test"}


class FedISIC2019(ImageReader):
    """Fed-ISIC2019: 23,247 dermatoscopic images of eight diagnoses (Ogier du Terrail et al. 2022, arXiv 2210.04620).

    A client is a centre. Where ``ISIC_2019_Training_Metadata.csv`` of the ISIC 2019 challenge is there, the images of a
    lesion stay on one side of the split; without it each image is a subject of its own. FLamby's train and test part
    are the ``fold``, which was drawn by image. FLamby augments its training images; here the middle square is
    cut out and scaled to ``size``, for training too.

    Args:
        root: Folder with ``ISIC_2019_Training_Input_preprocessed/<image>.jpg``, as FLamby's scripts write it, its
            ``train_test_split`` (or ``train_test_split.csv``), and perhaps the metadata.
        size: Height and width (pixels) that images are brought to.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    resize: Resize = "crop"
    default_partition: ClassVar[Partition] = BySite()
    class_names = DIAGNOSES

    def __init__(self, root: Path, size: int = 224, **kwargs: Any) -> None:
        if not size >= 1:
            raise FedlitError(f"data.size is {size}: give a number of pixels")
        self.root = Path(root)
        self.size = size
        super().__init__(**kwargs)

    def read(self) -> list[Example]:
        """One example per row of the split file; images are read later."""
        folder = self.folder_to_read(f"{IMAGES} and {SPLIT}")
        images = folder / IMAGES
        if not images.is_dir():
            raw = folder / IMAGES.removesuffix("_preprocessed")
            mend = "run FLamby's resize_images.py" if raw.is_dir() else "set data.root to the folder that holds it"
            raise FedlitError(f"{images}: no such folder: {mend}")
        table = next((p for p in (folder / SPLIT, folder / f"{SPLIT}.csv") if p.is_file()), None)
        if table is None:
            raise FedlitError(f"{folder}: no {SPLIT}: copy it from FLamby's fed_isic2019/dataset_creation_scripts")
        lesions = self._lesions(folder / LESIONS)
        out = []
        rows = read_columns(table, ["image", "target", "center", "fold"], "use FLamby's own file")
        for row, cells in rows:
            name = cells["image"].strip()
            if self.excluded(name):
                continue
            try:
                out.append(self._example(images, cells, lesions.get(name) or name))
            except BadRecord as error:
                self.refuse(name or f"row-{row}", f"{table}: row {row} {error}")
        listed = {cells["image"].strip() for _, cells in rows}
        more = sorted(path.stem for path in images.glob("*.jpg") if path.stem not in listed)
        if more:
            self.say(f"{images}: {len(more)} image(s) are not in {table.name}, and not read: {few(more)}")
        if lesions:
            alone = [example.id for example in out if not lesions.get(example.id)]
            if alone:
                self.say(f"{folder / LESIONS} has no lesion of {len(alone)} image(s), each its own: {few(alone)}")
        return out

    def _example(self, images: Path, cells: dict[str, str], subject: str) -> Example:
        """The example of a row; what is wrong is told without the row."""
        name, target, centre, fold = (cells[column].strip() for column in ("image", "target", "center", "fold"))
        path = images / f"{name}.jpg"
        if not name or not path.is_file():
            raise BadRecord(f"names {path}, and there is no such file: preprocess it, or leave it out")
        if centre not in map(str, range(len(CENTRES))):
            raise BadRecord(f"has center {centre!r}: give 0 to {len(CENTRES) - 1}")
        if fold not in FOLDS:
            raise BadRecord(f"has fold {fold!r}: give {' or '.join(FOLDS)}")
        label = DIAGNOSES[int(target)] if target in map(str, range(len(DIAGNOSES))) else target
        values = partial(self.picture, path)
        return Example(name, subject, CENTRES[int(centre)], "image", (label,), values, fold=FOLDS[fold])

    def mend_of_cuts(self) -> str:
        """As in most uses of the set."""
        return "only the middle squares of photographs are used"

    def _lesions(self, path: Path) -> dict[str, str]:
        """Image to lesion; empty, and said, without the file."""
        if not path.is_file():
            self.say(f"{path} is absent: images of one lesion may be on both sides of the split")
            return {}
        rows = read_rows(path, "image")
        if "lesion_id" not in next(iter(rows.values())):
            raise FedlitError(f"{path}: no column 'lesion_id': use the file of the ISIC 2019 challenge")
        return {image: row["lesion_id"].strip() for image, row in rows.items()}

    def write_stand_in(self, folder: Path) -> None:
        """The three files, with two images a lesion, and photographs that are not square."""
        import pandas as pd
        from PIL import Image

        given = self.partition is not None or self.parity
        count = self.stand_in_size(60)[1] if given else 60 * len(CENTRES) + self.server_examples
        (folder / IMAGES).mkdir(exist_ok=True)
        rows, lesions = [], []
        for number in range(count):
            lesion = number // 2
            centre, turn = lesion % len(CENTRES), lesion // len(CENTRES)
            target, fold = turn % len(DIAGNOSES), "test" if turn % 5 == 4 else "train"
            name = f"ISIC_{number:07d}"
            image = Image.fromarray(stand_in_image(number, target, 224, 256))
            image.save(folder / IMAGES / f"{name}.jpg", quality=90)
            shares = {diagnosis: float(k == target) for k, diagnosis in enumerate((*DIAGNOSES, "UNK"))}
            marks = {"target": target, "center": centre, "fold": fold, "fold2": f"{fold}_{centre}"}
            rows.append({"image": name} | shares | marks)
            lesions.append({"image": name, "lesion_id": f"STAND_IN_{lesion:07d}"})
        pd.DataFrame(rows).to_csv(folder / SPLIT, index=False)
        pd.DataFrame(lesions).to_csv(folder / LESIONS, index=False)
