"""Texts to classify: the Medical Abstracts corpus and PubMed RCT."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.records import Fold
from fedlit.data.base.tables import read_columns
from fedlit.data.classification.examples import Example, Modality, is_empty
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.generated.examples import stand_in_text
from fedlit.errors import FedlitError

CONDITIONS = (
    "neoplasms",
    "digestive system diseases",
    "nervous system diseases",
    "cardiovascular diseases",
    "general pathological conditions",
)
"""Names of condition_label 1 to 5, as medical_tc_labels.csv names them."""
ROLES = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
RCT_FILES: dict[str, Fold] = {"train": "train", "dev": "val", "test": "test"}


class MedicalAbstracts(ClassificationDataModule):
    """Medical Abstracts: 14,438 abstracts of five kinds of condition (Schopf et al. 2022, doi:10.1145/3582768.3582795).

    It names no patient, site or journal, so clients are made by label. Many abstracts are listed twice, under
    different conditions. The official parts are the ``fold``.

    Args:
        root: Folder with ``medical_tc_train.csv`` and ``medical_tc_test.csv``, or one of them.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "text"
    class_names = CONDITIONS

    def __init__(self, root: Path, **kwargs: Any) -> None:
        self.root = Path(root)
        super().__init__(**kwargs)

    def read(self) -> list[Example]:
        """One example per row."""
        layout = "medical_tc_train.csv and medical_tc_test.csv"
        folder = self.folder_to_read(layout)
        folds: tuple[Fold, ...] = ("train", "test")
        files: dict[Fold, Path] = {fold: folder / f"medical_tc_{fold}.csv" for fold in folds}
        there: dict[Fold, Path] = {fold: path for fold, path in files.items() if path.is_file()}
        if not there:
            raise FedlitError(f"{folder}: neither {layout.replace('and', 'nor')}: set data.root to their folder")
        for fold in files.keys() - there.keys():
            self.say(f"{files[fold]} is absent: only the official {next(iter(there))} part is read")
        out = []
        for fold, path in there.items():
            for row, cells in read_columns(path, ["condition_label", "medical_abstract"], "use the official file"):
                number, text = cells["condition_label"].strip(), cells["medical_abstract"].strip()
                label = CONDITIONS[int(number) - 1] if number in ("1", "2", "3", "4", "5") else number
                name = f"{fold}-{row}"
                if has_text(self, path, row, name, text):
                    out.append(Example(name, name, "site-unknown", "text", (label,), text, fold=fold))
        return out

    def write_stand_in(self, folder: Path) -> None:
        """The three official files; a third of the rows in the test file."""
        import pandas as pd

        _, size = self.stand_in_size(60)
        rows = [(number // 3 % 5 + 1, stand_in_text(number, number // 3 % 5)) for number in range(size)]
        columns = ["condition_label", "medical_abstract"]
        for fold in ("train", "test"):
            chosen = [row for i, row in enumerate(rows) if (i % 3 == 2) == (fold == "test")]
            pd.DataFrame(chosen, columns=columns).to_csv(folder / f"medical_tc_{fold}.csv", index=False)
        names = pd.DataFrame({"condition_label": range(1, 6), "condition_name": CONDITIONS})
        names.to_csv(folder / "medical_tc_labels.csv", index=False)


class PubMedRCT(ClassificationDataModule):
    """PubMed RCT: sentences of abstracts of randomised trials by role (Dernoncourt and Lee 2017, arXiv 1710.06071).

    The subject is the abstract, so that its sentences stay on one side of a split; stock sentences, which several
    abstracts hold word for word, join those. With ``parity``, train and test are pooled, dev is left out, and texts are
    in lower case.

    Args:
        root: Folder with ``train.txt``, ``dev.txt`` and ``test.txt``, each as it is or as ``.zip``; or a folder with
            one such folder (``PubMed_20k_RCT``, ``PubMed_200k_RCT_numbers_replaced_with_at_sign``, ...).
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    modality: ClassVar[Modality] = "text"
    class_names = ROLES

    def __init__(self, root: Path, **kwargs: Any) -> None:
        self.root = Path(root)
        super().__init__(**kwargs)

    def read(self) -> list[Example]:
        """One example per sentence, named by its abstract and place."""
        folder = self._folder()
        out = []
        for part, fold in RCT_FILES.items():
            if self.parity and part == "dev":
                continue
            path = _part(folder, part)
            for line, abstract, place, role, text in self._sentences(path):
                name = f"{abstract}-{place:02d}"
                if has_text(self, path, line, name, text, "line"):
                    text = text.lower() if self.parity else text
                    out.append(Example(name, abstract, "site-unknown", "text", (role,), text, fold=fold))
        return out

    def _folder(self) -> Path:
        """``root``, or the one folder in it that holds the files."""
        folder = self.folder_to_read("train.txt, dev.txt and test.txt")
        if any(folder.glob("train.*")):
            return folder
        inner = sorted(path.parent for path in folder.glob("*/train.*"))
        if not inner:
            raise FedlitError(f"{folder}: no train.txt or train.zip: set data.root to the folder of one variant")
        if len(set(inner)) > 1:
            names = ", ".join(sorted({path.name for path in inner}))
            raise FedlitError(f"{folder}: holds several variants ({names}): set data.root to one of them")
        return inner[0]

    def _sentences(self, path: Path) -> Iterator[tuple[int, str, int, str, str]]:
        """Line number, abstract, place in it (from 1), role and text of each sentence."""
        abstract, place = "", 0
        for number, line in enumerate(_lines(path), 1):
            if line.startswith("###"):
                abstract, place = line[3:].strip(), 0
                if not abstract:
                    raise FedlitError(f"{path}: line {number} has ### and no abstract's id: use the official file")
            elif line.strip():
                if not abstract:
                    raise FedlitError(f"{path}: line {number} comes before any ### line: use the official file")
                role, tab, text = line.partition("\t")
                place += 1
                if not tab:
                    name = f"{abstract}-{place:02d}"
                    self.refuse(name, f"{path}: line {number} has no tab between role and sentence: mend the line")
                    continue
                yield number, abstract, place, role.strip(), text.strip()

    def write_stand_in(self, folder: Path) -> None:
        """Abstracts of five sentences, one of each role; half for training. More where every client needs each fold."""
        _, size = self.stand_in_size(240 if self.split == "fold" else 60)
        files: dict[str, list[str]] = {part: [] for part in RCT_FILES}
        for number in range(-(-size // 5)):
            lines = [f"###{10_000_000 + number}"]
            lines += [f"{role}\t{stand_in_text(5 * number + k, k)}" for k, role in enumerate(ROLES)]
            files[("train", "train", "dev", "test")[number % 4]] += [*lines, ""]
        for part, lines in files.items():
            (folder / f"{part}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def has_text(reader: ClassificationDataModule, path: Path, row: int, name: str, text: str, unit: str = "row") -> bool:
    """Whether there is one; the row is refused otherwise, unless it is excluded."""
    empty = is_empty(text)
    if not empty or reader.excluded(name):
        return not empty
    reader.refuse(name, f"{path}: {unit} {row} has an empty text: fill it in")
    return False


def _part(folder: Path, part: str) -> Path:
    for suffix in (".txt", ".zip"):
        if (folder / f"{part}{suffix}").is_file():
            return folder / f"{part}{suffix}"
    packed = min(folder.glob(f"{part}.*"), default=None)
    mend = f"unpack {packed.name}" if packed is not None else "set data.root to the folder with the official files"
    raise FedlitError(f"{folder}: no {part}.txt or {part}.zip: {mend}")


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, or of the one text file in a zip file."""
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".txt") and "__MACOSX" not in name]
                if len(names) != 1:
                    raise FedlitError(f"{path}: holds {len(names)} .txt files, one is needed: unpack it beside")
                with archive.open(names[0]) as file:
                    for line in file:
                        yield line.decode("utf-8").rstrip("\r\n")
        else:
            with path.open(encoding="utf-8") as text:
                for written in text:
                    yield written.rstrip("\r\n")
    except (OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        what = getattr(error, "strerror", None) or error
        raise FedlitError(f"{path}: {what}: use the official file") from error
