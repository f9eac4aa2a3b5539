"""List the backbones: modality, parameters, what LoRA trains, and the memory that training takes.

No weights are read: see :mod:`fedlit.backbones.memory`.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fedlit.backbones.memory import Memory, Precision
from fedlit.cli.arguments import Parser
from fedlit.errors import FedlitError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fedlit.backbones.storage import Storage

WAYS: dict[str, tuple[Precision, bool]] = {
    "32-true": ("32-true", False),
    "32 + ckpt": ("32-true", True),
    "bf16-mixed": ("bf16-mixed", False),
    "bf16 + ckpt": ("bf16-mixed", True),
}
"""Columns: the trainer's precision, and the task's ``gradient_checkpointing``."""

LANGUAGE_WAYS: dict[str, tuple[Storage, Precision, bool]] = {
    "float32": ("float32", "32-true", False),
    "f32+ckpt": ("float32", "32-true", True),
    "bfloat16": ("bfloat16", "bf16-mixed", False),
    "bf16+ckpt": ("bfloat16", "bf16-mixed", True),
    "4-bit": ("nf4", "bf16-mixed", False),
    "4-bit+ckpt": ("nf4", "bf16-mixed", True),
}
"""Columns of language models: how frozen weights are stored, the trainer's precision, ``gradient_checkpointing``."""

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Args:
        name: Folder or id of the backbone.
        modality: Of its inputs.
        parameters: Number of parameters, without adapters and without heads of the published files.
        trainable: Number of parameters of the adapters.
        memory: Estimate by column; None where the network cannot be trained in this way.
    """

    name: str
    modality: str
    parameters: int
    trainable: int
    memory: dict[str, Memory | None]

    @property
    def is_language_model(self) -> bool:
        """Whether the backbone writes text; language models have a table with other columns."""
        return self.modality == "language"


def line(name: str, batch_size: int | None = None, length: int | None = None, r: int = 8) -> Line:
    """The line of one backbone.

    Args:
        name: One of :data:`fedlit.backbones.known.KNOWN`, a folder, or a Hub id whose settings are then read.
        batch_size: None: 32, of a language model 4.
        length: Tokens of a text, samples of a sound or signal.
        r: Rank of the adapters, which are on the backbone's default targets.

    Raises:
        FedlitError: The backbone cannot be read, its architecture is not known, or it cannot take this length.
    """
    import torch

    from fedlit.backbones.checkpointing import can_checkpoint
    from fedlit.backbones.folders import quiet
    from fedlit.backbones.known import sketch
    from fedlit.backbones.lora import LoRA, attach
    from fedlit.backbones.memory import estimate
    from fedlit.backbones.storage import measurable

    def loss(network: nn.Module) -> Callable[[], Tensor]:
        return drawn.loss(network, batch_size, length)

    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = sketch(name)
        parameters = sum(p.numel() for p in drawn.network.parameters())
        ways = LANGUAGE_WAYS if drawn.is_language_model else {way: ("float32", *rest) for way, rest in WAYS.items()}
        memory: dict[str, Memory | None] = {}
        held = None
        for way, (storage, precision, ckpt) in ways.items():
            if storage != held:
                bare = drawn.network if held is None else sketch(name).network
                with torch.device("meta"):
                    targets = drawn.family.targets(pretrained=True)
                    network = attach(measurable(bare, storage), LoRA(r=r), targets, 0, name)
                held = storage
            try:
                possible = not ckpt or can_checkpoint(network)
                memory[way] = estimate(network, loss, precision, ckpt) if possible else None
            except RuntimeError as error:
                what = f"an input of length {length}" if length else "the usual input"
                raise FedlitError(f"backbone {name!r} cannot take {what}: {first_line(error)}") from error
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Line(name, drawn.modality, parameters, trainable, memory)


def size(text: str) -> int:
    """Bytes of a size such as ``24GB`` (24e9) or ``40 GiB``.

    Raises:
        FedlitError: The text is not a size above zero.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?B)\s*", text.upper())
    if not found or found[2] not in UNITS or float(found[1]) <= 0:
        raise FedlitError(f"--fits {text!r} is no size: write it as 24GB or 40GiB")
    return int(float(found[1]) * UNITS[found[2]])


def heading(language: bool = False) -> str:
    """The table's first line."""
    if language:
        return f"{'language model':40} {'parameters':>10} {'LoRA':>9}" + "".join(f"{way:>11}" for way in LANGUAGE_WAYS)
    return f"{'backbone':40} {'modality':8} {'parameters':>10} {'LoRA':>9}" + "".join(f"{way:>13}" for way in WAYS)


def row(line: Line, limit: int | None = None) -> str:
    """A line as text for a terminal; estimates above ``limit`` bytes are in brackets."""

    def cell(memory: Memory | None) -> str:
        if memory is None:
            return "-"
        giga = memory.total / 1e9
        shown = f"{giga:.1f} GB" if line.is_language_model and giga >= 10 else f"{giga:.2f} GB"
        return f"({shown})" if limit is not None and memory.total > limit else shown

    counts = f"{line.parameters / 1e6:8.1f} M {line.trainable / 1e6:7.2f} M"
    if line.is_language_model:
        return f"{line.name:40} {counts}" + "".join(f"{cell(line.memory[way]):>11}" for way in LANGUAGE_WAYS)
    return f"{line.name:40} {line.modality:8} {counts}" + "".join(f"{cell(line.memory[way]):>13}" for way in WAYS)


def fits(line: Line, limit: int) -> bool:
    """Whether one of the columns is within ``limit`` bytes."""
    return any(memory is not None and memory.total <= limit for memory in line.memory.values())


def legend(tables: Collection[bool], batch_size: int | None, length: int | None, r: int) -> str:
    """The text below the tables.

    Args:
        tables: True if there is one of language models, False if there is one of other backbones.
        batch_size: As :func:`line` takes it, and so the others.
    """
    from fedlit.backbones.known import AUDIO_SECONDS, BATCH, CONTEXT, HORIZON, LANGUAGE_BATCH, TEXT_LENGTH, TOKENS

    out = [
        f"Memory to train one client's LoRA of rank {r} on the default targets with AdamW: weights, optimizer, and the "
        "most that activations and gradients take at one time."
    ]
    if False in tables:
        usual = (
            f"texts of {TEXT_LENGTH} tokens, sounds of {AUDIO_SECONDS} s, signals of {CONTEXT} samples of one channel"
        )
        long = f"{length} tokens or samples" if length else usual
        out.append(
            f"Backbones at a batch of {batch_size or BATCH}: {long}, images at the network's own size. Chronos models "
            f"forecast {HORIZON} samples; the others give features."
        )
    if True in tables:
        out.append(
            f"Language models at a batch of {batch_size or LANGUAGE_BATCH} texts of {length or TOKENS} tokens, the "
            "loss on every token. float32, bfloat16: what frozen weights are held in (`model.dtype`); 4-bit: linear "
            "layers but the head in NF4 with double quantisation (`model.quantization: nf4`), computing in bfloat16, "
            "and the rest held in bfloat16. Adapters and optimizer are float32. The precision is 32-true for float32, "
            "and bf16-mixed for the others."
        )
    out.append(
        "ckpt: with `model.gradient_checkpointing`; -: the network cannot. Estimated for this machine's kind of "
        "device; the framework itself and a GPU's context (about 0.5 GB) come on top."
    )
    return " ".join(out)


def convert_pickles(args: Sequence[str]) -> None:
    """``fedlit backbones convert SOURCE FOLDER``."""
    about = "Write safetensors, settings and tokenizer of a backbone whose weights were published as pickles."
    parser = Parser("backbones convert", about)
    parser.add_argument("source", metavar="SOURCE", help="Hub id, or folder, with pytorch_model.bin; or id@revision")
    parser.add_argument("folder", metavar="FOLDER", help="a new one, to be given as model.backbone")
    given = parser.parse_args(args)
    from fedlit.backbones.conversion import convert

    done = convert(given.source, given.folder)
    for name, digest in done.pickles.items():
        print(f"read {name} of {done.source}, SHA-256 {digest}")
    print(f"{given.folder}: {done.tensors} tensors, {done.parameters / 1e6:.1f} M parameters, digest {done.digest}")
    print(f"to train it: --model.backbone {given.folder}")


def main(args: Sequence[str]) -> None:
    """``fedlit backbones``, and ``fedlit backbones convert SOURCE FOLDER``."""
    if args[:1] == ["convert"]:
        convert_pickles(args[1:])
        return
    more = "`fedlit backbones convert SOURCE FOLDER` writes safetensors of a backbone that was published as a pickle."
    parser = Parser("backbones", (__doc__ or "").splitlines()[0], epilog=more)
    parser.add_argument("--model", action="append", metavar="FOLDER_OR_ID", help="this one; may be given again")
    parser.add_argument("--batch_size", type=int, help="32 if left out, of language models 4")
    parser.add_argument("--length", type=int, help="tokens of a text, samples of a sound or signal")
    parser.add_argument("--r", type=int, default=8, help="rank of the adapters")
    parser.add_argument("--fits", metavar="24GB", help="only those that can be trained within so much memory")
    given = parser.parse_args(args)
    for name in ("batch_size", "length"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise FedlitError(f"fedlit backbones: --{name} is {value}: give at least 1")
    if given.length and not given.model:
        raise FedlitError("fedlit backbones: --length means something else to each modality: give --model too")
    limit = None if given.fits is None else size(given.fits)
    from fedlit.backbones.known import KNOWN

    left_out: list[str] = []
    tables: list[bool] = []
    for name in given.model or KNOWN:
        found = line(name, given.batch_size, given.length, given.r)
        # after the first line, so that of a backbone that cannot be read only the error is printed
        if tables[-1:] != [found.is_language_model]:
            print("\n" * bool(tables) + heading(found.is_language_model))
            tables.append(found.is_language_model)
        if limit is None or fits(found, limit):
            print(row(found, limit), flush=True)
        else:
            left_out.append(name)
    print()
    if left_out:
        print("\n".join(textwrap.wrap(f"Larger than {given.fits} in every way: {', '.join(left_out)}", 120)))
    brackets = "" if limit is None else f" In brackets: more than {given.fits}."
    print("\n".join(textwrap.wrap(legend(tables, given.batch_size, given.length, given.r) + brackets, 120)))
