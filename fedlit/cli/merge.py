"""``fedlit merge``: clients' exported models merged into one, from files and without a run (data vectors).

A model is a folder as PEFT or transformers writes it, or one ``.safetensors`` file of whole weights. Nothing but
safetensors and JSON is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fedlit import seeds
from fedlit.aggregators.task_vectors import Mode, TaskVectors, add, merge
from fedlit.cli.arguments import Parser
from fedlit.errors import FedlitError
from fedlit.tree import Tree

ADAPTER = "adapter_config.json"
INERT = {"auto_mapping", "inference_mode", "init_lora_weights", "lora_dropout", "peft_version", "revision",
         "runtime_config"}  # fmt: skip
"""Keys of an adapter's configuration that do not change what its tensors mean."""


@dataclass(frozen=True)
class Exported:
    """A model read from files.

    Args:
        path: Folder or file that it was read from.
        tensors: By name.
        configs: Contents of its JSON files, by file name.
    """

    path: Path
    tensors: dict[str, Tensor]
    configs: dict[str, Any]

    @property
    def adapter(self) -> dict[str, Any] | None:
        """PEFT's settings; None for whole weights."""
        return self.configs.get(ADAPTER)


def merge_models(
    clients: Sequence[Path | str],
    out: Path | str,
    base: Path | str | None = None,
    mode: Mode = "ties",
    coefficient: float = 1.0,
    density: float = 0.2,
    seed: int = 0,
) -> Path:
    """Merge models by :class:`~fedlit.aggregators.TaskVectors`, ``base + coefficient * merge(clients - base)``.

    Args:
        clients: The clients' models, for instance ``<run>/adapters/clients/<client>``.
        out: New folder for the merged model, which PEFT (or transformers) loads like any other.
        base: What all of them started from. None, for LoRA adapters only, takes zeros: A and B themselves are merged,
            as by PEFT's ``add_weighted_adapter``.
        mode: ``sum``, ``mean``, ``ties`` or ``dare``.
        coefficient: What the merged vector is multiplied by.
        density: Share of the entries that stay, with ``ties`` and ``dare``.
        seed: Of the draw of the entries that stay, with ``dare``.

    Returns:
        The new folder.

    Raises:
        FedlitError: A model cannot be read, is not finite, or does not fit the others; the output is there already.
    """
    rule = TaskVectors(mode, coefficient, density)
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FedlitError(f"{target} is there already: give --out a new folder")
    models = [read_model(path) for path in clients]
    if not models:
        raise FedlitError("there is no client to merge: give --clients one or more models")
    places = [model.path.resolve() for model in models]
    if twice := [path for path in places if places.count(path) > 1]:
        raise FedlitError(f"{twice[0]} is given twice, and would count twice: leave one out")
    start = _zeros(models[0]) if base is None else read_model(base)
    for model in models:
        _check_fits(model, start)
    fixed = {name for name, value in start.tensors.items() if not value.is_floating_point()}
    for model in models:
        if moved := sorted(name for name in fixed if not torch.equal(model.tensors[name], start.tensors[name])):
            raise FedlitError(f"{model.path}: {moved[0]} holds whole numbers and differs from {start.path}'s")
    params: dict[str, Tree] = {name: value for name, value in sorted(start.tensors.items()) if name not in fixed}
    vectors: list[Tree] = [
        {name: model.tensors[name].double() - start.tensors[name].double() for name in params} for model in models
    ]
    merged = merge(vectors, rule.mode, rule.density, seeds.generator(seed, "merge"))
    tensors = {**start.tensors, **add(params, merged, rule.coefficient)}
    record = {
        "base": None if base is None else str(base), "clients": [str(model.path) for model in models], "mode": mode,
        "coefficient": coefficient, "density": density, "seed": seed,
    }  # fmt: skip
    _write(target, Exported(target, tensors, start.configs), record)
    return target


def read_model(path: Path | str) -> Exported:
    """A model from a PEFT folder, a transformers folder, or a safetensors file.

    Raises:
        FedlitError: The path is none of these, or a tensor is not finite.
    """
    place = Path(path)
    if place.is_file() and place.suffix == ".safetensors":
        return Exported(place, _tensors(place), {})
    if not place.is_dir():
        raise FedlitError(f"{place} is neither a folder nor a .safetensors file: name a model that was exported")
    configs = {file.name: _json(file) for file in sorted(place.glob("*config.json"))}
    if ADAPTER in configs:
        files = [place / "adapter_model.safetensors"]
    elif (index := place / "model.safetensors.index.json").exists():
        names = _json(index).get("weight_map")
        if not isinstance(names, dict) or not names or any(Path(str(name)).name != name for name in names.values()):
            raise FedlitError(f"{index} does not say which files of this folder hold the weights: save the model anew")
        files = [place / name for name in sorted(set(names.values()))]
    else:
        files = [place / "model.safetensors"]
    if missing := [file for file in files if not file.is_file()]:
        raise FedlitError(f"{place} holds no {missing[0].name}: name a folder that PEFT or transformers saved")
    return Exported(place, {name: value for file in files for name, value in _tensors(file).items()}, configs)


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise FedlitError(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise FedlitError(f"{file} is not a table of settings")
    return value


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise FedlitError(f"{file} cannot be read as safetensors ({error})") from error
    for name, value in sorted(tensors.items()):
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise FedlitError(f"{file}: {name} is not finite; leave this model out")
    return tensors


def _zeros(like: Exported) -> Exported:
    """Zeros in the shapes of an adapter, as the start of adapters that are given without ``base``."""
    if like.adapter is None:
        raise FedlitError(f"{like.path} holds whole weights: give --base the model that all clients started from")
    whole = sorted(name for name in like.tensors if not (".lora_A." in name or ".lora_B." in name))
    if whole:
        raise FedlitError(f"{like.path}: {whole[0]} is no LoRA matrix: give --base what all clients started from")
    return Exported(like.path, {name: torch.zeros_like(value) for name, value in like.tensors.items()}, like.configs)


def _check_fits(model: Exported, base: Exported) -> None:
    """Refuse a model that the base cannot be subtracted from.

    Raises:
        FedlitError: Names, shapes, dtypes, ranks or adapters differ.
    """
    if (model.adapter is None) != (base.adapter is None):
        kinds = ("whole weights" if own.adapter is None else "an adapter" for own in (model, base))
        raise FedlitError(f"{model.path} holds {next(kinds)}, {base.path} {next(kinds)}: give models of one kind")
    mine, theirs = _meaning(model.adapter), _meaning(base.adapter)
    if differ := sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)):
        key = next((key for key in ("r", "lora_alpha") if key in differ), differ[0])
        raise FedlitError(
            f"{model.path}: {ADAPTER} has {key} {mine.get(key)!r}, {base.path} has {theirs.get(key)!r}: adapters that "
            "are merged must be alike"
        )
    if names := sorted(model.tensors.keys() ^ base.tensors.keys()):
        here = "has" if names[0] in model.tensors else "lacks"
        raise FedlitError(f"{model.path} {here} {names[0]}, unlike {base.path}: give models of one network")
    for name, value in sorted(base.tensors.items()):
        other = model.tensors[name]
        if (other.shape, other.dtype) != (value.shape, value.dtype):
            seen, wanted = (f"{t.dtype}{list(t.shape)}" for t in (other, value))
            raise FedlitError(f"{model.path} has {name} as {seen}, {base.path} as {wanted}: give models of one network")


def _meaning(adapter: Mapping[str, Any] | None) -> dict[str, Any]:
    """An adapter's settings without the :data:`INERT` ones; lists, whose order means nothing, are sorted."""
    kept = {key: value for key, value in (adapter or {}).items() if key not in INERT}
    return {key: sorted(map(str, value)) if isinstance(value, list) else value for key, value in kept.items()}


def _write(folder: Path, model: Exported, record: Mapping[str, Any]) -> None:
    name = "model.safetensors" if model.adapter is None else "adapter_model.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: value.contiguous() for key, value in sorted(model.tensors.items())}
        save_file(tensors, folder / name, metadata={"format": "pt"})  # without it transformers refuses the file
        for file, content in [*model.configs.items(), ("merge.json", record)]:
            (folder / file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    except (OSError, SafetensorError) as error:
        raise FedlitError(f"{folder} could not be written ({getattr(error, 'strerror', error)})") from error


def main(args: list[str]) -> None:
    """``fedlit merge --clients FOLDER ... --out FOLDER [--base FOLDER] [--mode ties]``.

    Raises:
        FedlitError: As :func:`merge_models`, or the arguments are wrong.
    """
    parser = Parser("merge", "Merge clients' exported models into one.")
    parser.add_argument("--clients", nargs="+", required=True, metavar="MODEL", help="PEFT or transformers folders")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="a new folder for the merged model")
    parser.add_argument("--base", metavar="MODEL", help="what they started from (LoRA: left out, A and B are merged)")
    parser.add_argument("--mode", choices=get_args(Mode), default="ties", help="how to merge (%(default)s)")
    parser.add_argument("--coefficient", type=float, default=1.0, help="of the merged vector (%(default)s)")
    parser.add_argument("--density", type=float, default=0.2, help="share kept by ties and dare (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of what dare keeps (%(default)s)")
    given = vars(parser.parse_args(args))
    folder = merge_models(**given)
    print(f"{given['mode']} of {len(given['clients'])} models written to {folder}")
