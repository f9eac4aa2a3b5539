"""Simulated examples to classify, of subjects at several sites: nothing to download, and nothing of anyone's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedlit import seeds
from fedlit.data.base.partitions import BySite, Partition
from fedlit.data.classification.examples import Example, Modality
from fedlit.data.classification.module import ClassificationDataModule
from fedlit.data.generated import examples as synthesis
from fedlit.errors import FedlitError


class SimulatedExamples(ClassificationDataModule):
    """Subjects at sites that differ in how they record and in how common each class is; made anew in each run.

    A subclass says what is drawn. Everything is labelled as simulated.

    Args:
        subjects: How many, dealt evenly over the sites; every one has one class.
        sites: How many.
        per_subject: Examples of each subject.
        mix: Concentration of the Dirichlet from which a site's share of each class is drawn: small for sites of few
            classes, large for sites that are alike.
        simulation_seed: Seed of the simulated subjects; ``seed`` is that of partition and split.
        kwargs: See :class:`fedlit.data.classification.module.ClassificationDataModule`.
    """

    default_partition: ClassVar[Partition] = BySite()
    modality: ClassVar[Modality]
    class_names: tuple[str, ...]
    draw: ClassVar[Callable[..., Any]]
    kind: ClassVar[str]

    def __init__(
        self,
        subjects: int = 120,
        sites: int = 6,
        per_subject: int = 4,
        mix: float = 0.5,
        simulation_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self.subjects, self.sites, self.per_subject = subjects, sites, per_subject
        self.mix, self.simulation_seed = mix, simulation_seed
        super().__init__(**kwargs)
        self.simulated = True
        if not 0 < sites <= subjects:
            raise FedlitError(f"data.sites is {sites}, data.subjects {subjects}: give 1 <= sites <= subjects")
        if not per_subject >= 1 or not mix > 0:
            raise FedlitError(f"data.per_subject is {per_subject}, data.mix {mix}: give numbers above 0")

    def read(self) -> list[Example]:
        """All examples; a value is drawn when it is asked for."""
        wide, deep = len(str(self.subjects)), len(str(self.per_subject))
        out = []
        for subject in range(self.subjects):
            site = subject * self.sites // self.subjects
            generator = seeds.numpy_generator(self.simulation_seed, "simulated class", type(self).__name__, subject)
            label = self.class_names[int(generator.choice(len(self.class_names), p=self._shares(site)))]
            for number in range(self.per_subject):
                name = f"subject-{subject + 1:0{wide}d}-{number + 1:0{deep}d}"
                if not self.excluded(name):
                    values = partial(self._value, label, site, subject, number)
                    where = f"site-{site + 1:0{len(str(self.sites))}d}"
                    owner = f"subject-{subject + 1:0{wide}d}"
                    out.append(Example(name, owner, where, self.kind, (label,), values, self.rate))
        return out

    def write_stand_in(self, folder: Path) -> None:
        """Nothing: there are no files; fewer subjects are drawn."""
        self.subjects, self.per_subject = max(8 * self.sites, self.stand_in_size()[0] * 8), 2

    def _shares(self, site: int) -> Any:
        generator = seeds.numpy_generator(self.simulation_seed, "simulated mix", type(self).__name__, site)
        return generator.dirichlet([self.mix] * len(self.class_names))

    def _value(self, label: str, site: int, subject: int, number: int) -> Any:
        style = seeds.numpy_generator(self.simulation_seed, "simulated style", site).uniform(-1, 1, synthesis.STYLES)
        # A subject's own manner: what its examples have in common besides the class.
        own = seeds.numpy_generator(self.simulation_seed, "simulated manner", subject).normal(0, 0.3, synthesis.STYLES)
        generator = seeds.numpy_generator(self.simulation_seed, "simulated value", subject, number)
        return type(self).draw(label, np.clip(style + own, -1, 1), generator)


class SimulatedImages(SimulatedExamples):
    """Stained cells, 32 pixels by 32, in five classes: see :func:`fedlit.data.generated.examples.image`."""

    modality: ClassVar[Modality] = "image"
    class_names = synthesis.IMAGE_CLASSES
    draw = staticmethod(synthesis.image)
    kind = "image"


class SimulatedTexts(SimulatedExamples):
    """Lines of notes in five classes: see :func:`fedlit.data.generated.examples.text`."""

    modality: ClassVar[Modality] = "text"
    class_names = synthesis.TEXT_CLASSES
    draw = staticmethod(synthesis.text)
    kind = "text"


class SimulatedSounds(SimulatedExamples):
    """Breaths of a second in four classes: see :func:`fedlit.data.generated.examples.sound`."""

    modality: ClassVar[Modality] = "audio"
    class_names = synthesis.SOUND_CLASSES
    draw = staticmethod(synthesis.sound)
    rate = float(synthesis.SOUND_RATE)
    kind = "audio"


class SimulatedSignals(SimulatedExamples):
    """Three leads of an ECG in five classes: see :func:`fedlit.data.generated.examples.signal`."""

    modality: ClassVar[Modality] = "signal"
    class_names = synthesis.SIGNAL_CLASSES
    draw = staticmethod(synthesis.signal)
    rate = synthesis.SIGNAL_RATE
    kind = "ecg"
