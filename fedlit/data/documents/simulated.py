"""Simulated notes with mentions and relations, of several sites: nothing to download, and nothing of anyone's."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fedlit import seeds
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.documents.documents import Document, Entity, Relation
from fedlit.data.documents.formats import document
from fedlit.data.documents.module import DocumentDataModule
from fedlit.errors import FedlitError

CHEMICALS = (
    "aspirin", "lithium", "heparin", "valproic acid", "caffeine", "ibuprofen", "digoxin", "warfarin", "morphine",
    "metformin", "amoxicillin", "prednisone", "fentanyl", "insulin", "ketamine", "atropine", "cisplatin",
    "tacrolimus", "haloperidol", "nifedipine", "phenytoin", "rifampicin", "doxorubicin", "folic acid",
)  # fmt: skip
DISEASES = (
    "fever", "nausea", "seizures", "liver injury", "cardiac arrhythmia", "rash", "anaemia", "hypotension", "delirium",
    "tremor", "renal failure", "headache", "bleeding", "neutropenia", "dizziness", "oedema", "hypoglycaemia",
    "respiratory depression", "hearing loss", "vomiting", "chest pain", "jaundice", "dry mouth", "insomnia",
)  # fmt: skip
CAUSED = ("{c} caused {d}", "{d} followed {c}", "after {c} came {d}", "{d} was put down to {c}")
APART = ("{c} was given without {d}", "no {d} under {c}", "{d} improved on {c}", "{d} was treated with {c}")
OTHER = ("the course was uneventful", "follow up in two weeks", "vital signs were stable", "no further complaints")


class SimulatedNotes(DocumentDataModule):
    """Short notes in which drugs bring something about, or do not: types ``Chemical``, ``Disease`` and ``CID``.

    Sites differ in which drugs and problems are common there, and in their phrases. Everything is labelled as
    simulated.

    Args:
        notes: How many, dealt evenly over the sites; each is of its own subject.
        sites: How many.
        sentences: Number of sentences in each note.
        simulation_seed: Seed of the notes; ``seed`` is that of partition and split.
        kwargs: See :class:`fedlit.data.documents.module.DocumentDataModule`.
    """

    default_partition: ClassVar[Partition] = BySite()

    def __init__(
        self, notes: int = 240, sites: int = 4, sentences: int = 3, simulation_seed: int = 0, **kwargs: object
    ) -> None:
        self.notes, self.sites, self.sentences, self.simulation_seed = notes, sites, sentences, simulation_seed
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.simulated = True
        if not 0 < sites <= notes or sentences < 1:
            raise FedlitError(
                f"data.notes is {notes}, data.sites {sites}, data.sentences {sentences}: give 1 <= sites <= notes, and "
                "at least one sentence"
            )

    def read(self) -> list[Document]:
        """All notes."""
        wide = len(str(self.notes))
        names = [f"note-{number + 1:0{wide}d}" for number in range(self.notes)]
        return [self._note(number, name) for number, name in enumerate(names) if not self.excluded(name)]

    def write_stand_in(self, folder: Path) -> None:
        """Nothing: there are no files; fewer notes are drawn."""
        self.notes = max(8 * self.sites + self.server_examples, self.stand_in_size(8)[1])

    def _note(self, number: int, name: str) -> Document:
        site = number * self.sites // self.notes
        draw = seeds.numpy_generator(self.simulation_seed, "simulated note", number)
        common = seeds.numpy_generator(self.simulation_seed, "simulated words", site)
        words = [common.dirichlet([0.5] * len(kind)) for kind in (CHEMICALS, DISEASES)]
        style = int(common.integers(len(CAUSED)))
        text, entities, relations = f"Simulated note {number + 1}.", list[Entity](), list[Relation]()
        for _ in range(self.sentences):
            c, d = (str(draw.choice(kind, p=p)) for kind, p in zip((CHEMICALS, DISEASES), words, strict=True))
            linked = bool(draw.integers(2))
            which = style if draw.integers(2) else int(draw.integers(len(CAUSED)))
            phrase = (CAUSED if linked else APART)[which]
            ids = {}
            text += " "
            for part in phrase.replace("{c}", "|c|").replace("{d}", "|d|").split("|"):
                word = {"c": c, "d": d}.get(part, part)
                if part in ("c", "d"):
                    kind = "Chemical" if part == "c" else "Disease"
                    ids[part] = f"T{len(entities) + 1}"
                    entities.append(Entity(ids[part], kind, len(text), len(text) + len(word)))
                text += word
            text += "."
            if linked:
                relations.append(Relation("CID", ids["c"], ids["d"]))
            if draw.integers(3) == 0:
                text += f" {OTHER[int(draw.integers(len(OTHER)))]}."
        place = f"site-{site + 1:0{len(str(self.sites))}d}"
        return document(name, name, text, entities, relations, site=place)
