"""EEG of Alzheimer's disease, frontotemporal dementia and healthy controls: OpenNeuro ds004504."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fedlit import seeds
from fedlit.data.base.names import few
from fedlit.data.base.partitions import Partition
from fedlit.data.base.records import BadRecord
from fedlit.data.base.skews import Dirichlet
from fedlit.data.base.table_faults import no_column
from fedlit.data.base.tables import read_rows
from fedlit.data.classification.examples import Example
from fedlit.data.classification.signals import SignalClasses, unique_names
from fedlit.data.files.eeglab import read_set
from fedlit.errors import FedlitError

PARTICIPANTS = "participants.tsv"
GROUPS = {"C": "healthy", "F": "frontotemporal dementia", "A": "Alzheimer disease"}
"""Letters of the column Group, in the order of FHBench's classes (arXiv 2504.10817)."""
_CHANNELS = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T3 T4 T5 T6 Fz Cz Pz"
CHANNELS = tuple(_CHANNELS.split())
"""Electrodes of the 10-20 system in the recordings."""
RATE = 500.0
"""Hz of the recordings."""


class ADFTD(SignalClasses):
    """Resting EEG, eyes closed, of 36 patients with Alzheimer's disease, 23 with frontotemporal dementia and 29 healthy
    controls (Miltiadous et al. 2023, doi:10.3390/data8060095), as its authors cleaned it (``derivatives``).

    All come from one hospital, so there is no natural client but the participant, who is of one class and cannot be
    split. Clients are therefore made of whole participants, by a Dirichlet of the classes over 20, at least four each:
    scores of single clients are coarse, over one or two participants for test.

    With ``parity``, windows are dealt out whatever participant they are from. Not as in the code of FHBench: it counts
    windows from the middle of a recording, and pairs recordings with labels by the order in which the system lists
    folders, which need not be that of the participants.

    Args:
        root: Folder with ``participants.tsv`` and ``derivatives/sub-*/eeg/*.set``.
        channels: Some of the 19 electrodes Fp1 to Pz (any case), in the order wanted; None for all.
        rate: Hz; the recordings have 500.
        window_seconds: None for whole recordings, which differ in length and fit one batch only if cut to one.
        kwargs: See :class:`fedlit.data.classification.signals.SignalClasses`.
    """

    default_partition: ClassVar[Partition] = Dirichlet(20, 0.1, min_records=4)
    class_names = tuple(GROUPS.values())

    def __init__(
        self,
        root: Path,
        channels: list[str] | None = None,
        rate: float = 256.0,
        window_seconds: float | None = 1.0,
        **kwargs: Any,
    ) -> None:
        self.root = Path(root)
        self.channels = unique_names("channels", channels, CHANNELS)
        super().__init__(rate=rate, window_seconds=window_seconds, **kwargs)

    def read(self) -> list[Example]:
        """One example per recording."""
        layout = f"{PARTICIPANTS} and derivatives/sub-*/eeg/*.set"
        folder = self.folder_to_read(layout)
        files = sorted(folder.glob("derivatives/sub-*/eeg/*.set"))
        if not files:
            raise FedlitError(f"{folder}: no derivatives/sub-*/eeg/*.set in it: set data.root to the folder ds004504")
        table = folder / PARTICIPANTS
        rows = read_rows(table, "participant_id")
        there = list(next(iter(rows.values())))
        if "Group" not in there:
            raise FedlitError(no_column(table, "Group", there, "use the official file"))
        count = Counter(_subject(path) for path in files)
        absent = [subject for subject in rows if subject not in count]
        if absent:
            self.say(f"{table}: {len(absent)} of {len(rows)} participants have no recording: {few(absent)}")
        out = []
        for path in files:
            subject = _subject(path)
            name = subject if count[subject] == 1 else path.stem
            if self.excluded(name):
                continue
            try:
                label = _group(table, rows, subject)
            except BadRecord as error:
                self.refuse(name, str(error))
                continue
            values = self.values_of(name, path)
            out.append(Example(name, subject, "site-unknown", "eeg", (label,), values, self.rate))
        return out

    def channel_unit(self, channel: str) -> str:
        return "uV"

    def read_signals(self, path: Path) -> tuple[Mapping[str, npt.NDArray[np.floating]], float]:
        """The channels of a recording, uV."""
        read = read_set(path)
        places = {name.lower(): place for place, name in enumerate(read.names)}
        for name in self.channels:
            if name.lower() not in places:
                raise BadRecord(f"{path}: no channel {name!r}, there are {', '.join(read.names)}: set data.channels")
        return {name: read.values[places[name.lower()]] for name in self.channels}, read.rate

    def write_stand_in(self, folder: Path) -> None:
        """88 participants or more, with a few windows each."""
        from scipy.io import savemat

        clients, _ = self.stand_in_size()
        wanted = self.partition or self.usual_partition()
        each = max(16 if self.parity and not self._cuts else 4, int(getattr(wanted, "min_records", 1)))
        seconds = 8 * self.window_seconds if self.window_seconds is not None else 2.0
        names = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
        lines = ["participant_id\tGender\tAge\tGroup\tMMSE"]
        for number in range(1, max(88, clients * each + self.server_examples) + 1):
            subject, group = f"sub-{number:03d}", number % 3
            target = folder / "derivatives" / subject / "eeg"
            target.mkdir(parents=True, exist_ok=True)
            data = _stand_in_eeg(number, group, round(seconds * RATE))
            fields = {"data": data, "srate": RATE, "nbchan": len(data), "pnts": data.shape[1], "trials": 1}
            savemat(target / f"{subject}_task-eyesclosed_eeg.set", {"EEG": fields | {"chanlocs": names}})
            lines.append(f"{subject}\tF\t70\t{list(GROUPS)[group]}\t{(30, 22, 18)[group]}")
        (folder / PARTICIPANTS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _subject(path: Path) -> str:
    return path.parent.parent.name


def _group(table: Path, rows: Mapping[str, Mapping[str, str]], subject: str) -> str:
    if subject not in rows:
        raise BadRecord(f"{table}: no row for {subject}, which has a recording: add its row")
    letter = rows[subject]["Group"].strip()
    if letter not in GROUPS:
        raise BadRecord(f"{table}: Group of {subject} is {letter!r}: give one of {', '.join(GROUPS)}")
    return GROUPS[letter]


def _stand_in_eeg(number: int, group: int, samples: int) -> npt.NDArray[np.float32]:
    """Simulated: a resting rhythm, slower in the dementias, under noise; (channels, samples), uV."""
    generator = seeds.numpy_generator(0, "stand-in EEG", number)
    clock = np.arange(samples) / RATE
    frequency = (10.0, 8.5, 7.0)[group] + generator.normal(0, 0.3)
    phases = generator.uniform(0, 2 * np.pi, (len(CHANNELS), 1))
    rhythm = 20 * np.sin(2 * np.pi * frequency * clock + phases)
    noise = generator.standard_normal((len(CHANNELS), samples), np.float32)
    return np.asarray(rhythm + 10 * noise, np.float32)
