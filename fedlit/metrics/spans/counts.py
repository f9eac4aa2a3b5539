"""Precision, recall and F1 of mentions and relations, with intervals over documents."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from fedlit.data.documents.documents import Document
from fedlit.errors import FedlitError
from fedlit.instructions.parsed import Counts, Parsed
from fedlit.instructions.schema import Schema
from fedlit.instructions.templates import Task
from fedlit.metrics.spans.matching import Ends, Matches, match_entities, match_relations

if TYPE_CHECKING:
    import numpy as np

KINDS = ("entity", "relation")
COLUMNS = {"strict": (1, 2), "lenient": (3, 4)}
"""Of :class:`~fedlit.metrics.spans.matching.Matches`: those guessed, and those of them that are right."""


@dataclass(frozen=True, eq=False)
class SpanCounts:
    """What was found in each document; any scores are made from this.

    Scores by name, ``kind_mode_measure``, kind ``entity`` or ``relation``, mode ``strict`` or ``lenient``:

    - ``entity_strict_f1``: of all types pooled (micro); likewise ``..._precision``, ``..._recall``.
    - ``entity_strict_f1/Disease``: of one type.
    - ``entity_strict_macro_f1``: mean of F1 over the types that the annotated documents hold; ``entity_types_left_out``
      says how many they do not.
    - ``answers_unparsable`` and the like: :class:`~fedlit.instructions.Counts`, added up.

    Precision is 0 where nothing was predicted and something was there, recall 0 the other way round; where neither is,
    all three are NaN.

    Attributes:
        documents: Ids.
        clients: Client of each document.
        rows: ``(kind, type)``.
        values: (documents, rows, 5) integers, :class:`~fedlit.metrics.spans.matching.Matches`.
        scored: (documents, rows) booleans: whether the row was annotated. Where it was not, values are zeros.
        answers: Counts of the answers about each document.
    """

    documents: tuple[str, ...]
    clients: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    values: np.ndarray[Any, np.dtype[np.int64]]
    scored: np.ndarray[Any, np.dtype[np.bool_]]
    answers: tuple[Counts, ...]
    headline: ClassVar[tuple[str, ...]] = (
        "entity_strict_f1", "entity_lenient_f1", "relation_strict_f1", "relation_lenient_f1"
    )  # fmt: skip

    def scores(self) -> dict[str, float]:
        """Every score; of pooled documents, whoever's they are."""
        out = {name: float(value) for name, value in self._measures(self.values.sum(axis=0)).items()}
        for kind in KINDS:
            of_kind = [i for i, row in enumerate(self.rows) if row[0] == kind]
            if of_kind:
                out[f"{kind}_types_left_out"] = float((self.values[:, of_kind, 0].sum(axis=0) == 0).sum())
        counted = sum(self.answers, Counts()).to_dict()
        return out | {f"answers_{name}": float(value) for name, value in counted.items()}

    def by_client(self) -> dict[str, dict[str, float]]:
        """The scores of each client's documents."""
        return {name: self.of(name).scores() for name in sorted(set(self.clients))}

    def client_mean(self) -> dict[str, float]:
        """Mean over clients of each score but counts; clients where it is NaN are left out, NaN where all are."""
        each = list(self.by_client().values())
        out = {}
        for name in each[0] if each else ():
            values = [score[name] for score in each if not math.isnan(score[name])]
            if not name.startswith("answers_") and not name.endswith("_left_out"):
                out[name] = math.fsum(values) / len(values) if values else math.nan
        return out

    def of(self, client: str) -> SpanCounts:
        """Counts of one client's documents."""
        own = [i for i, name in enumerate(self.clients) if name == client]
        if not own:
            raise FedlitError(f"no document is of client {client!r}; there are {sorted(set(self.clients))}")
        documents, answers = (tuple(given[i] for i in own) for given in (self.documents, self.answers))
        return replace(
            self,
            documents=cast("tuple[str, ...]", documents),
            clients=(client,) * len(own),
            values=self.values[own],
            scored=self.scored[own],
            answers=cast("tuple[Counts, ...]", answers),
        )

    def samples(self, seed: int, n_resamples: int = 1000) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Scores of resampled documents: for intervals, and for intervals of the difference between two methods.

        Documents are drawn with replacement, of each kind as many as are annotated for it. Two methods scored on the
        same documents with the same seed get the same draws, so their samples can be subtracted.

        Args:
            seed: Seed of the draws.
            n_resamples: How many.

        Returns:
            (n_resamples,) by name; NaN where a draw holds nothing to score.
        """
        import numpy as np

        from fedlit.seeds import numpy_generator

        totals = np.zeros((n_resamples, *self.values.shape[1:]))
        for kind in KINDS:
            rows = [i for i, row in enumerate(self.rows) if row[0] == kind]
            own = np.flatnonzero(self.scored[:, rows].any(axis=1)) if rows else np.zeros(0, dtype=int)
            if len(own):
                draw = numpy_generator(seed, "bootstrap of documents", kind)
                times = draw.multinomial(len(own), np.full(len(own), 1 / len(own)), size=n_resamples)
                values = self.values[own][:, rows].reshape(len(own), -1)
                totals[:, rows] = (times.astype(float) @ values).reshape(n_resamples, len(rows), -1)
        return self._measures(totals)

    def intervals(self, seed: int, n_resamples: int = 1000, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of each score over documents; draws where it is NaN are left out.

        Args:
            seed: Seed of the draws.
            n_resamples: How many.
            level: Share of the draws between the bounds.
        """
        import numpy as np

        if not 0 < level < 1 or n_resamples < 1:
            raise FedlitError(f"level {level} and n_resamples {n_resamples}: give one within (0, 1) and one from 1")
        tails = [50 * (1 - level), 50 * (1 + level)]
        out = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the interval is NaN
            for name, values in self.samples(seed, n_resamples).items():
                low, high = np.nanpercentile(values, tails)
                out[name] = (float(low), float(high))
        return out

    def _measures(self, totals: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Scores of totals (..., rows, 5)."""
        import numpy as np

        out = {}
        for kind in KINDS:
            rows = [i for i, row in enumerate(self.rows) if row[0] == kind]
            if not rows:
                continue
            own = np.asarray(totals[..., rows, :], dtype=np.float64)
            for mode, columns in COLUMNS.items():
                for measure, value in _ratios(own.sum(axis=-2), *columns).items():
                    out[f"{kind}_{mode}_{measure}"] = value
                by_type = _ratios(own, *columns)
                present = own[..., 0] > 0
                total = np.where(present, by_type["f1"], 0.0).sum(axis=-1)
                out[f"{kind}_{mode}_macro_f1"] = _divide(total, present.sum(axis=-1))
                for measure, value in by_type.items():
                    for i, row in enumerate(rows):
                        out[f"{kind}_{mode}_{measure}/{self.rows[row][1]}"] = value[..., i]
        return out


def count_spans(
    gold: Sequence[Document],
    predicted: Sequence[Parsed],
    schema: Schema,
    clients: Sequence[str] | None = None,
    task: Task = "both",
    relation_ends: Ends = "mention",
) -> SpanCounts:
    """Compare predictions with annotations, document by document.

    Strict: type and place (every part of a mention with gaps) are the same; of a relation, its type and both ends.
    Lenient: mentions of one type that share a character, relations of one type both of whose ends do. Lenient pairs
    are one to one, as many as can be made at once (maximum bipartite matching), so their number depends on no order.
    Mentions of equal type and place count once. Types that nobody looked for in a document are not scored there;
    modifiers are looked for together with relations. Symmetric relations are right either way round, and count once.

    Args:
        gold: Documents as annotated.
        predicted: What was found in each, in the same order. After a question that gave mentions, with those.
        schema: Types to score, in this order; annotations of other types are left out.
        clients: Client of each document; the documents' sites by default.
        task: Task of the question: ``"entities"`` scores mentions that are no modifiers, ``"relations"`` relations and
            modifiers, ``"both"`` all.
        relation_ends: ``"mention"``, or ``"concept"``, for sources that link concepts: an end is the concept of the
            annotated mention that it is (strict) or that it shares most characters with (lenient), and itself where
            that has none; relations between the same concepts count once.

    Raises:
        FedlitError: As many documents as predictions or clients there are not, or an unknown ``relation_ends``.
    """
    import numpy as np

    owners = tuple(document.site for document in gold) if clients is None else tuple(clients)
    if not len(gold) == len(predicted) == len(owners):
        raise FedlitError(
            f"{len(gold)} documents, {len(predicted)} predictions and {len(owners)} clients do not belong together"
        )
    if relation_ends not in ("mention", "concept"):
        raise FedlitError(f"relation_ends is {relation_ends!r}, expected 'mention' or 'concept'")
    types = {"entities": schema.main, "relations": schema.modifiers, "both": schema.entities}[task]
    rows = [("entity", kind.name) for kind in types]
    rows += [("relation", relation.name) for relation in schema.relations if task != "entities"]
    values = np.zeros((len(gold), len(rows), len(Matches._fields)), dtype=np.int64)
    needed = ["relations" if type.modifier else "entities" for type in types]
    needed += ["relations"] * (len(rows) - len(types))
    sought = [schema.of(document) for document in gold]
    scored = np.array(
        [
            [kind in document.annotated and _has(own, *row) for kind, row in zip(needed, rows, strict=True)]
            for document, own in zip(gold, sought, strict=True)
        ],
        dtype=bool,
    )
    for i, (document, answer, own) in enumerate(zip(gold, predicted, sought, strict=True)):
        guess = _between_sought(answer.document(document), own)
        for j, (kind, type) in enumerate(rows):
            if scored[i, j] and kind == "entity":
                values[i, j] = match_entities(document, guess, type)
            elif scored[i, j]:
                symmetric = schema.relation[type].symmetric
                values[i, j] = match_relations(document, guess, type, relation_ends, symmetric)
    ids = tuple(document.id for document in gold)
    scored = scored.reshape(len(gold), len(rows))
    return SpanCounts(ids, owners, tuple(rows), values, scored, tuple(answer.counts for answer in predicted))


def _has(sought: Schema | None, kind: str, type: str) -> bool:
    """Whether a type was looked for."""
    return sought is not None and type in (sought.entity if kind == "entity" else sought.relation)


def _between_sought(guess: Document, sought: Schema | None) -> Document:
    """A prediction without relations of mentions that were not looked for, where those are not all."""
    if sought is None or (guess.entity_types is None and guess.relation_types is None):
        return guess
    types = {entity.id: entity.type for entity in guess.entities}
    links = tuple(r for r in guess.relations if sought.fits(r.type, types[r.head], types[r.tail]))
    return replace(guess, relations=links)


def beside(left: SpanCounts, right: SpanCounts) -> SpanCounts:
    """Counts of the same documents with other rows: all rows, answers added up.

    Raises:
        FedlitError: The documents are others.
    """
    import numpy as np

    if (left.documents, left.clients) != (right.documents, right.clients):
        raise FedlitError("counts of other documents cannot stand beside each other")
    values, scored = (
        np.concatenate(pair, axis=1) for pair in ((left.values, right.values), (left.scored, right.scored))
    )
    answers = tuple(a + b for a, b in zip(left.answers, right.answers, strict=True))
    return SpanCounts(left.documents, left.clients, left.rows + right.rows, values, scored, answers)


def _ratios(totals: Any, guessed: int, right: int) -> dict[str, Any]:
    """Precision, recall and F1 of totals (..., 5)."""
    import numpy as np

    wanted, found, correct = totals[..., 0], totals[..., guessed], totals[..., right]
    whole = wanted + found
    some = np.where(whole > 0, 1.0, math.nan)
    return {
        "precision": some * np.where(found > 0, _divide(correct, found), 0.0),
        "recall": some * np.where(wanted > 0, _divide(correct, wanted), 0.0),
        "f1": _divide(2 * correct, whole),
    }


def _divide(numerator: Any, denominator: Any) -> Any:
    """Quotient; NaN where the denominator is 0."""
    import numpy as np

    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), math.nan)
