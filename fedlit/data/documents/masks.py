"""What each client of a data module looked for: by its argument, and by what the documents of its sites hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fedlit.data.base.names import few
from fedlit.data.base.partitions import Assignment
from fedlit.data.base.records import natural
from fedlit.data.documents.documents import BOTH, Annotation, Document
from fedlit.data.documents.looked_for import (
    FORM,
    Kinds,
    LookedFor,
    check_types,
    lacking_types,
    mask_of,
    masked,
    server_mask,
    without_any,
)
from fedlit.data.documents.schema_and_masks import DocumentTypes
from fedlit.errors import FedlitError

NOUNS: Mapping[Annotation, str] = {"entities": "mention", "relations": "relation"}


def patterns(annotated: Mapping[str, Kinds]) -> dict[str, LookedFor]:
    """The argument ``data.annotated``, read.

    Raises:
        FedlitError: It has another form.
    """
    out = {}
    for pattern, given in annotated.items():
        mask = LookedFor.read(given)
        if mask is None or not mask.annotated:
            raise FedlitError(f"data.annotated of {pattern!r} is {given}: give entities, relations, or both, as {FORM}")
        out[pattern] = mask
    return out


class Masks:
    """What each client looked for.

    Args:
        clients: Names.
        given: Masks by pattern.
        schema: Types of the documents.
        stand_in: Whether the documents are generated, with types of their own.
        say: Takes warnings.

    Raises:
        FedlitError: A pattern that names no client, types that no document has.

    Attributes:
        of: Mask of each client.
    """

    def __init__(
        self,
        clients: Iterable[str],
        given: Mapping[str, LookedFor],
        schema: Mapping[str, Any],
        stand_in: bool,
        say: Callable[[str], None],
    ) -> None:
        self.stand_in, self.say = stand_in, say
        found = {client: mask_of(client, given) for client in clients}
        self.said = {client for client, mask in found.items() if mask is not None}
        self.of = {client: LookedFor() if mask is None else mask[1] for client, mask in found.items()}
        self._not_searched: dict[str, frozenset[Annotation]] = {}
        self._clients: dict[str, set[str]] = {}
        idle = [p for p in given if p not in {mask[0] for mask in found.values() if mask is not None}]
        if idle and stand_in:
            say(f"stand-in: data.annotated names none of its clients by {few(idle)}")
        elif idle:
            raise FedlitError(f"data.annotated: no client is named like {idle[0]!r}; there are {', '.join(found)}")
        if stand_in:
            self.of = {client: LookedFor(mask.annotated) for client, mask in self.of.items()}
            return
        for pattern, mask in given.items():
            check_types(pattern, mask, schema)

    def searched(
        self, records: Sequence[Document], server: Sequence[Document], assignment: Assignment, certain: bool
    ) -> list[Document]:
        """The records, those of sites without a single relation (or mention) as not looked through for any.

        Clients that ``data.annotated`` names are believed.

        Args:
            records: Of the clients.
            server: Of the server.
            assignment: Indices into ``records`` by client.
            certain: Whether the files say what was looked for.
        """
        for client, indices in assignment.items():
            for i in indices:
                self._clients.setdefault(records[i].site, set()).add(client)
        if certain or self.stand_in:
            return list(records)
        without = {site: frozenset(kinds) for site, kinds in without_any([*records, *server]).items()}
        self._not_searched = {s: kinds for s, kinds in without.items() if not self._clients.get(s, set()) & self.said}
        out = list(records)
        lost: dict[Annotation, list[str]] = {}
        for i in (i for client, indices in assignment.items() if client not in self.said for i in indices):
            kinds = out[i].annotated & without.get(out[i].site, frozenset())
            out[i] = replace(out[i], annotated=out[i].annotated - kinds)
            for kind in kinds:
                lost.setdefault(kind, []).append(out[i].site)
        for kind, sites in sorted(lost.items()):
            self.say(
                f"not one {NOUNS[kind]} in {len(sites)} document(s) of {few(sorted(set(sites), key=natural))}: they "
                f"count as not looked through for any; if somebody did look: data.annotated {{CLIENT: [entities, "
                f"relations]}}, '*' for all clients"
            )
        return out

    def for_server(self, records: Sequence[Document], server: Sequence[Document]) -> list[Document]:
        """The server's documents, with what their sites looked for."""
        held: dict[str, list[Document]] = {own.site: [] for own in server}
        for other in (*records, *server):
            if other.site in held:
                held[other.site].append(other)
        masks = {
            site: server_mask([self.of[client] for client in sorted(self._clients.get(site, ()))], documents)
            for site, documents in held.items()
        }
        out = []
        for own in server:
            own = replace(own, annotated=own.annotated - self._not_searched.get(own.site, frozenset()))
            left = masked(own, masks[own.site])
            out += [] if left is None else [left]
        return out

    def warn_of_lacking(self, parts: Mapping[str, Mapping[str, Sequence[Document]]], types: DocumentTypes) -> None:
        """Warn of types that a client is asked for and holds none of, where others do."""
        held = {client: [own for side in sides.values() for own in side] for client, sides in parts.items()}
        asked = {client: types.looked_for([*sides["train"], *sides["val"]]) for client, sides in parts.items()}
        lacking = lacking_types(held, asked)
        if not lacking or self.stand_in:
            return
        first = next(iter(lacking))
        there = {kind: [name for name in asked[first][kind] if name not in lacking[first]] for kind in sorted(BOTH)}
        example = ", ".join(f"{kind}: [{', '.join(names)}]" for kind, names in there.items() if names)
        mend = f"data.annotated {{{first}: {{{example}}}}}" if example else "leave its documents out"
        self.say(
            f"{len(lacking)} client(s) hold none of a type that others hold, and it is taught that there is none: "
            f"{few([f'{client} ({few(names)})' for client, names in lacking.items()])}; if nobody looked for it there: "
            f"{mend}"
        )
