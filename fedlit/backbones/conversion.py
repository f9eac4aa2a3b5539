"""Weights that were published as pickles, written as safetensors once; pickles are read nowhere else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fedlit.backbones.digest import frozen_digest
from fedlit.backbones.folders import SETTINGS, from_hub, local_folder, read_json
from fedlit.errors import FedlitError

PICKLE = "pytorch_model.bin"
INDEX, NEW_INDEX = f"{PICKLE}.index.json", "model.safetensors.index.json"
RECORD = "conversion.json"
PROGRAM = Path(__file__).with_name("unpickling.py")
KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR", "TEMP", "LANG")
"""All of the environment that the program that reads a pickle is given."""


@dataclass(frozen=True)
class Converted:
    """What was written; ``conversion.json`` of the folder says the same.

    Args:
        source: Folder, or Hub id and revision.
        pickles: SHA-256 of each file that was read, by name; the Hub shows it on the file's page.
        tensors: Their number.
        parameters: Number of values in them.
        digest: Of all tensors, see :func:`fedlit.backbones.digest.frozen_digest`; equal at all who converted the same.
    """

    source: str
    pickles: dict[str, str]
    tensors: int
    parameters: int
    digest: str


def convert(source: str, folder: Path | str) -> Converted:
    """Write a folder for ``model.backbone`` from one, or from a Hub repository, that holds ``pytorch_model.bin`` only.

    Each pickle is read by :mod:`fedlit.backbones.unpickling` in a process of its own, with ``weights_only``, without
    network and credentials. Names, dtypes and values stay, but ``LayerNorm.gamma`` and ``beta`` of old files, which
    become ``weight`` and ``bias``. Files in parts stay in as many. Settings and tokenizer are copied.

    Args:
        source: Folder, or Hub id, which may end in ``@revision``.
        folder: New; it is whole or absent.

    Raises:
        FedlitError: There is something at ``folder``; the source cannot be had, has safetensors or no pickle; a pickle
            asks for more than tensors, or is not whole; the disk is full.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FedlitError(f"{target} is there already: give a new folder")
    found, where = _source(source)
    pickles = {name: _sha256(found / name) for name in _parts(found)}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-unfinished-", dir=target.parent.resolve()))
    except OSError as error:
        raise FedlitError(f"{target} could not be written ({error.strerror}): give another folder") from error
    try:
        draft.chmod(0o755)
        written = [_converted(found / name, draft) for name in pickles]
        _copy_settings(found, draft)
        if (found / INDEX).is_file():
            _write_index(draft, written)
        about = _about(where, pickles, written)
        (draft / RECORD).write_text(json.dumps(asdict(about), indent=2) + "\n")
        os.replace(draft, target)
    except OSError as error:
        raise FedlitError(f"{target} could not be written ({error.strerror}): free some space") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return about


def _source(name: str) -> tuple[Path, str]:
    """The folder with the pickles, and what it is called in the record."""
    folder = local_folder(name)
    where = str(folder)
    if folder is None:
        folder = from_hub(name, [*SETTINGS, "*.safetensors"])
        if not any(folder.glob("*.safetensors")):
            folder = from_hub(name, [*SETTINGS, PICKLE, "pytorch_model-*.bin"])
        where = f"{name} at revision {folder.name}"
    if any(folder.glob("*.safetensors")):
        raise FedlitError(f"{name} holds safetensors and needs no conversion: give it as model.backbone")
    if not (folder / "config.json").is_file():
        raise FedlitError(f"{name}: {folder} holds no config.json: give a model as transformers saves it")
    return folder, where


def _parts(folder: Path) -> list[str]:
    """Names of the pickles.

    Raises:
        FedlitError: There are none, or not all.
    """
    parts = [PICKLE]
    if (folder / INDEX).is_file():
        places = read_json(folder / INDEX).get("weight_map")
        names = {str(name) for name in places.values()} if isinstance(places, dict) else set()
        if not names or any(Path(name).name != name or not name.endswith(".bin") for name in names):
            raise FedlitError(
                f"{folder / INDEX} does not say which files of its folder hold the weights: copy it again"
            )
        parts = sorted(names)
    if absent := [name for name in parts if not (folder / name).is_file()]:
        raise FedlitError(f"{folder} holds no {absent[0]}: give a folder or Hub id of a model of transformers")
    return parts


def _converted(pickle: Path, folder: Path) -> Path:
    """The file of tensors that another process made of a pickle.

    Raises:
        FedlitError: It refused to.
    """
    out = folder / f"{pickle.stem.replace('pytorch_model', 'model')}.safetensors"
    environment = {name: os.environ[name] for name in KEPT if name in os.environ} | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "HOME": str(folder),
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, "-P", "-W", "ignore", str(PROGRAM), str(pickle.absolute()), str(out)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    if done.returncode == 1 and len(said := done.stderr.strip().splitlines()) == 1:
        raise FedlitError(
            f"{pickle} {said[0]}: download it again and compare its SHA-256 with the publisher's, or take another "
            "backbone"
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1][:200]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"code {done.returncode}"
        raise FedlitError(
            f"{pickle} could not be read: the process that read it ended with {how} and said {last!r}. Convert it "
            "where there is more memory and space, or take another backbone"
        )
    return out


def _write_index(folder: Path, files: Sequence[Path]) -> None:
    from safetensors import safe_open

    places: dict[str, str] = {}
    size = 0
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name in places:
                    raise FedlitError(f"{name} is in {places[name]} and in {path.name}: download the weights again")
                places[name] = path.name
        size += path.stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
    (folder / NEW_INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _copy_settings(source: Path, target: Path) -> None:
    # one folder down too: sentence encoders have 1_Pooling/config.json
    places = [place for name in SETTINGS for place in (name, f"*/{name}")]
    for path in sorted({path for place in places for path in source.glob(place)}):
        if path.is_file() and path.name not in (INDEX, RECORD):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _about(source: str, pickles: dict[str, str], files: Sequence[Path]) -> Converted:
    from safetensors.torch import load_file

    tensors = {name: value for path in files for name, value in load_file(path).items()}
    parameters = sum(value.numel() for value in tensors.values())
    return Converted(source, pickles, len(tensors), parameters, frozen_digest(tensors))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if file.read(16) == b"version https://":
                raise FedlitError(f"{path} is a pointer of Git LFS and no weights: run `git lfs pull` in its folder")
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FedlitError(f"{path} cannot be read ({error.strerror}): copy it again") from error
