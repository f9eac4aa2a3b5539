"""Procedural colour textures, 28 pixels by 28, made on the fly: nothing is read, no picture of anything is used.

Discs (cells, holes), rings, fibres, clouds and speckle in random colours or in the colours that two stains of random
hue and depth give by Beer and Lambert's law; then blur and noise.
"""

from __future__ import annotations

import math

import torch
from procedural import Drawn, Draws, parts_of
from torch import Tensor
from torch.nn import functional

SIDE = 28
MOST_CELLS = 36
KINDS: dict[str, tuple[str, ...]] = {
    "clouds": ("clouds",),
    "cells": ("cells",),
    "fibres": ("fibres",),
    "cells on fibres": ("cells", "fibres"),
    "holes": ("holes",),
    "rings": ("rings",),
    "speckle": ("speckle",),
    "cells between holes": ("cells", "holes"),
}
PARAMETERS = (
    "cells: number", "cells: radius", "cells: red", "cells: green", "cells: blue", "cells: contrast",
    "fibres: wavelength", "fibres: sin of twice the angle", "fibres: cos of twice the angle", "fibres: waviness",
    "fibres: contrast", "holes: number", "holes: radius", "rings: radius", "rings: thickness", "clouds: depth",
    "clouds: slope right", "clouds: slope down", "speckle: depth", "speckle: grain", "ground: red", "ground: green",
    "ground: blue", "blur", "noise",
)  # fmt: skip
STAINS = torch.tensor([[0.65, 0.70, 0.29], [0.10, 0.95, 0.25]])
"""Optical densities of red, green and blue, near those of a purple and of a pink dye."""


def images(count: int, generator: torch.Generator) -> Drawn:
    """``count`` textures, uint8 (count, 28, 28, 3), each kind as likely as another."""
    draws = Draws(count, generator)
    kind = torch.randint(len(KINDS), (count,), generator=generator)
    has = parts_of(kind, KINDS)
    ground, cell_colour, fibre_colour, bright = _colours(draws, has)
    picture = ground[:, :, None, None] * _shade(draws, has)
    picture = _over(picture, fibre_colour, _fibres(draws, has["fibres"]))
    picture = _over(picture, bright, _holes(draws, has["holes"]))
    picture = _over(picture, cell_colour, _rings(draws, has["rings"]))
    picture = _over(picture, cell_colour, _cells(draws, has["cells"]))
    speckle, grain = (
        draws.parameter("speckle: depth", 0.06, 0.3, has["speckle"]),
        draws.parameter("speckle: grain", 0.3, 1.5, has["speckle"]),
    )
    grains = _blurred(draws.randn(1, SIDE, SIDE), grain)
    grains = grains / grains.std(dim=(-2, -1), keepdim=True)
    picture = picture + (has["speckle"] * speckle)[:, None, None, None] * grains
    picture = _blurred(picture, draws.parameter("blur", 0.15, 1.2))
    noise = draws.parameter("noise", 0.0, 0.08)[:, None, None, None]
    picture = picture + noise * draws.randn(3, SIDE, SIDE)
    pixels = (255 * picture.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1)
    return Drawn(pixels.contiguous(), kind, draws.values(PARAMETERS))


def _colours(draws: Draws, has: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ground, cells, fibres and holes, each (count, 3)."""
    stained = (draws.rand() < 0.6)[:, None]
    stains = (STAINS + 0.12 * draws.randn(2, 3)).clamp(0.02)
    first, second = stains.unbind(1)

    def dyed(least: float, most: float, pink_least: float, pink_most: float) -> Tensor:
        return torch.exp(-draws.between(least, most, 1) * first - draws.between(pink_least, pink_most, 1) * second)

    ground = torch.where(stained, dyed(0.0, 0.5, 0.05, 0.8), draws.rand(3))
    cells = torch.where(stained, dyed(0.6, 2.0, 0.0, 0.6), draws.rand(3))
    fibres = torch.where(stained, dyed(0.0, 0.7, 0.4, 1.4), draws.rand(3))
    bright = torch.where(stained, draws.between(0.85, 1.0, 3), draws.between(0.3, 1.0, 3))
    for name, number in (("red", 0), ("green", 1), ("blue", 2)):
        draws.keep(f"ground: {name}", ground[:, number], 0.6, 0.28)
        draws.keep(f"cells: {name}", cells[:, number], 0.45, 0.28, has["cells"] | has["rings"])
    draws.keep("cells: contrast", (cells - ground).abs().mean(-1), 0.3, 0.15, has["cells"] | has["rings"])
    draws.keep("fibres: contrast", (fibres - ground).abs().mean(-1), 0.25, 0.15, has["fibres"])
    return ground, cells, fibres, bright


def _shade(draws: Draws, has: dict[str, Tensor]) -> Tensor:
    """Factor of the ground, (count, 1, 28, 28): a slope and clouds, strong ones where clouds are all there is."""
    strength = torch.where(has["clouds"], 1.0, 0.25)
    depth = draws.parameter("clouds: depth", 0.0, 0.25, has["clouds"]) * strength
    right = draws.parameter("clouds: slope right", -0.4, 0.4, has["clouds"]) * strength
    down = draws.parameter("clouds: slope down", -0.4, 0.4, has["clouds"]) * strength
    rows, columns = _grid()
    slope = right[:, None, None] * (columns / SIDE - 0.5) + down[:, None, None] * (rows / SIDE - 0.5)
    return (1 + slope + depth[:, None, None] * _cloud(draws, 6))[:, None].clamp(min=0)


def _cloud(draws: Draws, knots: int) -> Tensor:
    """Smooth random fields (count, 28, 28) of about unit variance."""
    field = functional.interpolate(draws.randn(1, knots, knots), (SIDE, SIDE), mode="bicubic", align_corners=True)
    return field[:, 0] / 0.75


def _grid() -> tuple[Tensor, Tensor]:
    axis = torch.arange(SIDE, dtype=torch.float32)
    return axis[:, None].expand(SIDE, SIDE), axis[None].expand(SIDE, SIDE)


def _fibres(draws: Draws, where: Tensor) -> Tensor:
    """Opacity (count, 28, 28) of parallel wavy bands."""
    angle = draws.between(0, math.pi)
    wave = draws.parameter("fibres: wavelength", 2.5, 14.0, where, log=True)[:, None, None]
    waviness = draws.parameter("fibres: waviness", 0.0, 1.5, where)[:, None, None]
    draws.keep("fibres: sin of twice the angle", (2 * angle).sin(), 0.0, math.sqrt(0.5), where)
    draws.keep("fibres: cos of twice the angle", (2 * angle).cos(), 0.0, math.sqrt(0.5), where)
    rows, columns = _grid()
    across = columns * angle.cos()[:, None, None] + rows * angle.sin()[:, None, None]
    phase = 2 * math.pi * (across / wave + draws.rand(1, 1)) + waviness * _cloud(draws, 5)
    profile = (0.5 + 0.5 * phase.sin()).clamp(min=1e-4) ** draws.between(0.5, 3.0, 1, 1)
    return profile * where[:, None, None]


def _distances(draws: Draws, most: int, radius: Tensor, spread: float, stretch: float) -> tuple[Tensor, Tensor]:
    """Distance of each pixel to ``most`` centres (count, most, 28, 28), and each one's own radius (count, most, 1, 1).

    Centres gather about three points, little or much; distances are those of ellipses that are stretched up to
    ``stretch``.
    """
    gathered = draws.between(0, 0.85, 1, 1)
    points, of_point = draws.between(0, SIDE, 3, 2), (3 * draws.rand(most)).long()
    near = points.gather(1, of_point[..., None].expand(-1, -1, 2)) + 2.5 * draws.randn(most, 2)
    centres = torch.where(draws.rand(most, 1) < gathered, near, draws.between(-2.0, SIDE + 2.0, most, 2))
    own = radius[:, None] * (1 + spread * draws.randn(most)).clamp(0.5, 1.6)
    angle, longer = draws.between(0, math.pi, most, 1, 1), draws.between(1.0, stretch, most, 1, 1).sqrt()
    rows, columns = _grid()
    down, right = rows - centres[..., 0, None, None], columns - centres[..., 1, None, None]
    along, across = down * angle.cos() + right * angle.sin(), right * angle.cos() - down * angle.sin()
    return ((along / longer).square() + (across * longer).square()).sqrt(), own[..., None, None]


def _some(draws: Draws, most: int, number: Tensor, shapes: Tensor, where: Tensor) -> Tensor:
    """The first ``number`` of ``most`` shapes (count, most, 28, 28) together, (count, 28, 28)."""
    there = torch.arange(most) < number.round()[:, None]
    strength = draws.between(0.65, 1.0, most) * there
    return (shapes * strength[..., None, None]).amax(dim=1) * where[:, None, None]


def _cells(draws: Draws, where: Tensor) -> Tensor:
    number = draws.parameter("cells: number", 2, MOST_CELLS, where, log=True)
    radius = draws.parameter("cells: radius", 0.8, 4.5, where, log=True)
    away, own = _distances(draws, MOST_CELLS, radius, 0.2, 2.2)
    return _some(draws, MOST_CELLS, number, ((own - away) / 0.8 + 0.5).clamp(0, 1), where)


def _holes(draws: Draws, where: Tensor) -> Tensor:
    number = draws.parameter("holes: number", 1, 8, where, log=True)
    radius = draws.parameter("holes: radius", 3.5, 10.0, where, log=True)
    away, own = _distances(draws, 8, radius, 0.15, 1.5)
    return _some(draws, 8, number, ((own - away) / 0.8 + 0.5).clamp(0, 1), where)


def _rings(draws: Draws, where: Tensor) -> Tensor:
    radius = draws.parameter("rings: radius", 3.0, 10.0, where, log=True)
    thickness = draws.parameter("rings: thickness", 0.7, 2.5, where)[:, None, None, None]
    away, own = _distances(draws, 3, radius, 0.15, 1.6)
    wall = (thickness - (away - own).abs() + 0.5).clamp(0, 1)
    return _some(draws, 3, draws.between(1, 3), wall, where)


def _over(picture: Tensor, colour: Tensor, opacity: Tensor) -> Tensor:
    """A layer of one colour (count, 3) laid over a picture (count, 3, 28, 28)."""
    return picture + opacity[:, None] * (colour[:, :, None, None] - picture)


def _blurred(picture: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur of (count, channels, 28, 28), ``sigma`` pixels (count,), by rows and columns."""
    reach = 3
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma[:, None]) ** 2)
    weights = (weights / weights.sum(-1, keepdim=True))[:, :, None, None, None]
    padded = functional.pad(picture, (reach,) * 4, mode="reflect")
    tall = sum(weights[:, tap] * padded[:, :, tap : tap + SIDE] for tap in range(2 * reach + 1))
    return sum(weights[:, tap] * tall[..., tap : tap + SIDE] for tap in range(2 * reach + 1))
