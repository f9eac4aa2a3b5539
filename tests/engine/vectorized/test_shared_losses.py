"""Several models in one pass: the figures of one after the other."""

import lightning as L  # noqa: N812
import pytest
import torch
from toys import Regression, ToyData

from fedlit.aggregators import FedMedLoRAPlus
from fedlit.backbones import LoRA
from fedlit.data import SimulatedNotes
from fedlit.data.documents.documents import Document
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized import check
from fedlit.engine.vectorized.check import why_not_folded
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.tasks import InstructionTask


def fabric() -> L.Fabric:
    return L.Fabric(accelerator="cpu", devices=1)


def models(engine, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in engine.initial().items()}
        for _ in range(count)
    ]


def regression_batches():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 3, generator=generator), torch.randn(n, generator=generator)) for n in (4, 4, 2)]


@pytest.fixture(scope="module")
def notes() -> tuple[InstructionTask, list[dict]]:
    data = SimulatedNotes(notes=16, sites=2)
    data.setup()
    task = InstructionTask("stand-in:llama", LoRA(r=4), format="json", wording="brief")
    task.take_data(data)
    task.configure_model()
    documents: list[Document] = data.dataset(data.clients, "train").documents
    return task, [{"document": documents[a:b], "client": ["a"] * (b - a)} for a, b in ((0, 2), (2, 5))]


@pytest.mark.parametrize("packing", [False, True])
def test_adapters_of_a_language_model(notes, packing):
    task, batches = notes
    task.packing = packing
    batches = [{**one, "index": torch.arange(len(one["client"]))} for one in batches]
    engine = SerialEngine(task, fabric())
    given = models(engine, 5)
    one_by_one = torch.stack(engine.losses(given, batches))
    together = VectorizedEngine(engine).shared
    found = torch.stack(together.losses(iter(given), batches, at_once=3))
    assert found.shape == (5, 5)
    assert found.dtype == torch.float64
    assert together.at_once[3] == (1 if packing else 3)  # a row that holds several documents is nobody's own
    torch.testing.assert_close(found, one_by_one, rtol=1e-5, atol=1e-6)
    assert len({round(float(row.mean()), 4) for row in found}) == 5  # each model has losses of its own


def test_the_network_is_run_once_for_all_of_a_chunk():
    task = Regression()
    engine, calls = SerialEngine(task, fabric()), []
    losses = task.losses
    task.losses = lambda batch: (calls.append(1), losses(batch))[1]
    given, batches = models(engine, 4), regression_batches()
    found = VectorizedEngine(engine).losses(given, batches, at_once=4)
    tried = 7  # whether the network can be folded: what it draws, and twice two alone and together
    assert len(calls) == tried + len(batches)
    for model, seen in zip(given, found, strict=True):
        torch.testing.assert_close(seen, engine.losses([model], batches)[0], rtol=1e-5, atol=1e-6)


class Relative(Regression):
    """The loss of an example hangs on who is beside it."""

    def losses(self, batch):
        values = super().losses(batch)
        return values / values.detach().sum()

    def training_step(self, batch, batch_idx):
        return self.losses(batch).mean()


def test_losses_of_examples_that_are_not_their_own_are_taken_one_by_one():
    engine = SerialEngine(Relative(), fabric())
    given, batches = models(engine, 3), regression_batches()
    together = VectorizedEngine(engine).shared
    found = together.losses(given, batches, at_once=3)
    assert together.at_once[3] == 1
    for model, seen in zip(given, found, strict=True):
        assert torch.equal(seen, engine.losses([model], batches)[0])


@pytest.mark.usefixtures("unrehearsed")
def test_a_run_finds_out_once_that_the_network_cannot_be_folded(fit, monkeypatch):
    tries: list[int] = []
    monkeypatch.setattr(check, "why_not_folded", lambda *given: (tries.append(1), why_not_folded(*given))[1])
    folder = fit(FedMedLoRAPlus(), Relative(), ToyData(server=True), max_rounds=3, clients_at_once=3)
    shares = [row for row in folder.metrics.read() if row["metric"].startswith("influence/")]
    assert {row["round"] for row in shares} == {"1", "2", "3"}
    assert len(tries) == 1


def test_memory_that_does_not_suffice_halves_the_pass(monkeypatch):
    engine = SerialEngine(Regression(), fabric())
    given, batches = models(engine, 5), regression_batches()
    together, sizes = VectorizedEngine(engine).shared, []
    real = together._folded

    def tight(stacked, count, given_batches):
        sizes.append(count)
        if count > 2:
            raise torch.OutOfMemoryError("no room")
        return real(stacked, count, given_batches)

    monkeypatch.setattr(together, "_folded", tight)
    found = together.losses(given, batches, at_once=4)
    assert sizes == [4, 2, 2]
    assert together.at_once[4] == 2
    for model, seen in zip(given, found, strict=True):
        torch.testing.assert_close(seen, engine.losses([model], batches)[0], rtol=1e-5, atol=1e-6)


def test_without_batches_each_model_has_no_losses():
    engine = SerialEngine(Regression(hidden=4), fabric())
    given = models(engine, 3)
    assert len(engine.parameters) == 4
    found = VectorizedEngine(engine).losses(given, [], at_once=3)
    assert [(tuple(one.shape), one.dtype) for one in found] == [((0,), torch.float64)] * 3
