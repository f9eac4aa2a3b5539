"""Documents made in memory, and a reader of them."""

from __future__ import annotations

from from_memory import FromMemory

from fedlit.data import BySite
from fedlit.data.documents.documents import BOTH, Document, Entity, Relation
from fedlit.data.documents.module import DocumentDataModule

SPLITS = ("train", "val", "test")


class Given(FromMemory, DocumentDataModule):
    """Documents."""


def doc(id, text=None, site="a", annotated=BOTH, **kwargs):
    entities = (Entity("T1", "drug", 0, 2), Entity("T2", "problem", 3, 4), Entity("T3", "test", 3, 4))
    relations = (Relation("treats", "T1", "T2"), Relation("shows", "T3", "T2")) if "relations" in annotated else ()
    return Document(id, text or f"ab {id}", entities, relations, site=site, annotated=annotated, **kwargs)


def many(count=24, sites=("a", "b"), **kwargs):
    return [doc(f"d{i}", site=sites[i % len(sites)], **kwargs) for i in range(count)]


def everything(data):
    return {c: {s: data.dataset(c, s).documents for s in SPLITS} for c in data.clients}


def ready(given, seed=0, **kwargs):
    data = Given(given, seed=seed, **({"partition": BySite()} | kwargs))
    data.setup()
    return data
