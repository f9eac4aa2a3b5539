"""Examples to classify that a table of one's own lists: texts in its cells, or files that it names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base import arguments
from fedlit.data.base.names import FOLDS
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.base.tables import read_columns
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.classification.sounds import Padding, SoundReader, Waveform
from fedlit.data.files.images import Resize, read_image
from fedlit.data.generated.examples import stand_in_image, stand_in_sound, stand_in_text, write_sound
from fedlit.errors import FedlitError


class ExampleTable(ClassificationDataModule):
    """Examples from the rows of a csv or Parquet file with a header; a reader says what a row's value is.

    Args:
        root: The file.
        label_column: Its column with the labels.
        classes: Names of the classes, in order; None for those in the file, sorted.
        label_separator: Between several labels in one cell; an example then has any number of them (multi-label).
        group_column: A column whose equal cells (patient, document) stay on one side of a split; None: each row is one.
        site_column: A column that names the site; clients are then sites unless ``partition`` says otherwise.
        fold_column: A column of train, val (valid, validation, dev) and test, for ``split`` ``fold``.
        id_column: A column with a name of its own for each row; None: ``row-1``, ``row-2``, ..., or the file's name.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    kind: ClassVar[str]
    held_as: ClassVar[Mapping[str, str]] = {"classes": "class_names"}

    def __init__(
        self,
        root: Path,
        label_column: str = "label",
        classes: list[str] | None = None,
        label_separator: str | None = None,
        group_column: str | None = None,
        site_column: str | None = None,
        fold_column: str | None = None,
        id_column: str | None = None,
        **kwargs: Any,
    ) -> None:
        if label_separator == "":
            raise FedlitError("data.label_separator is empty: give what stands between labels, or null for one label")
        self.root = Path(root)
        self.label_column = label_column
        self.class_names = None if classes is None else list(classes)
        self.label_separator = label_separator
        self.group_column = group_column
        self.site_column = site_column
        self.fold_column = fold_column
        self.id_column = id_column
        self.multi_label = label_separator is not None
        super().__init__(**kwargs)

    @property
    @abstractmethod
    def value_column(self) -> str:
        """The column that says what the value is."""

    @abstractmethod
    def value_of(self, cell: str) -> Any:
        """``Example.values`` of a row, out of its cell, which has text in it.

        Raises:
            BadRecord: It cannot be used; the message names no row, the table does.
        """

    @abstractmethod
    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """The cell of a stand-in's row ``number``, of class index ``of_class``; a file that it names is written."""

    def usual_id(self, row: int, cell: str) -> str:
        """Name of a row where no column gives one."""
        return f"row-{row}"

    def usual_partition(self) -> Partition:
        """By site where there is a column of sites."""
        return BySite() if self.site_column is not None and not self.parity else super().usual_partition()

    def read(self) -> list[Example]:
        """One example per row."""
        path = Path(self.root or "")
        marks = [self.group_column, self.site_column, self.fold_column, self.id_column]
        columns = [self.value_column, self.label_column, *(name for name in marks if name is not None)]
        out = []
        for row, cells in read_columns(path, columns, "name the file's column in data.*_column"):
            name = self.usual_id(row, cells[self.value_column].strip())
            try:
                name = _mark(cells, self.id_column) or name
                if not self.excluded(name):
                    out.append(self._example(name, cells))
            except BadRecord as error:
                self.refuse(name, f"{path}: row {row} {error}")
        if self.group_column is None:
            self.say_subjects_are_unknown(len(out), f"data.group_column ({self.id_column or self.value_column}")
        return out

    def _example(self, name: str, cells: dict[str, str]) -> Example:
        if not cells[self.value_column].strip():
            raise BadRecord(f"has an empty {self.value_column}: fill it in")
        fold = _mark(cells, self.fold_column)
        if fold is not None and fold.lower() not in FOLDS:
            raise BadRecord(f"has {fold!r} as {self.fold_column}: give one of {', '.join(FOLDS)}")
        labels = cells[self.label_column]
        several = labels.split(self.label_separator) if self.label_separator else [labels]
        return Example(
            id=name,
            subject=_mark(cells, self.group_column) or name,
            site=_mark(cells, self.site_column) or "site-unknown",
            kind=self.kind,
            labels=tuple(part.strip() for part in several if part.strip()),
            values=self.value_of(cells[self.value_column]),
            rate=self.rate,
            fold=None if fold is None else FOLDS[fold.lower()],
        )

    def use_stand_in(self, folder: Path) -> None:
        """Read a generated file with the columns that this module names."""
        super().use_stand_in(folder)
        self.root = Path(folder) / "stand_in.csv"

    def write_stand_in(self, folder: Path) -> None:
        """``stand_in.csv``, and the files that it names; three rows a group."""
        import pandas as pd

        clients, size = self.stand_in_size(60)
        names: Sequence[str] = self.class_names or ("class-1", "class-2", "class-3")
        rows = []
        for number in range(size):
            group = number // 3
            columns = {
                self.value_column: self.stand_in_cell(folder, number, group % len(names)),
                self.label_column: names[group % len(names)],
                self.group_column: f"group-{group + 1}",
                self.site_column: f"site-{group % clients + 1}",
                self.fold_column: ("train", "train", "val", "test")[group // clients % 4],
                self.id_column: f"{self.kind}-{number + 1}",
            }
            rows.append({name: cell for name, cell in columns.items() if name is not None})
        pd.DataFrame(rows).to_csv(folder / "stand_in.csv", index=False)


class FileTable(ExampleTable):
    """Examples in files of their own, which a table names and labels.

    Args:
        root: The table: a csv or Parquet file with a header.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        kwargs: See :class:`ExampleTable`.
    """

    def __init__(self, root: Path, path_column: str = "path", folder: Path | None = None, **kwargs: Any) -> None:
        super().__init__(root, **kwargs)
        self.path_column = path_column
        self.folder = None if folder is None else Path(folder)

    @abstractmethod
    def read_file(self, path: Path) -> Any:
        """The decoded value.

        Raises:
            BadRecord: It cannot be used; the message names the file and the mend.
        """

    @property
    def value_column(self) -> str:
        """The column with the files' paths."""
        return self.path_column

    def usual_id(self, row: int, cell: str) -> str:
        """The path, as it is written."""
        return cell or super().usual_id(row, cell)

    def value_of(self, cell: str) -> Any:
        """A function that reads the file."""
        path = (self.folder or Path(self.root or "").parent) / cell.strip()
        if not path.is_file():
            raise BadRecord(f"names {path}, and there is no such file: mend the path, or set data.folder")
        return partial(self.read_file, path)

    def use_stand_in(self, folder: Path) -> None:
        """Read a generated table and the files beside it."""
        super().use_stand_in(folder)
        self.folder = None


def _mark(cells: dict[str, str], column: str | None) -> str | None:
    """The cell of a column that must not be empty; None where the column is not asked for."""
    if column is None:
        return None
    if not cells[column].strip():
        raise BadRecord(f"has an empty {column!r}: fill it in")
    return cells[column].strip()


class ImageTable(FileTable):
    """Images in files, which a csv or Parquet file with a header lists.

    Any format that Pillow reads, of 8 bits a channel. Grey images and palettes become RGB, transparency is dropped, and
    images are turned upright as their EXIF data say. Other modes (16 bits, floats, CMYK) are refused.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        size: Height and width (pixels) of all images.
        resize: Treatment of an image of another size: ``error`` refuses it; ``crop`` cuts out the middle square and
            scales that; ``squash`` scales it whole, whatever its aspect.
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
    """

    modality: ClassVar[Modality] = "image"
    kind: ClassVar[str] = "image"

    def __init__(
        self,
        root: Path,
        path_column: str = "path",
        folder: Path | None = None,
        size: int = 224,
        resize: Resize = "error",
        **kwargs: Any,
    ) -> None:
        if not size >= 1:
            raise FedlitError(f"data.size is {size}: give a number of pixels")
        arguments.one_of("resize", resize, Resize)
        super().__init__(root, path_column=path_column, folder=folder, **kwargs)
        self.size = size
        self.resize: Resize = resize

    def read_file(self, path: Path) -> Any:
        """uint8, shape (size, size, 3)."""
        return read_image(path, self.size, self.resize)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """``images/image-1.png``, ..."""
        from PIL import Image

        name = f"images/image-{number + 1}.png"
        (folder / "images").mkdir(exist_ok=True)
        image = Image.fromarray(stand_in_image(number, of_class, self.size, self.size))
        image.save(folder / name, compress_level=1)
        return name


class SoundTable(FileTable, SoundReader):
    """Sound files that a csv or Parquet file with a header names and labels.

    Args:
        root: The table.
        path_column: Its column with the files' paths, which are also their ids unless ``id_column`` is given.
        folder: Where relative paths start; None: the table's own folder.
        rate: Samples per second (Hz) that the backbone wants: 16000 for wav2vec2 and AST.
        seconds: Length of each example; longer sounds lose their end.
        padding: What shorter sounds get: ``circular`` repeats them, ``zeros`` adds silence, ``crop`` takes none.
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
    """

    kind: ClassVar[str] = "audio"
    rate: float

    def __init__(
        self,
        root: Path,
        path_column: str = "file",
        folder: Path | None = None,
        rate: float = 16000.0,
        seconds: float = 8.0,
        padding: Padding = "circular",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            root, path_column=path_column, folder=folder, rate=rate, seconds=seconds, padding=padding, **kwargs
        )

    def read_file(self, path: Path) -> Waveform:
        """The whole file."""
        return self.excerpt(path)

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A sound of the class."""
        write_sound(folder / "sounds" / f"sound-{number + 1}.wav", stand_in_sound(number, of_class))
        return f"sounds/sound-{number + 1}.wav"


class TextTable(ExampleTable):
    """Texts from a csv or Parquet file with a header.

    Args:
        root: The file.
        text_column: Its column with the texts.
        label_column: Its column with the labels.
        kwargs: See :class:`fedlit.data.classification.tables.ExampleTable`.
    """

    modality: ClassVar[Modality] = "text"
    kind: ClassVar[str] = "text"

    def __init__(self, root: Path, text_column: str = "text", label_column: str = "label", **kwargs: Any) -> None:
        self.text_column = text_column
        super().__init__(root, label_column=label_column, **kwargs)

    @property
    def value_column(self) -> str:
        """The column with the texts."""
        return self.text_column

    def value_of(self, cell: str) -> str:
        """The text as it is."""
        return cell

    def stand_in_cell(self, folder: Path, number: int, of_class: int) -> str:
        """A text of the class."""
        return stand_in_text(number, of_class)
