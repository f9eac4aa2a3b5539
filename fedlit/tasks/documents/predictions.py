"""Mentions and relations found in documents, as columns of a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fedlit.data.documents.documents import Document
from fedlit.instructions.parsed import Parsed

Answers = list[Parsed | None]


def span_columns(
    document: Sequence[Document],
    client: Sequence[str],
    entities: Sequence[Parsed | None],
    relations: Sequence[Parsed | None],
) -> dict[str, Any]:
    """Columns ``client``, ``id``, ``entities`` and ``relations``: a row for each document.

    The last two are JSON. Mentions are ``[type, [[start, stop], ...]]``, offsets into the document's text; relations
    are ``[type, head, tail]``, the ends as mentions. Null where not asked for. Words of the text are not written.

    Args:
        document: Document of each row.
        client: Client of each row.
        entities: Answers that mentions are read from.
        relations: Answers that relations are read from.
    """

    def mentions(answer: Parsed | None) -> str:
        return json.dumps(None if answer is None else [_place(entity) for entity in answer.entities])

    def links(answer: Parsed | None) -> str:
        if answer is None:
            return "null"
        by_id = {entity.id: _place(entity) for entity in answer.entities}
        return json.dumps([[link.type, by_id[link.head], by_id[link.tail]] for link in answer.relations])

    return {
        "client": list(client),
        "id": [annotated.id for annotated in document],
        "entities": [mentions(answer) for answer in entities],
        "relations": [links(answer) for answer in relations],
    }


def _place(entity: Any) -> list[Any]:
    return [entity.type, [list(span) for span in entity.fragments or ((entity.start, entity.stop),)]]
