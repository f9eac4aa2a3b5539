"""Reading from files: the folder, records left out, stand-ins, warnings, the arguments as a fingerprint."""

from __future__ import annotations

import fnmatch
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from fedlit.data.base.arguments import constructor_arguments
from fedlit.data.base.listing import data_files
from fedlit.data.base.module import FederatedDataModule
from fedlit.data.base.partitions import BySite, FileList, Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.base.renaming import Rename, check_rename
from fedlit.errors import FedlitError

OnBadRecord = Literal["error", "skip"]


class Reader(FederatedDataModule):
    """A data module that reads records from files.

    Args:
        partition: Who holds which records; None for the reader's natural one.
        exclude: Patterns (``HR0*``) of record ids to leave out.
        on_bad_record: ``error`` stops at a record that cannot be used, ``skip`` leaves it out and says so.
        seed: Seed of partition, split and shuffling; None: the run's seed, or 0 outside of a federated run.
        rename: Names in the data to other ones, by what they name, as ``{labels: {asthma: Asthma, "?": null}}``:
            ``labels``, ``sites``, ``subjects``, or ``types`` of mention and relation. A label, or a type, that
            becomes None is none.
        external_sites: Sites, by pattern (``clinic-*``), that take no part: nothing of theirs is trained on, chosen by
            or held by the server; only the names of their labels or types count as known. At the end of a run the
            global model is scored on all that they hold. Records of a subject, or copies of a record, that sites in
            training hold are left out.
    """

    added_arguments: ClassVar[Mapping[str, object]] = {"rename": {}, "external_sites": []}
    default_partition: ClassVar[Partition] = BySite()
    held_as: ClassVar[Mapping[str, str]] = {}
    """Attributes that hold a constructor argument under another name than its own, for :meth:`config`."""
    root: Path | None = None

    def __init__(
        self,
        partition: Partition | None = None,
        exclude: list[str] | None = None,
        on_bad_record: OnBadRecord = "error",
        seed: int | None = None,
        rename: Rename | None = None,
        external_sites: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.partition = partition
        self.exclude = list(exclude or [])
        self.on_bad_record = on_bad_record
        self.seed = seed
        self.rename = check_rename(rename)
        self.external_sites = list(external_sites or [])
        self.stand_in = False
        self._warnings: list[str] = []
        self._forget()

    @abstractmethod
    def write_stand_in(self, folder: Path) -> None:
        """Write a tiny data set in the official layout, large enough for this module's partition and split."""

    def use_stand_in(self, folder: Path) -> None:
        """Read generated files, in the official layout, in the place of the data."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_stand_in(folder)
        self.root = folder
        self.exclude = []
        self.rename = {}
        if self.partition is not None and _lists_records(self.partition):
            self.say("stand-in: the partition's file does not name its records; the default partition is used")
            self.partition = None
        self.simulated = self.stand_in = True
        self._forget()

    def folder_to_read(self, layout: str) -> Path:
        """``root``, which must be a folder that can be listed; ``layout`` says what belongs in it."""
        if self.root is None:
            raise FedlitError(f"data.root is not set: give the folder with {layout}")
        try:
            if next(Path(self.root).iterdir(), None) is None:
                raise FedlitError(f"{self.root}: folder is empty: set data.root to the folder with {layout}")
        except OSError as error:
            raise FedlitError(f"{self.root}: {error.strerror}: set data.root to the folder with {layout}") from error
        return Path(self.root)

    def files_to_read(self, layout: str) -> list[Path]:
        """All files in ``root`` and the folders in it, sorted, without what systems and editors leave there, which is
        counted. A folder that cannot be listed is never passed over."""
        found, passed = data_files(self.folder_to_read(layout))
        self._passed_over.update(passed)
        return found

    def excluded(self, record_id: str) -> bool:
        """Whether ``exclude`` names the record; it is noted."""
        pattern = self.pattern_of(record_id)
        if pattern is not None:
            self._left_out.setdefault(record_id, f"excluded by {pattern!r}")
            self._used_patterns.add(pattern)
        return pattern is not None

    def pattern_of(self, record_id: str) -> str | None:
        """The first pattern in ``exclude`` that names the record; nothing is noted."""
        # An id with brackets in it is no pattern of itself.
        return next((p for p in self.exclude if p == record_id or fnmatch.fnmatchcase(record_id, p)), None)

    def refuse(self, record_id: str, reason: str) -> None:
        """Leave a record out, or stop, as ``on_bad_record`` says.

        Raises:
            BadRecord: Unless ``on_bad_record`` is ``"skip"``.
        """
        if self.on_bad_record == "error":
            raise BadRecord(f"{reason}; to leave it out: data.exclude [{record_id!r}], or data.on_bad_record skip")
        self._left_out[record_id] = reason
        self._skipped.append(record_id)

    def say(self, message: str) -> None:
        """A warning that also goes into :meth:`describe`."""
        if message not in self._warnings:
            self._warnings.append(message)
            warnings.warn(message, UserWarning, stacklevel=3)

    def config(self) -> dict[str, object]:
        """Class name and constructor arguments, as JSON can hold them, by the signatures of the class and its bases."""
        out: dict[str, object] = {"class": type(self).__name__}
        for name in constructor_arguments(type(self), Reader):
            value = getattr(self, self.held_as.get(name, name))
            value = value.config() if isinstance(value, Partition) else value
            out[name] = str(value) if isinstance(value, Path) else value
        return out

    def _forget(self) -> None:
        self._ready = False
        self._left_out: dict[str, str] = {}
        self._skipped: list[str] = []
        self._used_patterns: set[str] = set()
        self._passed_over: set[Path] = set()


def _lists_records(partition: Partition) -> bool:
    """Whether a partition, or one inside it, is a file of record ids."""
    inner = vars(partition).values()
    return isinstance(partition, FileList) or any(isinstance(p, Partition) and _lists_records(p) for p in inner)
