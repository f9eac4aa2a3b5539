"""Any folder of WFDB records, the PhysioNet/CinC Challenges' ``.mat``/``.hea`` pairs among them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from fedlit.data.base.listing import nothing_to_read
from fedlit.data.base.names import few
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.base.reader import Reader
from fedlit.data.files.channels import Channels, Recording
from fedlit.data.files.wfdb import WFDBRecord, write_channels
from fedlit.data.files.wfdb_header import joined
from fedlit.data.generated.population import stand_in_channels
from fedlit.data.signals.channel_folder import ChannelFolder

CHALLENGE_PREFIX = r"^([A-Za-z]+)"
"""The Challenges' sites: A, Q, I, S, HR, E, JS."""
_DIAGNOSIS = re.compile(r"^\s*Dx:\s*(\S+)", re.IGNORECASE)


class WFDBFolder(ChannelFolder):
    """WFDB records of a folder and all folders in it.

    Each channel has its own rate: frames per second times its samples in a frame. A recording of several segments is
    one record: its segments and its layout are none, gaps and segments without the channel are missing samples. Where
    two channels have one name, ``ECG#2`` is the second.

    The label of a record is the first code of the header's ``#Dx:`` line, where there is one.

    Args:
        root: The folder.
        channels: Channel name (case does not matter) to kind; None for ``{"II": "ecg"}``. With several, each channel
            is a record of its own, named ``<record>-<channel>``. Or kind to channels, ``{"ecg": ["MLII", "II"]}``, of
            which the first that a recording has is read; with several kinds ``<record>-<kind>``.
        site_pattern: Regular expression whose group, searched in the record's name and then in its path below ``root``,
            is its site.
        subject_pattern: The same for the subject; None: each WFDB record is of another subject, which is said.
        table: A table with a column ``record`` and ``site``, ``subject`` or ``label`` columns, which then count
            instead of the patterns. Without a header, of records and labels (``REFERENCE.csv``).
        kwargs: See :class:`fedlit.data.signals.module.SignalDataModule`.
    """

    default_partition: ClassVar[Partition] = BySite()

    def __init__(
        self,
        root: Path,
        channels: dict[str, str | list[str]] | None = None,
        site_pattern: str = CHALLENGE_PREFIX,
        subject_pattern: str | None = None,
        table: Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(root, channels or {"II": "ecg"}, site_pattern, subject_pattern, table, **kwargs)

    def files(self) -> list[Path]:
        """Headers that are no part of another's recording."""
        return record_headers(self)

    def opened(self, path: Path) -> Recording:
        """A record of one segment or several."""
        return WFDBRecord(path)

    def label_of(self, read: Channels) -> str | None:
        """First diagnosis in the header."""
        return diagnosis(read.comments)

    def write_stand_in(self, folder: Path) -> None:
        """Four subjects at each of six sites, under the Challenges' names; patterns and table give way to those."""
        self.site_pattern, self.subject_pattern, self.table = CHALLENGE_PREFIX, None, None
        rate = 100.0
        seconds = self.stand_in_seconds(rate)
        for number in range(24):
            made = stand_in_channels(number, rate, seconds, ("ecg", "icg"))
            known = {name.lower(): name for name in made}
            kinds = {names[0]: kind for _, names, kind in self.wanted}
            values = {c: made[known.get(c.lower(), "ICG" if k == "icg" else "II")] for c, k in kinds.items()}
            units = {c: "Ohm/s" if k == "icg" else "mV" for c, k in kinds.items()}
            prefix = ("A", "E", "HR", "JS", "Q", "S")[number % 6]
            write_channels(folder, f"{prefix}{number + 1:04d}", rate, values, units, ["Dx: 426783006"])


def record_headers(reader: Reader) -> list[Path]:
    """Headers in a reader's folder, without those that another one names as its segment or layout, which is said.

    Raises:
        FedlitError: There is none.
    """
    headers = [path for path in reader.files_to_read("WFDB records (.hea)") if path.suffix == ".hea"]
    if not headers:
        raise nothing_to_read(reader.folder_to_read("WFDB records (.hea)"), "WFDB record (.hea)")
    parts = joined(headers)
    there = [path for path in headers if path in parts]
    if there:
        whole = sorted({parts[path].stem for path in there})
        reader.say(
            f"{len(there)} header(s) are segments or layouts of {len(whole)} recording(s), and are read as parts of "
            f"those: {few(whole)}"
        )
    return [path for path in headers if path not in parts]


def diagnosis(comments: Sequence[str]) -> str | None:
    """First diagnosis code of a Challenge header's comments (SNOMED CT)."""
    for comment in comments:
        found = _DIAGNOSIS.match(comment)
        if found:
            return found.group(1).split(",")[0]
    return None
