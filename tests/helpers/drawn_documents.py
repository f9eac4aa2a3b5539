"""Documents that hypothesis draws: awkward texts, mentions that nest, repeat, cross and have gaps."""

from __future__ import annotations

from hypothesis import strategies as st

from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.instructions import Schema

SCHEMA = Schema.from_dict(
    {
        "name": "drawn",
        "entities": {"Chemical": "A substance.", "Disease": "An illness."},
        "relations": {
            "CID": {"heads": ["Chemical"], "tails": ["Disease"], "description": "Causes it."},
            "near": {"heads": ["Chemical", "Disease"], "tails": ["Chemical", "Disease"], "description": "Close by."},
        },
        "modifiers": {"severity": {"of": ["Disease"], "description": "How bad."}},
    }
)
WITHOUT_MODIFIERS = Schema(SCHEMA.name, SCHEMA.main, tuple(one for one in SCHEMA.relations if one.name != "severity"))
PIECES = (
    "fever", "Fever", "a", "aa", " ", "  ", "\n", "\r\n", "\t", ".", "5", "<", ">", "&", '"', "'", "\\", "{", "}", "[",
    "<span>", '<span class="Disease" id="1">', "</span>", "</SPAN >", "<sp", "an>", "< / span>", "&lt;", "&amp;",
    "&amp;lt;", "lt;", "Relations:", "\nRelations:\n", "none", "\nCID: 1 -> 2", "```", "</think>", "e\u0301", "\u0301",
    "ß", "İ", "𝒜", "🫀", "שלום", "\u202e", "\u200d", "\x00", "\u2028", "\x1c",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), max_size=14).map("".join)


@st.composite
def documents(draw: st.DrawFn, schema: Schema = SCHEMA, gaps: bool = True, flat: bool = False) -> Document:
    """Any document of a schema; with ``flat``, mentions do not overlap."""
    text = draw(texts)
    length = len(text)
    entities: list[Entity] = []
    if text.strip():
        for number in range(draw(st.integers(0, 6))):
            bounds = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=6)))
            cuts = [(a, b) for a, b in zip(bounds[::2], bounds[1::2], strict=False) if a < b]
            cuts = cuts if gaps else cuts[:1]
            if not cuts or (flat and any(max(a, e.start) < min(b, e.stop) for a, b in cuts for e in entities)):
                continue
            type = draw(st.sampled_from([one.name for one in schema.entities]))
            entities.append(Entity(f"T{number}", type, cuts[0][0], cuts[-1][1], tuple(cuts) if len(cuts) > 1 else ()))
    relations = [
        Relation(kind.name, head.id, tail.id)
        for kind in schema.relations
        for head in entities
        for tail in entities
        if schema.fits(kind.name, head.type, tail.type) and draw(st.booleans())
    ]
    entities.sort(key=lambda one: (one.start, one.stop, one.type))
    return Document("drawn", text, tuple(entities), tuple(relations))
