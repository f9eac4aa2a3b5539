"""Which files of a folder are data, what their records are called, and what their folders tell."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from fedlit.data.base.names import few
from fedlit.errors import FedlitError

NO_DATA = re.compile(r"\..*|__MACOSX|Thumbs\.db|ehthumbs\.db|desktop\.ini|.*~|#.*#|~\$.*", re.IGNORECASE)
"""Names of files and folders that operating systems, archives and editors leave beside data."""
PACKED = (".gz", ".bz2", ".xz")
READERS: Mapping[str, str] = {
    **dict.fromkeys((".hea", ".dat", ".atr"), "WFDBFolder or WFDBLabels"),
    **dict.fromkeys((".edf", ".bdf"), "EDFFolder or EDFClasses"),
    **dict.fromkeys((".csv", ".tsv", ".parquet"), "SignalTable, SignalClassTable, TextTable, ImageTable or SoundTable"),
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm"), "ImageTable, with a table"),
    **dict.fromkeys((".wav", ".flac", ".mp3", ".ogg"), "SoundTable, with a table, ICBHI or SPRSound"),
    **dict.fromkeys((".conll", ".bio", ".iob"), "ConllFolder"),
    **dict.fromkeys((".con", ".rel", ".ast"), "I2B2Folder"),
    ".ann": "BratFolder",
    ".jsonl": "JSONLDocuments",
    ".npz": "MedMNIST",
    ".set": "ADFTD",
    ".mat": "VitalSigns, or, beside .hea files, WFDBFolder",
}
"""Readers that fit files of an ending."""
_SUBJECT = re.compile(
    r"(subj(ect)?|sub|patient|pat|participant|person|case|infant|volunteer|p|s)[-_ ]?\d+", re.IGNORECASE
)
_SITE = re.compile(r"(site|hosp(ital)?|cent(re|er)|clinic|ward|institut(e|ion)|lab|device)[-_ ]?\w*", re.IGNORECASE)


def data_files(root: Path) -> tuple[list[Path], list[Path]]:
    """All files in a folder and the folders in it that may be data, and those that are not; sorted, without links.

    Raises:
        FedlitError: A folder cannot be listed: none is passed over.
    """

    def stop(error: OSError) -> None:
        mend = "make the folder readable, or move it out of data.root"
        raise FedlitError(f"{error.filename}: {error.strerror}: {mend}") from error

    found: list[Path] = []
    passed: list[Path] = []
    for folder, _, names in os.walk(root, onerror=stop):
        path = Path(folder)
        away = any(NO_DATA.fullmatch(part) for part in path.relative_to(root).parts)
        for name in names:
            (passed if away or NO_DATA.fullmatch(name) else found).append(path / name)
    return sorted(found), sorted(passed)


def stem(path: Path) -> str:
    """Name of a file without its ending; of a packed one (``a.csv.gz``) without both."""
    return Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem


def inside(path: Path, root: Path) -> str:
    """Path of a file below a folder, without its ending and with ``/``; its name where ``root`` is the file itself."""
    if path == root:
        return stem(path)
    below = path.relative_to(root)
    return (below.parent / stem(below)).as_posix()


def record_names(paths: Sequence[Path], root: Path) -> dict[Path, str]:
    """Ids of the records in files: the files' names where they all differ, else the paths below ``root`` of all.

    Both are without ending.
    """
    names = {path: stem(path) for path in paths}
    if len(set(names.values())) == len(names):
        return names
    return {path: inside(path, root) for path in paths}


def folder_proposal(paths: Sequence[Path], root: Path) -> str:
    """Patterns for subjects and sites where the folders below ``root`` evidently are such; else an empty text.

    Folders are subjects, or sites, if all of a level are named so (``patient001``, ``hospital-b``); those above files
    that are named alike are taken for subjects.
    """
    parts = [inside(path, root).split("/") for path in paths]
    depth = min((len(own) - 1 for own in parts), default=0)
    levels = [sorted({own[level] for own in parts}) for level in range(depth)]
    several = [level for level, names in enumerate(levels) if len(names) > 1]
    sites = [n for n in several if all(_SITE.fullmatch(name) for name in levels[n])]
    subjects = [n for n in several if n not in sites and all(_SUBJECT.fullmatch(name) for name in levels[n])]
    if not subjects and len({own[-1] for own in parts}) < len(parts):
        subjects = [n for n in several if n not in sites][:1]
    said = [("subject", level) for level in subjects[:1]] + [("site", level) for level in sites[:1]]
    if not said:
        return ""
    patterns = [f"data.{what}_pattern '{'^' + '[^/]+/' * level + '([^/]+)/'}'" for what, level in said]
    seen = "; ".join(f"{few(levels[level], 3)} look like {what}s" for what, level in said)
    return f"the folders {seen}: set {' and '.join(patterns)}"


def nothing_to_read(root: Path, wanted: str) -> FedlitError:
    """The error where a folder holds no file of a kind: what it holds, and which reader fits.

    Args:
        root: The folder, or a file.
        wanted: What is missing (``WFDB record (.hea)``).
    """
    found = [root] if root.is_file() else data_files(root)[0]
    endings = Counter(ending(path) for path in found)
    there = [f"{count} {name or 'without ending'}" for name, count in endings.most_common(5)]
    fits = dict.fromkeys(READERS[e] for e, _ in endings.most_common(5) if e in READERS)
    holds = f"it holds {', '.join(there) or 'no file'}"
    other = f", or data.class_path to {next(iter(fits))}, which reads such files" if fits else ""
    return FedlitError(f"{root}: no {wanted}, {holds}: set data.root to the folder with them{other}")


def ending(path: Path) -> str:
    """The ending of a file's name in small letters; of a packed one (``a.csv.gz``) that of what is packed."""
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return name.suffix.lower()
