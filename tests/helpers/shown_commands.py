"""Commands that documents and comments of configs show, as words."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"fedlit [a-z]+ ")
STAND_IN = re.compile(r"stand_in\w*\.yaml$")


def in_document(path: Path) -> list[list[str]]:
    """Commands in code spans and blocks of a Markdown file, its abbreviations written out.

    Abbreviations hold in their section: "`C` is `configs/a.yaml`".
    """
    found: list[list[str]] = []
    for section in re.split(r"^## ", path.read_text(), flags=re.MULTILINE):
        short = dict(re.findall(r"`(\w+)`\s+is\s+`([^`]+)`", section))
        blocks = re.findall(r"^```\w*\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", section, flags=re.MULTILINE | re.DOTALL))
        texts = [*spans, *(line for block in blocks for line in joined(block.splitlines()))]
        found += [written_out(text.replace("\\|", "|"), short) for text in texts if COMMAND.match(text)]
    return found


def in_config(path: Path) -> list[list[str]]:
    """Commands in the comments of a configuration: as they stand, and with the stand-in that makes them run offline.

    Abbreviations: "C is --config a.yaml"; or "offline with `--config stand_in.yaml` after C, which is a.yaml".
    """
    lines = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(lines)
    short = {name: files.rstrip(" ,;.") for name, files in re.findall(r"\b([A-Z]) is ((?:--config \S+ ?)+)", text)}
    told = re.search(r"offline with `(--config \S+)` after ([A-Z]), which is (\S+\.yaml)", text)
    shown = [line for line in joined([one.removeprefix("Run: ") for one in lines]) if COMMAND.match(line)]
    if told is None:
        return [written_out(line, short) for line in shown]
    stand_in, name, file = told.groups()
    real = [written_out(line, {name: file}) for line in shown]
    return real + [words for line in shown if (words := written_out(line, {name: f"{file} {stand_in}"})) not in real]


def joined(lines: list[str]) -> Iterator[str]:
    """Lines, with those that end in a backslash or within quotes joined with the next."""
    held = ""
    for line in lines:
        held = f"{held} {line}".strip()
        whole = not held.endswith("\\")
        held = held.removesuffix("\\").strip()
        if whole and not open_quote(held):
            yield held
            held = ""


def open_quote(text: str) -> bool:
    """Whether a command's text ends within quotes."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return text.startswith("fedlit ")
    return False


def written_out(text: str, short: Mapping[str, str]) -> list[str]:
    """Words of a command, with abbreviations replaced by what they stand for."""
    words = shlex.split(text, comments=True)
    return [word for one in words for word in (shlex.split(short[one]) if one in short else [one])]


def without_stand_in(words: list[str]) -> list[str] | None:
    """The same command on the real thing, as the documents say it: without the stand-in, and with a folder of data."""
    files = [i for i, word in enumerate(words) if STAND_IN.search(word)]
    if not files:
        return None
    left = [word for i, word in enumerate(words) if i not in files and i + 1 not in files]
    return [*left, "--data.root", "FOLDER"]
