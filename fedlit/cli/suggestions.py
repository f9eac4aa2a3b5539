"""Messages for unknown names: one line, with the nearest known name."""

from __future__ import annotations

import difflib
import re

NOISE = re.compile(
    r"\s*(- )?(Subtypes: |Errors:|Given value|Does not validate against|Expected a path but"
    r"|Expected a <class 'NoneType'>)"
)


def one_line(message: str, known: list[str]) -> str:
    """A message of jsonargparse in one line, without the types that were tried, and with the nearest known name.

    Args:
        message: As jsonargparse has it.
        known: Names of options and classes.
    """
    path = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    where = f"{path}: " if path else ""
    option = r"(?:Option|option) '([^']+)' is not accepted|does not accept option '([^']+)'"
    if found := re.search(option + r"|dot import path string: (\S+)", message):
        key = found[1] or found[2]
        what = repr(key) if key else f"class {found[3]!r}"
        return f"{where}there is no {what}{suggestion(repr(key or found[3]), known)}"
    lines = dict.fromkeys(line.strip(" -") for line in message.splitlines() if line.strip() and not NOISE.match(line))
    text = re.sub(r'Parser key "[^"]+":?\s*', "", " ".join(" ".join(lines).split())).strip(" -")
    if re.search(r"Expected a <class 'str'>\. Got value: (True|False|None)$", text):
        return f"{where}{text}: a text is wanted, so write it in quotes if that is its name"
    return f"{where}{text}" + ("" if "did you mean" in text or "given twice" in text else suggestion(text, known))


def bare(name: str) -> str:
    """A name in lower case and without punctuation, since papers write ``fedavg``, ``FedEx-LoRA``, ``Fed-MedLoRA+``."""
    return re.sub(r"[\W_]", "", name.replace("+", "plus")).lower()


def suggestion(message: str, known: list[str]) -> str:
    """``; did you mean ...?`` if a name in the message is near a known one, else nothing."""
    wrong = re.findall(r"[Kk]ey ['\"]?([\w.]+)|argument[s]?:? --?([\w.]+)|['\"]([\w.+-]+)['\"]", message)
    for name in (n for group in wrong for n in group if n and n not in known):
        if same := [k for k in known if bare(k) == bare(name)]:
            return f"; did you mean {same[0]!r}?"
        cutoff = 0.75 if len(name) > 3 else 0.6
        whole = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
        last = difflib.get_close_matches(name.split(".")[-1], [k.split(".")[-1] for k in known], n=1, cutoff=cutoff)
        if near := whole or last:
            return f"; did you mean {near[0]!r}?"
    return ""
