"""Chat templates are code of others: they may raise, and ask for the time, and prompts must not hang on either."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from talking import tokenizer

from fedlit.errors import FedlitError
from fedlit.instructions.chat_templates import ChatTemplate, clock, date_of
from fedlit.instructions.sequences import Dialogue

TURNS = "{% for m in messages %}{{ m['role'] + ':' + m['content'] + eos_token }}{% endfor %}"
CODES = ["%a", "%A", "%w", "%u", "%d", "%-d", "%e", "%b", "%h", "%B", "%m", "%-m", "%y", "%Y", "%j", "%G", "%V", "%F",
         "%D", "%T", "%R", "%H", "%I", "%p", "%M", "%S", "%f", "%%", "%%d", "%n", "%t"]  # fmt: skip
DAYS = st.dates(datetime.date(1900, 1, 1), datetime.date(2199, 12, 31))


def with_template(text: str):
    made = tokenizer("<s>", "</s>", bos="<s>", eos="</s>")
    made.chat_template = text
    return made


@settings(max_examples=60, deadline=None)
@given(
    st.dates(datetime.date(1900, 1, 1), datetime.date(2199, 12, 31)),
    st.lists(st.sampled_from([*CODES, " ", "day", "é"]), max_size=6),
)
def test_the_pinned_clock_writes_what_strftime_writes(today, parts):
    from transformers.utils.chat_template_utils import _compile_jinja_template

    text = clock(today) + "{{ strftime_now(form) }}"
    midnight = datetime.datetime.combine(today, datetime.time())
    assert _compile_jinja_template(text).render(form="".join(parts)) == midnight.strftime("".join(parts))


@pytest.mark.parametrize(
    "written",
    [
        "{{ 'Today: ' + strftime_now('%d %B %Y') }}",
        "{%- set today = strftime_now('%d %B %Y') -%}Today: {{ today }}",
        "{%- macro line() -%}Today: {{ strftime_now(format='%d %B %Y') }}{%- endmacro -%}{{ line() }}",
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %B %Y') %}{% endif %}Today: {{ day }}",
    ],
)
def test_a_template_sees_the_date_that_it_is_given_and_no_other(written, monkeypatch):
    import transformers.utils.chat_template_utils as theirs

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            raise AssertionError("the true clock was asked")

    monkeypatch.setattr(theirs, "datetime", Clock)
    made = with_template(written + "\n" + TURNS)
    assert ChatTemplate(made).prompt("q").startswith("Today: 26 July 2024\nuser:q")
    assert ChatTemplate(made, datetime.date(2030, 5, 8)).prompt("q").startswith("Today: 08 May 2030\nuser:q")
    dialogue = Dialogue(made, today=datetime.date(2030, 5, 8))
    assert dialogue.tokenizer.decode(dialogue.prompt("q")).startswith("Today: 08 May 2030")


@pytest.mark.parametrize("start", ["", "\n", "  \n", "{#- x #}\n"])
def test_what_stands_first_in_a_template_is_kept(start):
    made = with_template(start + TURNS)
    plain = made.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False, add_generation_prompt=True)
    assert ChatTemplate(made).prompt("q") == plain


def test_templates_by_name_and_those_that_take_the_date():
    made = with_template("{{ date_string }}|" + TURNS)
    assert ChatTemplate(made, datetime.date(2024, 7, 6)).prompt("q").startswith("06 Jul 2024|user:q")
    made.chat_template = {"default": "first|" + TURNS, "tool_use": "second"}
    assert ChatTemplate(made).prompt("q").startswith("first|")


RAISING = {
    "first turn must be system": "{% if messages[0]['role'] != 'system' %}"
    "{{ raise_exception('first turn must be system') }}{% endif %}x",
    "TemplateSyntaxError": "{% if %}",
    "UndefinedError": "{{ messages[0].nothing.at_all }}",
    "SecurityError": "{{ messages.append(1) }}{{ ''.__class__.__mro__ }}",
    "TypeError": "{{ 1 + 'x' }}",
    "answers are": "{% if messages|length > 1 %}{{ raise_exception('answers are not written') }}{% endif %}x",
    "draws at random": "{{ range(1000) | random }}" + TURNS,
}


@pytest.mark.parametrize("said", RAISING)
def test_a_template_that_cannot_be_used_is_refused_with_what_it_said_and_the_mend(said):
    with pytest.raises(FedlitError, match=f"(?s){said}.*model.chat_template: false"):
        Dialogue(with_template(RAISING[said]))
    assert Dialogue(with_template(RAISING[said]), chat_template=False).prompt("q")


def test_an_error_on_a_question_does_not_quote_it():
    template = "{% if 'secret' in messages[0]['content'] %}{{ raise_exception(messages[0]['content']) }}{% endif %}"
    dialogue = Dialogue(with_template(template + TURNS))
    assert dialogue.prompt("hello")
    with pytest.raises(FedlitError, match="raises TemplateError on some questions") as caught:
        dialogue.prompt("a secret of a patient")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["yesterday", "26.07.2024", "", 20240726])
def test_a_date_that_is_none_is_refused(text):
    with pytest.raises(FedlitError, match="model.prompt_date is .*2024-07-26"):
        date_of(text)
