"""Chat templates of tokenizers: under a clock that stands still, with errors of theirs in one line.

A template is code out of a model's folder. It may raise whatever it likes, write today's date, or draw at random.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from fedlit.errors import FedlitError, from_folder

DATE = date(2024, 7, 26)
"""What a template takes for today: the true date would make other tokens each day."""
MEND = "set model.chat_template: false, or mend the template in the backbone's folder"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
TRIALS = 5
"""Renderings that must agree."""


def date_of(text: str) -> date:
    """A date as a setting gives it.

    Raises:
        FedlitError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise FedlitError(f"model.prompt_date is {text!r}: give a date such as {DATE.isoformat()}") from error


class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: Of transformers, with a template.
        today: What ``strftime_now`` and ``date_string`` tell the template, at midnight, with English names.

    Raises:
        FedlitError: It cannot be rendered, or gives another text each time.
    """

    def __init__(self, tokenizer: Any, today: date = DATE) -> None:
        place = getattr(tokenizer, "name_or_path", "")
        self.tokenizer, self.what = tokenizer, f"the chat template of the tokenizer{f' in {place}' if place else ''}"
        self.options = {"date_string": f"{today.day:02d} {MONTHS[today.month - 1][:3]} {today.year}"}
        self.text = clock(today) + self._rendered(tokenizer.get_chat_template)
        for _ in range(TRIALS):
            if self.dialogue("?", "!") != self.dialogue("?", "!") or self._asked() != self._asked():
                raise FedlitError(f"{self.what} draws at random, so that prompts would differ from run to run: {MEND}")

    def _asked(self) -> str:
        return self._rendered(lambda: self._apply(_turns("?"), True))

    def prompt(self, question: str) -> str:
        """A question as the user's turn, up to where the answer begins."""
        try:
            return self._apply(_turns(question), True)
        except Exception as error:  # what it says may quote the question
            raise FedlitError(f"{self.what} raises {type(error).__name__} on some questions: {MEND}") from error

    def dialogue(self, question: str, answer: str) -> str:
        """A question with its answer, as both turns."""
        return self._rendered(lambda: self._apply(_turns(question, answer), False))

    def _apply(self, turns: Sequence[Mapping[str, str]], asks: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=asks, chat_template=self.text, **self.options
        )
        return text

    def _rendered(self, render: Callable[[], Any]) -> str:
        with from_folder(self.what, MEND):
            return str(render())


def clock(today: date) -> str:
    """A macro ``strftime_now`` that stands before a template, and hides the one that asks the true clock."""
    codes = {
        "a": DAYS[today.weekday()][:3], "A": DAYS[today.weekday()], "w": str((today.weekday() + 1) % 7),
        "u": str(today.isoweekday()), "d": f"{today.day:02d}", "-d": str(today.day), "e": f"{today.day:2d}",
        "b": MONTHS[today.month - 1][:3], "h": MONTHS[today.month - 1][:3], "B": MONTHS[today.month - 1],
        "m": f"{today.month:02d}", "-m": str(today.month), "y": f"{today.year % 100:02d}", "Y": str(today.year),
        "j": f"{today.timetuple().tm_yday:03d}", "G": str(today.isocalendar().year),
        "V": f"{today.isocalendar().week:02d}", "F": today.isoformat(),
        "D": f"{today.month:02d}/{today.day:02d}/{today.year % 100:02d}", "x": f"{today.month:02d}/{today.day:02d}/"
        f"{today.year % 100:02d}", "c": f"{DAYS[today.weekday()][:3]} {MONTHS[today.month - 1][:3]} {today.day:2d} "
        f"00:00:00 {today.year}", "T": "00:00:00", "X": "00:00:00", "R": "00:00", "H": "00", "-H": "0", "I": "12",
        "-I": "12", "p": "AM", "M": "00", "-M": "0", "S": "00", "-S": "0", "f": "000000", "z": "", "Z": "",
        "s": str((today - date(1970, 1, 1)).days * 86400), "n": "\\n", "t": "\\t",
    }  # fmt: skip
    steps = "".join(f".replace('%{code}', '{value}')" for code, value in codes.items())
    return (
        "{%- macro strftime_now(format) -%}{{ format.replace('%%', '\\0')" + steps + ".replace('\\0', '%') }}"
        "{%- endmacro +%}"
    )


def _turns(question: str, *answers: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, *({"role": "assistant", "content": answer} for answer in answers)]
