"""Pretrain a small image or sound encoder on procedural data, from which LoRA has something to adapt.

The examples are made from random parameters (procedural_images.py, procedural_sounds.py), and the network learns to
tell these: the kind of example, and the parameters that the kind has. No picture, recording or label of anything real
is read. The head is thrown away; ``fedlit.backbones.load_encoder`` reads the folders.

    OMP_NUM_THREADS=1 python scripts/pretrain_encoders.py image --out encoders/image
    OMP_NUM_THREADS=1 python scripts/pretrain_encoders.py sound --out encoders/sound
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import procedural_images
import procedural_sounds
import torch
from encoder_probe import probe
from procedural import Drawn
from torch import Tensor, nn

from fedlit.backbones.encoders.audio import AST, log_mel
from fedlit.backbones.encoders.family import EncoderFamily
from fedlit.backbones.encoders.image import ViT
from fedlit.seeds import generator, key

SIZE: dict[str, Any] = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 256,
}  # fmt: skip


class Recipe(ABC):
    """What differs between the encoders."""

    what: str
    chunk: int  # examples drawn at once: what stays in the processor's cache is drawn faster
    usual: dict[str, int]
    kinds: dict[str, tuple[str, ...]]
    parameters: tuple[str, ...]
    family: EncoderFamily

    @abstractmethod
    def draw(self, count: int, source: torch.Generator) -> Drawn:
        """Fresh examples."""

    @abstractmethod
    def build(self, x: Tensor) -> nn.Module:
        """The network with random weights; sets :attr:`family`, with settings that suit the examples ``x``."""

    @abstractmethod
    def store(self, network: nn.Module, x: Tensor) -> Tensor:
        """Examples as they are kept."""

    @abstractmethod
    def feed(self, network: nn.Module, stored: Tensor, source: torch.Generator | None) -> dict[str, Tensor]:
        """Inputs of the network; altered at random in ways that no parameter tells, if ``source`` is given."""


class Image(Recipe):
    """A ViT for textures of 28 pixels by 28."""

    what = "colour textures of 28 x 28 pixels"
    chunk = 64
    usual = {"steps": 1900, "examples": 24_000}
    kinds, parameters = procedural_images.KINDS, procedural_images.PARAMETERS

    def draw(self, count: int, source: torch.Generator) -> Drawn:
        return procedural_images.images(count, source)

    def build(self, x: Tensor) -> nn.Module:
        network = ViT.build(**SIZE, image_size=procedural_images.SIDE, patch_size=4)
        self.family = ViT.of(network.config)
        return network

    def store(self, network: nn.Module, x: Tensor) -> Tensor:
        return x

    def feed(self, network: nn.Module, stored: Tensor, source: torch.Generator | None) -> dict[str, Tensor]:
        return self.family.inputs(network, stored)


class Sound(Recipe):
    """An AST for 4 s at 8 kHz: 192 frames of 50 ms every 20 ms, 64 mel bins."""

    what = "sounds of 4 s at 8 kHz"
    chunk = 8
    usual = {"steps": 1500, "examples": 12_000}
    kinds, parameters = procedural_sounds.KINDS, procedural_sounds.PARAMETERS
    frames, mel_bins = 192, 64

    def draw(self, count: int, source: torch.Generator) -> Drawn:
        return procedural_sounds.sounds(count, source)

    def build(self, x: Tensor) -> nn.Module:
        logarithms = log_mel(x, procedural_sounds.RATE, self.mel_bins)
        mean, deviation = round(float(logarithms.mean()), 4), round(float(logarithms.std()), 4)
        self.family = AST(procedural_sounds.RATE, self.mel_bins, self.frames, mean, deviation)
        return AST.build(
            **SIZE, num_mel_bins=self.mel_bins, max_length=self.frames, patch_size=16, frequency_stride=16,
            time_stride=16,
        )  # fmt: skip

    def store(self, network: nn.Module, x: Tensor) -> Tensor:
        return self.family.inputs(network, x)["input_values"].half()

    def feed(self, network: nn.Module, stored: Tensor, source: torch.Generator | None) -> dict[str, Tensor]:
        values = stored.float()
        if source is not None:  # half of them start elsewhere, with their start at the end
            at = torch.randint(self.frames, (len(values), 1), generator=source)
            at = at * (torch.rand(len(values), 1, generator=source) < 0.5)
            index = (torch.arange(self.frames) + at) % self.frames
            values = values.gather(1, index[..., None].expand_as(values))
        return {"input_values": values}


RECIPES: dict[str, type[Recipe]] = {"image": Image, "sound": Sound}


def draw_all(recipe: Recipe, network: nn.Module, count: int, seed: int, purpose: str) -> Drawn:
    """``count`` examples, stored, with their targets; chunks are keyed one by one."""
    parts = []
    for number in range(math.ceil(count / recipe.chunk)):
        part = recipe.draw(recipe.chunk, generator(seed, purpose, number))
        parts.append(Drawn(recipe.store(network, part.x), part.kind, part.values))
    x, kind, values = (torch.cat([getattr(part, name) for part in parts])[:count] for name in ("x", "kind", "values"))
    return Drawn(x, kind, values)


def losses(outputs: Tensor, kind: Tensor, values: Tensor, kinds: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the kind; mean square of the parameters that there are, each with a variance of about 1."""
    there = ~values.isnan()
    square = (outputs[:, kinds:] - values.nan_to_num()).square()
    return nn.functional.cross_entropy(outputs[:, :kinds], kind), square[there].mean()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over a twentieth, then cosine to 0."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(recipe: Recipe, network: nn.Module, head: nn.Module, data: Drawn, args: argparse.Namespace) -> list[dict]:
    """In place; returns the loss curve, means over up to 100 steps."""
    modules = nn.ModuleList([network, head])
    optimizer = torch.optim.AdamW(modules.parameters(), args.rate, betas=(0.9, 0.98), weight_decay=0.05)
    rows, recent, began = [], [], time.time()
    for step in range(args.steps):
        optimizer.param_groups[0]["lr"] = learning_rate(step, args.steps, args.rate)
        source = generator(args.seed, "encoder batch", step)
        chosen = torch.randint(len(data.x), (args.batch,), generator=source)
        inputs = recipe.feed(network, data.x[chosen], source)
        outputs = head(recipe.family.pooled(network, inputs))
        both = losses(outputs, data.kind[chosen], data.values[chosen], len(recipe.kinds))
        (both[0] + 2 * both[1]).backward()
        nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append([float(one.detach()) for one in both])
        if len(recent) == 100 or step + 1 == args.steps:
            kind, values = (sum(one) / len(recent) for one in zip(*recent, strict=True))
            rows.append({"step": step + 1, "kind": round(kind, 4), "parameters": round(values, 4)})
            print(rows[-1] | {"seconds": round(time.time() - began, 1)}, flush=True)
            recent = []
    return rows


@torch.no_grad()
def explained(recipe: Recipe, network: nn.Module, head: nn.Module, data: Drawn) -> dict[str, Any]:
    """On other examples: accuracy of the kind, and the share of each parameter's variance that is explained."""
    parts = data.x.split(64)
    outputs = torch.cat([head(recipe.family.pooled(network, recipe.feed(network, part, None))) for part in parts])
    kinds = len(recipe.kinds)
    found = {}
    for number, name in enumerate(recipe.parameters):
        wanted = data.values[:, number]
        there = ~wanted.isnan()
        error = (outputs[there, kinds + number] - wanted[there]).square().mean()
        found[name] = round(float(1 - error / wanted[there].var(correction=0)), 3)
    accuracy = float((outputs[:, :kinds].argmax(-1) == data.kind).float().mean())
    return {"examples": len(data.x), "kind_accuracy": round(accuracy, 3), "explained_variance": found}


CARD = """---
license: apache-2.0
library_name: transformers
tags: [procedural, synthetic, fedlit]
---
# A small {name} encoder, pretrained on procedural data

{architecture} of {parameters:,} parameters, **pretrained on procedural data only** by `scripts/pretrain_encoders.py`:
{what}, made on the fly from random parameters. No picture, recording or label of anything real was read. It is a
stand-in where no pretrained weights can be had: it is not comparable to a network trained on pictures or recordings.

| | |
|---|---|
| architecture | width 128, 4 layers, 4 heads, 256 within a layer, no dropout |
| data | {examples:,} examples of {kinds} kinds ({kind_names}), drawn once from the seed |
| task | tell the kind (cross-entropy) and {targets} of the generator's parameters, where an example has them (twice the mean square); a linear head on the features, thrown away |
| optimisation | {steps:,} steps of {batch}, AdamW, peak rate {rate}, warm-up of a twentieth, cosine to 0, float32 |
| seed | {seed} |
| time | {seconds:.0f} s in all, of it {drawing:.0f} s to draw the examples and {training:.0f} s to train; {processor:.1f} minutes of processor, 1 thread |
| loss in training (kind, parameters) | {first} at the start, {last} at the end |
| kind, on {held_out:,} other examples | {accuracy:.1%} right (chance {chance:.1%}) |

Linear probe of the frozen features on simulated examples of `fedlit.data` ({simulated}, {subjects} subjects, half of
them tested; not used in pretraining), mean accuracy over {seeds} populations: pretrained **{pretrained:.1%}**, the same
network with random weights {random:.1%}, commonest class {commonest:.1%}.

| parameter | share of its variance explained, on other examples |
|---|---|
{table}

Rebuild: `{command}`
(the same bytes on the same processor type and library versions; elsewhere equal up to rounding).
"""  # noqa: E501


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--held-out", type=int, default=2048)
    parser.add_argument("--subjects", type=int, default=120, help="of the simulated data of the probe")
    args = parser.parse_args()
    for name, value in RECIPES[args.name].usual.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main() -> None:
    args = arguments()
    torch.set_num_threads(1)
    began, processor = time.time(), time.process_time()
    recipe = RECIPES[args.name]()
    with torch.random.fork_rng():
        torch.manual_seed(key(args.seed, "encoder weights", args.name))
        network = recipe.build(recipe.draw(256, generator(args.seed, "encoder scale")).x)
        head = nn.Linear(recipe.family.width(network), len(recipe.kinds) + len(recipe.parameters))
    random = copy.deepcopy(network).eval()
    data = draw_all(recipe, network, args.examples, args.seed, "encoder examples")
    drawing = time.time() - began
    print(f"drew {args.examples} examples in {drawing:.0f} s", flush=True)
    curve = train(recipe, network.train(), head, data, args)
    training = time.time() - began - drawing
    network.eval()
    held_out = explained(recipe, network, head, draw_all(recipe, network, args.held_out, args.seed, "held out"))
    print(json.dumps(held_out, indent=1), flush=True)
    probed = probe({"pretrained": network, "random": random}, recipe.family, args.subjects, procedural_sounds.SECONDS)
    print("linear probe:", probed, flush=True)
    spent = {"drawing": drawing, "training": training, "seconds": time.time() - began}
    spent |= {"processor": (time.process_time() - processor) / 60}
    write(args, recipe, network, {"loss": curve, "held_out": held_out, "probe": probed, "spent": spent})


def write(args: argparse.Namespace, recipe: Recipe, network: nn.Module, found: dict[str, Any]) -> None:
    """Weights, configuration, preprocessor, card, and pretraining.json with all that was found."""
    args.out.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(args.out)
    (args.out / "model.safetensors").chmod(0o644)
    recipe.family.save(args.out)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    (args.out / "pretraining.json").write_text(
        json.dumps({"data": f"procedural: {recipe.what}", "settings": settings} | found, indent=1) + "\n"
    )
    curve, held_out, probed = found["loss"], found["held_out"], found["probe"]
    first, last = (f"{row['kind']:.3f}, {row['parameters']:.3f}" for row in (curve[0], curve[-1]))
    mean = {name: sum(values) / len(values) for name, values in probed.items()}
    given = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items() if name != "name")
    architecture = {"image": "A ViT", "sound": "An AST"}[args.name]
    (args.out / "README.md").write_text(CARD.format(
        name=args.name, architecture=architecture, what=recipe.what, **found["spent"],
        parameters=sum(parameter.numel() for parameter in network.parameters()), examples=args.examples,
        kinds=len(recipe.kinds), kind_names=", ".join(recipe.kinds), targets=len(recipe.parameters), steps=args.steps,
        batch=args.batch, rate=args.rate, seed=args.seed, first=first, last=last, held_out=held_out["examples"],
        accuracy=held_out["kind_accuracy"], chance=1 / len(recipe.kinds), subjects=args.subjects,
        simulated={"image": "SimulatedImages", "sound": "SimulatedSounds"}[args.name],
        seeds=len(probed["random"]), pretrained=mean["pretrained"], random=mean["random"], commonest=mean["chance"],
        table="\n".join(f"| {name} | {value:.2f} |" for name, value in held_out["explained_variance"].items()),
        command=f"OMP_NUM_THREADS=1 python scripts/pretrain_encoders.py {args.name} --out FOLDER {given}",
    ))  # fmt: skip


if __name__ == "__main__":
    main()
