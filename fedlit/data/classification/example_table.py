"""Tables of one's own that list examples: what a row says of labels, groups, sites and folds, and files it names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.groups import ClassSplit
from fedlit.data.base.names import FOLDS
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.base.table_format import TableFormat, is_csv
from fedlit.data.base.tables import read_columns
from fedlit.data.classification.examples import Example
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.errors import FedlitError

LONGEST_PATH = 255
"""Characters of what can be a file's path in a table: longer cells are texts, and are told nowhere."""


class ExampleTable(ClassificationDataModule):
    """Examples from the rows of a table (``.csv``, ``.tsv``, packed, ``.jsonl``, ``.parquet``) with a header; a reader
    says what a row's value is.

    Args:
        root: The file.
        label_column: Its column with the labels.
        classes: Names of the classes, in order; None for those in the file, sorted.
        label_separator: Between several labels in one cell; an example then has any number of them (multi-label).
        group_column: A column whose equal cells (patient, document) stay on one side of a split; None: each row is one.
        site_column: A column that names the site; clients are then sites unless ``partition`` says otherwise.
        fold_column: A column of train, val (valid, validation, dev) and test, for ``split`` ``fold``.
        id_column: A column with a name of its own for each row; None: ``row-1``, ``row-2``, ..., or the file's name.
        split: See :class:`fedlit.data.classification.module.ClassificationDataModule`; None: ``fold`` where there is a
            ``fold_column``, else ``subject``. Another one beside ``fold_column`` trains on official test rows, and a
            warning says on how many.
        delimiter: What separates the columns of a csv file; None: commas, tabs in ``.tsv``, or what ``sep=`` says.
        decimal: Decimal mark of csv files.
        encoding: Encoding of csv files.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    kind: ClassVar[str]
    held_as: ClassVar[Mapping[str, str]] = {"classes": "class_names"}
    added_arguments: ClassVar[Mapping[str, object]] = {"delimiter": None, "decimal": ".", "encoding": "utf-8"}

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
        split: ClassSplit | None = None,
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str = "utf-8",
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
        self.delimiter, self.decimal, self.encoding = delimiter, decimal, encoding
        self.as_table  # noqa: B018  refuses what cannot be
        by_fold = fold_column is not None and not kwargs.get("parity", False)
        super().__init__(split=split or ("fold" if by_fold else "subject"), **kwargs)

    @property
    def as_table(self) -> TableFormat:
        """How csv files are written."""
        return TableFormat(self.delimiter, self.decimal, self.encoding)

    @property
    @abstractmethod
    def value_column(self) -> str:
        """The column that says what the value is."""

    @abstractmethod
    def value_of(self, name: str, cell: str) -> Any:
        """``Example.values`` of the row of an id, out of its cell, which has text in it.

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
        for row, cells in read_columns(path, columns, "name the file's column in data.*_column", self.as_table):
            name = self.usual_id(row, cells[self.value_column].strip())
            try:
                name = _mark(cells, self.id_column) or name
                if not self.excluded(name):
                    out.append(self._example(name, cells))
            except BadRecord as error:
                self.refuse(name, f"{path}: row {row} {error}")
        if self.group_column is None:
            self.say_subjects_are_unknown(len(out), f"data.group_column ({self.id_column or self.value_column}")
        self._say_what_has_no_effect(path, out)
        return out

    def _say_what_has_no_effect(self, path: Path, read: Sequence[Example]) -> None:
        if self.stand_in:
            return
        if self.label_separator is not None and read and all(len(example.labels) < 2 for example in read):
            self.say(f"{path}: no row has two labels separated by data.label_separator {self.label_separator!r}")
        if self.as_table != TableFormat() and not self._reads_csv():
            self.say(f"{path} is no csv file: data.delimiter, data.decimal and data.encoding have no effect on it")

    def _reads_csv(self) -> bool:
        """Whether a file is read that ``delimiter``, ``decimal`` and ``encoding`` act on."""
        return is_csv(Path(self.root or ""))

    def _look_over(self) -> None:
        super()._look_over()
        if self.fold_column is None:
            return
        trained, all_test = self._official_test(), sum(record.fold == "test" for record in self.records)
        if trained:
            self.say(
                f"{trained} of {all_test} rows that {self.fold_column!r} has in the official test part are trained on, "
                f"since {'data.parity' if self.parity else f'data.split is {self.split}'}: leave that out to split by "
                f"data.fold_column"
            )

    def _example(self, name: str, cells: dict[str, str]) -> Example:
        if not cells[self.value_column].strip():
            raise BadRecord(f"has an empty {self.value_column}: fill it in")
        fold = _mark(cells, self.fold_column)
        if fold is not None and fold.lower() not in FOLDS:
            what = f"text of {len(fold)} character(s) as {self.fold_column} that names no fold"
            raise BadRecord(f"has {what}: give one of {', '.join(FOLDS)}")
        labels = cells[self.label_column]
        several = labels.split(self.label_separator) if self.label_separator else [labels]
        return Example(
            id=name,
            subject=_mark(cells, self.group_column) or name,
            site=_mark(cells, self.site_column) or "site-unknown",
            kind=self.kind,
            labels=tuple(part.strip() for part in several if part.strip()),
            values=self.value_of(name, cells[self.value_column]),
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
        as_table = {"sep": self.delimiter or ",", "encoding": self.encoding}
        pd.DataFrame(rows).to_csv(folder / "stand_in.csv", index=False, **as_table)


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
        """The path, as it is written; of a cell that is no path, such as a text, the row."""
        path = bool(cell) and len(cell) <= LONGEST_PATH and "\n" not in cell
        return cell if path else super().usual_id(row, cell)

    def value_of(self, name: str, cell: str) -> Any:
        """A function that reads the file."""
        return partial(self.read_file, self.file_of(cell))

    def file_of(self, cell: str) -> Path:
        """The file that a cell names.

        Raises:
            BadRecord: There is none.
        """
        path = (self.folder or Path(self.root or "").parent) / cell.strip()
        try:
            there = path.is_file()
        except OSError as error:
            what = f"has a {self.path_column} that can be no path ({error.strerror})"
            raise BadRecord(f"{what}: mend it, or set data.path_column to another column") from error
        if not there:
            raise BadRecord(f"names {path}, and there is no such file: mend the path, or set data.folder")
        return path

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
