"""Any folder of EDF, EDF+ and BDF recordings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.listing import nothing_to_read
from fedlit.data.base.partitions import BySubject, Partition
from fedlit.data.base.reader import Reader
from fedlit.data.files.channels import Recording
from fedlit.data.files.edf import ENDINGS, EDFRecord, has_signals, write_edf
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.channel_folder import ChannelFolder
from fedlit.data.signals.splits import SplitRule

LAYOUT = "EDF recordings (.edf, .bdf)"


class EDFFolder(ChannelFolder):
    """EDF recordings of a folder and all folders in it, each channel at its own rate. Needs ``fedlit[edf]``.

    Gaps of discontinuous files (EDF+D) are missing samples. Files of annotations alone are passed by. Fields of the
    patient are not read.

    Args:
        root: The folder.
        channels: Channel (its label in the file, case does not matter) to kind, ``{"EEG Fpz-Cz": "eeg"}``; or kind to
            channels, ``{"ecg": ["ECG", "EKG"]}``, of which the first that a recording has is read. With several, each
            is a record of its own, named ``<record>-<channel>`` or ``<record>-<kind>``. Of two of one label, ``ECG#2``
            is the second.
        site_pattern: Regular expression whose group, searched in the record's name and then in its path below ``root``,
            is its site; None: unknown.
        subject_pattern: The same for the subject; None: each recording is of another subject, which is said.
        table: A table with a column ``record`` and ``site``, ``subject`` or ``label`` columns, which then count
            instead of the patterns.
        split: One subject a client cannot be split by subject, so the default here is by time.
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySubject()

    def __init__(
        self,
        root: Path,
        channels: dict[str, str | list[str]],
        site_pattern: str | None = None,
        subject_pattern: str | None = None,
        table: Path | None = None,
        split: SplitRule = "time",
        **kwargs: Any,
    ) -> None:
        super().__init__(root, channels, site_pattern, subject_pattern, table, split=split, **kwargs)

    def files(self) -> list[Path]:
        """Files that hold signals."""
        return [path for path in edf_files(self) if has_signals(path)]

    def opened(self, path: Path) -> Recording:
        """A recording."""
        return EDFRecord(path)

    def write_stand_in(self, folder: Path) -> None:
        """Twenty-four subjects, a file each; patterns and table give way to the files' names."""
        self.site_pattern = self.subject_pattern = self.table = None
        rate = 100.0
        seconds = float(round(self.stand_in_seconds(rate)))
        for number in range(24):
            made = stand_in_channels(number, rate, seconds, ("ecg", "icg"))
            kinds = {names[0]: kind for _, names, kind in self.wanted}
            values = {name: made["ICG" if kind == "icg" else "II"] for name, kind in kinds.items()}
            units = {name: "Ohm/s" if kind == "icg" else "mV" for name, kind in kinds.items()}
            write_edf(folder / f"subject-{number + 1:02d}.edf", rate, values, units)


def edf_files(reader: Reader) -> list[Path]:
    """EDF and BDF files in a reader's folder.

    Raises:
        FedlitError: There is none.
    """
    files = [path for path in reader.files_to_read(LAYOUT) if path.suffix.lower() in ENDINGS]
    if not files:
        raise nothing_to_read(reader.folder_to_read(LAYOUT), "EDF recording (.edf, .bdf)")
    return files
