"""How much of the training documents' answers a window leaves, by client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from fedlit.data.base.names import few
from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.sequences import TokenSequence


@dataclass(frozen=True)
class Room:
    """Counts of one client's training documents that ask something.

    Attributes:
        documents: How many there are.
        cut: Those of which some question or answer loses its end.
        without_answer: Those of which no token of an answer is left.
        tokens: Of questions and answers together.
        cut_tokens: Those of them that are cut off.
        longest: Tokens of the longest question with its answer.
    """

    documents: int = 0
    cut: int = 0
    without_answer: int = 0
    tokens: int = 0
    cut_tokens: int = 0
    longest: int = 0

    @classmethod
    def of(cls, documents: Iterable[Document], sequences_of: Callable[[Document], Sequence[TokenSequence]]) -> Room:
        """Counts of some documents.

        Args:
            documents: Of one client.
            sequences_of: Questions about a document with their answers, as they are cut.
        """
        asked = [own for own in map(sequences_of, documents) if own]
        every = [sequence for own in asked for sequence in own]
        lengths = [len(sequence.tokens) + sequence.cut for sequence in every]
        return cls(
            documents=len(asked),
            cut=sum(any(sequence.cut for sequence in own) for own in asked),
            without_answer=sum(not any(sequence.supervised("completion") for sequence in own) for own in asked),
            tokens=sum(lengths),
            cut_tokens=sum(sequence.cut for sequence in every),
            longest=max(lengths, default=0),
        )

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)


def check_room(rooms: Mapping[str, Room], max_length: int, allowed: float) -> str | None:
    """What there is to say of clients whose answers are cut; None where none is.

    Args:
        rooms: By client.
        max_length: Tokens of the window.
        allowed: Largest share of a client's documents that may lose all of their answer.

    Raises:
        FedlitError: No document of any client has an answer left, or a client has fewer than are allowed.
    """
    longest = max((room.longest for room in rooms.values()), default=0)
    mend = (
        f"raise it (the longest question with its answer has {longest}), or shorten questions by model.wording 'brief'"
    )
    asked = [room for room in rooms.values() if room.documents]
    if asked and all(room.without_answer == room.documents for room in asked):
        raise FedlitError(
            f"model.max_length is {max_length}, and every training document's question is longer, so that no answer is "
            f"left to learn: {mend}"
        )
    bare = {name: room for name, room in rooms.items() if room.without_answer > allowed * room.documents}
    if bare:
        counts = few([f"{name} {room.without_answer} of {room.documents}" for name, room in bare.items()])
        raise FedlitError(
            f"model.max_length is {max_length}, which leaves too many training documents no token of their answer "
            f"({counts}): {mend}; model.max_without_answer {allowed:g} is the share that is allowed at each client"
        )
    cut = {name: room for name, room in rooms.items() if room.cut}
    if not cut:
        return None
    each = [
        f"{name} {room.cut} of {room.documents}" + (f" ({room.without_answer} all of it)" * (room.without_answer > 0))
        for name, room in cut.items()
    ]
    bare_ones = " Those without any answer are not trained on." if any(r.without_answer for r in cut.values()) else ""
    return (
        f"questions longer than model.max_length {max_length} lose their end, of training documents: "
        f"{few(each)}; see summary.json.{bare_ones}"
    )
