"""The words of the instructions."""

from __future__ import annotations

from fedlit.instructions.schema import EntityType, RelationType, Schema

COPY = (
    "Write the whole text again without changing a character. Put {open} before each {what} and </span> after it; "
    "inside another one, tags go inside tags."
)
ESCAPES = "For the < of a <span or </span of the text itself write &lt; and for the & of its &lt; or &amp; write &amp;."
LIST = 'Answer with a JSON list in reading order, one item for each {what}: {{"type": KIND, "text": its words}}.'
NUMBERED_LIST = (
    'Answer with {{"entities": [...], "relations": [...]}}. List each {what} in reading order as '
    '{{"id": n, "type": KIND, "text": its words}}, n going up by one.'
)
COUNT = 'Add "occurrence": k if the k-th place where these words stand is meant, and not the next one.'
LINKS = {
    "html": "{lead}write a line Relations: and under it a line KIND: m -> n for each link, from number m to number n, "
    "or the word none.",
    "json": 'List links as {{"type": KIND, "head": m, "tail": n}}, by the numbers of the mentions.',
}


NAMES = {"html": "as span tags", "json": "as JSON"}


def instruction(
    schema: Schema,
    task: str,
    format: str,
    focus: str | None,
    escaped: bool,
    wording: str,
    shown: str,
    links_alone: bool = False,
) -> str:
    """The question as the model reads it.

    Args:
        schema: What to look for.
        task: ``"entities"``, ``"relations"`` or ``"both"``.
        format: ``"html"`` or ``"json"``.
        focus: Type of the one mention marked in the text, None where the question is about all.
        escaped: The text holds something that the answer has to escape.
        wording: ``"full"`` says what each type means and what an answer looks like, ``"names"`` the latter only,
            ``"brief"`` neither.
        shown: The text, with the mentions given.
        links_alone: The answer has no list of mentions beside that of links.
    """
    if wording == "brief":
        return "\n".join([_brief(schema, task, format, focus), "", "Text:", shown, "", "Answer:", ""])
    descriptions = wording == "full"
    if focus is not None:
        body = _about_one(schema, format, focus, descriptions)
    elif task == "relations":
        body = _between_given(schema, format, descriptions, links_alone)
    else:
        body = _bare(schema, task, format, descriptions)
    copies = focus is not None or task != "relations" or bool(schema.modifiers)
    rules = [ESCAPES] if escaped and copies else []
    return "\n".join([*body, *rules, "", "Text:", shown, "", "Answer:", ""])


def _brief(schema: Schema, task: str, format: str, focus: str | None) -> str:
    kinds = [kind.name for kind in schema.main] if task != "relations" else []
    asked = schema.relations if task != "entities" else ()
    links = [relation.name for relation in asked if focus is None or focus in relation.heads]
    between = " of the marked mention" if focus else " between the marked mentions" if task == "relations" else ""
    return f"{', '.join(kinds + links)}{between} {NAMES[format]}."


def _bare(schema: Schema, task: str, format: str, descriptions: bool) -> list[str]:
    both = task == "both"
    head = "Find in the text below all mentions of these kinds" + (", and how they are linked." if both else ".")
    kinds = _kinds(schema.main, descriptions)
    links = ["Links, each from a first kind to a second:", *_links(schema.relations, descriptions)] if both else []
    if both and schema.modifiers:
        links.append(f"Mark words of the kinds {', '.join(modifier.name for modifier in schema.modifiers)} too.")
    return [head, *kinds, *links, *_mentions(format, "mention", numbered=both), *_ask_links(format, both, "Then ")]


def _between_given(schema: Schema, format: str, descriptions: bool, links_alone: bool) -> list[str]:
    out = [
        "Mentions are marked and numbered in the text below. Find the links between them"
        + (", and the words that say more of a mention." if schema.modifiers else "."),
        "Links, each from a first kind to a second:",
        *_links(schema.relations, descriptions),
    ]
    if schema.modifiers:
        names = ", ".join(modifier.name for modifier in schema.modifiers)
        out.append(f"Of the kinds {names} nothing is marked yet: mark such words, numbered on from the last number.")
        out.append("Leave the tags that are there out of the answer.")
        return [*out, *_mentions(format, "new mention", numbered=True), *_ask_links(format, True, "Then ")]
    if format == "json":
        mentions = "" if links_alone else '"entities": [], '
        out.append(f'Answer with {{{mentions}"relations": the list of links}}.')
    lead = "" if format == "json" else "As the answer, "
    return [*out, *_ask_links(format, True, lead)]


def _about_one(schema: Schema, format: str, focus: str, descriptions: bool) -> list[str]:
    possible = tuple(relation for relation in schema.relations if focus in relation.heads)
    return [
        "One mention is marked in the text below. Find everything that is linked to it in one of these ways.",
        *_links(possible, descriptions),
        "The tag that is there does not go into the answer." if format == "html" else "",
        *_mentions(format, "linked span", numbered=False),
    ]


def _mentions(format: str, what: str, numbered: bool) -> list[str]:
    """How mentions are to be given."""
    if format == "json":
        return [(NUMBERED_LIST if numbered else LIST).format(what=what), COUNT]
    tag = '<span class="KIND" id="n">' if numbered else '<span class="KIND">'
    return [COPY.format(open=tag, what=what) + (" The numbers n go up from 1 as tags open." if numbered else "")]


def _ask_links(format: str, asked: bool, lead: str) -> list[str]:
    return [LINKS[format].format(lead=lead)] if asked else []


def _kinds(types: tuple[EntityType, ...], descriptions: bool) -> list[str]:
    return [f"- {kind.name}: {kind.description}" if descriptions else f"- {kind.name}" for kind in types]


def _links(types: tuple[RelationType, ...], descriptions: bool) -> list[str]:
    out = []
    for kind in types:
        ends = f"{' or '.join(kind.heads)} -> {' or '.join(kind.tails)}"
        ends = f"between {' or '.join(kind.heads)}, either way" if kind.symmetric else ends
        out.append(f"- {kind.name} ({ends})" + (f": {kind.description}" if descriptions else ""))
    return out
