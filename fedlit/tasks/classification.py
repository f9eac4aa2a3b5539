"""Classification of images, texts, sound and signals with a pretrained encoder, fine-tuned whole or by LoRA."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from fedlit.backbones.lora import LoRA
from fedlit.data.base.names import few
from fedlit.errors import FedlitError
from fedlit.metrics.classification import ClassificationMetrics
from fedlit.tasks.class_losses import (
    balanced_class_weights,
    balanced_label_weights,
    class_counts,
    class_losses,
    given_weights,
    label_losses,
)
from fedlit.tasks.export import backbone_of, load_head, load_network, read_settings, write_head, write_settings
from fedlit.tasks.export_check import encoder_anew
from fedlit.tasks.fine_tuned import FineTuned
from fedlit.tasks.lengths import Lengths
from fedlit.tasks.naive.classification import Logits, classifiers
from fedlit.tasks.schedules import Schedule
from fedlit.tasks.task import Batch, Naive

if TYPE_CHECKING:
    from fedlit.backbones.encoders.family import EncoderFamily

SETTINGS = "classifier.json"


class ClassificationTask(FineTuned):
    """One class for each example, or any number of labels where the data are ``multi_label``.

    A linear head on the encoder's features trains whole beside the adapter, as the parameters ``head.weight`` and
    ``head.bias``: share it or keep it at the client by the name. It has a row for each class of all data together.
    Where a client lacks a class, its softmax still runs over all, so local steps push that class's logit down; such a
    class is in no score of that client (see :class:`~fedlit.metrics.classification.ClassificationMetrics`).

    Args:
        backbone: ``"builtin"`` (Chronos-Bolt's encoder, for signals), a folder, or a Hub id such as
            ``google/vit-base-patch16-224``. Its modality must be the data's. ``stand-in:vit`` is a tiny random one.
        adapter: LoRA settings; None fine-tunes every parameter.
        classes: Names, in the order of the data's indices; None takes the data module's.
        schedule: Course of the learning rate: ``"linear"``, ``"cosine"`` or ``"constant"``, see ``kwargs``.
        loss: ``"cross_entropy"``, or ``"focal"``: times (1 - p)^gamma (Lin et al. 2017, arXiv 1708.02002). With labels,
            binary, mean over labels.
        gamma: Focusing parameter of the focal loss.
        class_weights: ``"none"``; a number for each class; or ``"balanced"``, by counts of each client's own training
            examples and no others', since pooled counts would disclose other clients' (see
            :mod:`fedlit.tasks.class_losses`; classes that a client lacks weigh 1). An example has the weights of its
            client, so pooled training weighs by client too. With labels, they weigh positive examples. A weighted loss
            is divided by the number of examples and not by the sum of weights.
        max_length: Tokens of a text, if fewer than the backbone takes; longer texts are cut.
        channels: Number of signal channels whose features are concatenated; None: the mean over channels.
        kwargs: See :class:`fedlit.tasks.fine_tuned.FineTuned`.

    A batch holds ``x``, ``label`` (int64 (batch,), or float (batch, classes) of 0 and 1), ``id``, ``client`` (lists).
    Without a data module, give ``classes``, and set ``multi_label`` where there are labels.
    """

    def __init__(
        self,
        backbone: str = "builtin",
        adapter: LoRA | None = LoRA(),  # noqa: B008  # frozen
        classes: list[str] | None = None,
        schedule: Schedule = "constant",
        loss: Literal["cross_entropy", "focal"] = "cross_entropy",
        gamma: float = 2.0,
        class_weights: Literal["none", "balanced"] | list[float] = "none",
        max_length: int | None = None,
        channels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, adapter, schedule=schedule, **kwargs)
        if loss not in ("cross_entropy", "focal"):
            raise FedlitError(f"model.loss is {loss!r}: give 'cross_entropy' or 'focal'")
        if not gamma >= 0:
            raise FedlitError(f"model.gamma is {gamma}: give 0 or more")
        self.loss, self.gamma, self.class_weights = loss, gamma, class_weights
        self.max_length, self.channels = max_length, channels
        self.multi_label = False
        self.modality: str | None = None
        self.rate: float | None = None
        self.classes: list[str] | None = None
        self.head: nn.Linear | None = None
        self.val_metrics, self.test_metrics = ClassificationMetrics(), ClassificationMetrics()
        self._family: EncoderFamily | None = None
        self.tally: Lengths = Lengths()
        self._by_client: dict[str, Tensor] = {}
        self._chosen = given_weights(class_weights)
        if classes is not None:
            self._take_classes(classes)

    def take_data(self, data: Any) -> None:
        """Take classes, whether examples have several labels, modality, and the counts that ``class_weights`` needs.

        Raises:
            FedlitError: The data have no classes, or others than the model.
        """
        classes = getattr(data, "classes", None)
        if not isinstance(classes, list | tuple) or not classes:
            raise FedlitError(f"{type(data).__name__} has no classes: ClassificationTask needs data with labels")
        if self.classes is None:
            self._take_classes(classes)
        elif self.classes != list(classes):
            raise FedlitError(
                f"the model's classes are {few(self.classes)}, the data's {few(classes)}: leave model.classes out, "
                "or make a new model for these data"
            )
        self.multi_label = bool(getattr(data, "multi_label", False))
        self.modality = getattr(data, "modality", None)
        self.rate = getattr(data, "rate", None)
        if self.class_weights == "balanced":
            self._by_client = {client: self._balanced(data, client) for client in data.clients}

    def configure_model(self) -> None:
        """Load the encoder, put the adapters on it, and make the head.

        Raises:
            FedlitError: The classes are not known, the backbone cannot be had or is for another modality or sampling
                rate, or an adapter target matches nothing.
        """
        if self.network is not None:
            return
        if self.classes is None:
            raise FedlitError("model.classes is not known: train with a data module that has classes, or give them")
        from fedlit.backbones.encoders.loading import encoder_stand_in, load_encoder

        load = encoder_stand_in if self._stand_in else load_encoder
        loaded = load(self.backbone, max_length=self.max_length, channels=self.channels)
        if self.modality not in (None, loaded.family.modality):
            raise FedlitError(
                f"backbone {self.backbone!r} takes {loaded.family.modality}, and the data hold {self.modality}: take "
                "another backbone"
            )
        wanted = getattr(loaded.family, "rate", None)
        if None not in (wanted, self.rate) and wanted != self.rate:
            raise FedlitError(
                f"backbone {self.backbone!r} takes {wanted:g} Hz, and data.rate is {self.rate:g}: set it to {wanted:g}"
            )
        width = loaded.family.width(loaded.network)
        self._family, self._source = loaded.family, loaded.source
        self.network = self._fine_tunable(loaded.network, loaded.targets)
        self.head = self._first_head(width, len(self.classes))
        self.train(self.training)

    def features(self, batch: Batch) -> Tensor:
        """Inputs of the head, (batch, width)."""
        network = self.loaded_network()
        assert self._family is not None  # set with the network
        self._note(batch)
        return self._family.features(network, batch["x"])

    def logits(self, batch: Batch) -> Tensor:
        """Scores before softmax, or before the sigmoids of labels: (batch, classes), float32."""
        features = self.features(batch)
        assert self.head is not None  # set with the network
        logits: Tensor = self.head(features)
        return logits.float()

    def losses(self, batch: Batch) -> Tensor:
        """One loss per example, (batch,), nats."""
        logits, target = self.logits(batch), self._target(batch)
        measure = label_losses if self.multi_label else class_losses
        return measure(logits, target, self.gamma if self.loss == "focal" else 0.0, self._weights(batch, logits))

    def outputs(self, batch: Batch) -> Tensor:
        """Logits (batch, classes)."""
        with torch.no_grad():
            return self.logits(batch)

    def score_outputs(self, outputs: Tensor, batch: Batch, metrics: Metric) -> None:
        metrics.update(outputs, self._target(batch))

    def naive(self, training: Iterable[Batch]) -> Mapping[str, Naive]:
        """The commonest class of a client's training examples, and a linear model of simple features of these.

        See :func:`fedlit.tasks.naive.classification.classifiers`.
        """
        labelled = ((_values(batch), self._target(batch).cpu().numpy()) for batch in training)

        def add(logits: Logits, batch: Batch, metrics: Metric) -> None:
            metrics.update(torch.from_numpy(logits(_values(batch))), self._target(batch))

        made = classifiers(labelled, self.modality, len(self.classes or ()))
        return {name: partial(add, logits) for name, logits in made.items()}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Any]:
        """Probabilities, by softmax, or by sigmoids of labels.

        Returns:
            ``client``, ``id`` (lists), ``label`` (names; several are joined by "+"), and NumPy arrays ``target`` (the
            batch's ``label``), ``logits`` and ``probabilities`` (batch, classes), whose columns are the attribute
            ``classes``.
        """
        target = self._target(batch)
        with torch.no_grad():
            logits = self.logits(batch)
        p = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
        return {
            "client": list(batch["client"]),
            "id": list(batch["id"]),
            "label": self._names(target),
            "target": target.cpu().numpy(),
            "logits": logits.cpu().numpy(),
            "probabilities": p.cpu().numpy(),
        }

    def prediction_columns(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """Client, id, label, prediction (the likeliest class; labels from 0.5), and ``p_`` and the name of each class:
        a row for each example."""
        p = torch.from_numpy(prediction["probabilities"])
        guessed = self._names((p >= 0.5) if self.multi_label else p.argmax(dim=1))
        columns = {name: prediction[name] for name in ("client", "id", "label")} | {"prediction": guessed}
        return columns | {f"p_{name}": p[:, i].numpy() for i, name in enumerate(self.classes or [])}

    def score_prediction(self, prediction: dict[str, Any], metrics: Metric) -> bool:
        metrics.update(torch.from_numpy(prediction["logits"]), torch.from_numpy(prediction["target"]))
        return True

    def export(self, folder: Path | str, merge: bool = False) -> None:
        """Write the encoder or its adapter, the head, and ``classifier.json``.

        An adapter loads by ``PeftModel.from_pretrained`` onto the encoder. A whole encoder comes with its tokenizer or
        preprocessor, and loads as a backbone, under a new head. :func:`load_classifier` loads either with its head,
        ``head.safetensors``: weight (classes, width) and bias.

        Args:
            folder: Target folder.
            merge: Merge the adapter into a copy of the backbone and write that.
        """
        super().export(folder, merge)

    def write(self, folder: Path, merge: bool) -> None:
        super().write(folder, merge)
        assert self._family is not None  # set with the network
        whole = self.adapter is None or merge
        if whole:
            self._family.save(folder)
        write_head(self.head, folder)
        own = {
            "classes": self.classes,
            "multi_label": self.multi_label,
            "modality": self.describe()["modality"],
            "max_length": self.max_length,
            "channels": self.channels,
        }
        write_settings(self, folder / SETTINGS, whole, own)

    def whole_anew(self, folder: Path) -> nn.Module:
        return encoder_anew(self._family, folder)

    def probe(self, network: nn.Module) -> Tensor:
        """Features of a few made-up examples under the head, (batch, rows)."""
        assert self._family is not None  # set with the network
        assert self.head is not None
        logits: Tensor = self.head(self._family.probe(network))
        return logits

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "family": type(self._family).__name__,
            "modality": getattr(self._family, "modality", None),
            "classes": self.classes,
            "multi_label": self.multi_label,
            "class_weights": self.class_weights,
            "lengths": self.tally.counts(),
        }

    def _note(self, batch: Batch) -> None:
        """Count what is cut off the batch's examples."""
        clients, ids = batch.get("client"), batch.get("id")
        if self._family is None or clients is None or ids is None or not (new := self.tally.unseen(clients, ids)):
            return
        x = batch["x"]
        extent = self._family.extent([x[i] for i in new] if isinstance(x, list | tuple) else x[new])
        if extent is not None:
            mend = "take a backbone that sees more, or cut the data into shorter examples"
            mend = f"raise model.max_length, or {mend}" if extent.unit == "tokens" else mend
            self.tally.note([clients[i] for i in new], [ids[i] for i in new], extent, mend)

    def config(self) -> dict[str, Any]:
        return {**super().config(), "multi_label": self.multi_label}

    def _take_classes(self, classes: Sequence[str]) -> None:
        names = [str(name) for name in classes]
        if len(names) < 2 or len({*names}) < len(names):
            raise FedlitError(f"model.classes is {few(names)}: give two or more names, each once")
        if self._chosen is not None and len(self._chosen) != len(names):
            raise FedlitError(
                f"model.class_weights has {len(self._chosen)} numbers, and there are {len(names)} classes: give one "
                f"for each of {few(names)}"
            )
        self.classes = names

    def _balanced(self, data: Any, client: str) -> Tensor:
        assert self.classes is not None  # taken before
        counts, examples = class_counts(data, client, self.classes)
        weights = balanced_label_weights(counts, examples) if self.multi_label else balanced_class_weights(counts)
        return torch.tensor(weights)

    def _weights(self, batch: Batch, logits: Tensor) -> Tensor | None:
        if self._chosen is not None:
            return self._chosen.to(logits.device)
        if self.class_weights != "balanced":
            return None
        if not self._by_client:
            raise FedlitError("model.class_weights 'balanced' needs a data module, to count; or give a list of numbers")
        even = torch.ones(logits.shape[1])  # the server's own examples are of no client
        return torch.stack([self._by_client.get(client, even) for client in batch["client"]]).to(logits.device)

    def _target(self, batch: Batch) -> Tensor:
        target: Tensor = batch["label"]
        if self.multi_label is not (target.ndim == 2):
            raise FedlitError(f"labels of a batch are {tuple(target.shape)}, and multi_label is {self.multi_label}")
        return target

    def _names(self, target: Tensor) -> list[str]:
        names = self.classes or []
        if target.ndim == 1:
            return [names[i] for i in target.tolist()]
        rows = [[name for name, on in zip(names, row, strict=True) if on] for row in target.tolist()]
        return ["+".join(sorted(row)) or "none" for row in rows]


def _values(batch: Batch) -> Any:
    """What a batch holds of its examples: texts, or an array of all."""
    x = batch["x"]
    return x.cpu().numpy() if isinstance(x, Tensor) else x


def load_classifier(folder: Path | str, backbone: str | None = None) -> ClassificationTask:
    """Load an exported classifier with its head, in evaluation mode, on the CPU.

    Args:
        folder: For instance ``adapters/global`` of a run folder.
        backbone: Where the encoder under an adapter is now; None: where it was at the export.

    Raises:
        FedlitError: The folder holds no exported classifier, or an incomplete one.
    """
    folder = Path(folder)
    about = read_settings(folder / SETTINGS, "ClassificationTask")
    task = ClassificationTask(
        backbone_of(about, folder, backbone),
        adapter=about["adapter"],
        classes=about["classes"],
        max_length=about["max_length"],
        channels=about["channels"],
    )
    task.multi_label = about["multi_label"]
    load_network(task, folder, about, backbone)
    load_head(task.head, folder)
    return task.eval()
