"""FederatedTrainer: settings and commands of a federated run, on Lightning Fabric."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import lightning as L  # noqa: N812
import torch
from lightning.fabric.strategies.ddp import DDPStrategy
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from fedlit.aggregators import Aggregator
from fedlit.callbacks import CallbackHost
from fedlit.compression import Transform
from fedlit.data import FederatedDataModule
from fedlit.data.base.module import Facts
from fedlit.data.base.overview import Overview
from fedlit.engine.serial import SerialEngine
from fedlit.engine.vectorized.engine import VectorizedEngine
from fedlit.engine.vectorized.heap import keep_freed_memory
from fedlit.errors import FedlitError, named
from fedlit.federation.autotune import settle
from fedlit.federation.loop import FederatedLoop
from fedlit.federation.roster import Roster
from fedlit.federation.scores import Row, nested, summaries
from fedlit.federation.session import Session, labelled, suited
from fedlit.reports.comparison import comparison, print_scores
from fedlit.reports.data.show import show
from fedlit.reports.export import export_models
from fedlit.reports.external import external_table
from fedlit.reports.labels import labels
from fedlit.reports.predictions import write_predictions
from fedlit.reports.progress import Progress
from fedlit.reports.summary import Stopwatch, summarised_rounds, write_summary
from fedlit.runs.folder import METRICS, NAIVE, RunFolder, Table, last_version, next_version
from fedlit.runs.settings import Point, Precision, RunSettings
from fedlit.runs.stragglers import Stragglers
from fedlit.tasks.task import member
from fedlit.transports import LocalSites, RankTransport, Transport
from fedlit.transports.ranks import share_rows
from fedlit.transports.stragglers import StragglingTransport

WAIT = timedelta(days=30)
NO_DATA = "no data: give a datamodule (on the command line: --data NAME or `data:` in the config)"


class FederatedTrainer(CallbackHost):
    """Trains one model over many clients, each on its own data.

    Arguments are named as Lightning names them, with a round where Lightning has an epoch.

    Args:
        aggregator: The federated rule.
        max_rounds: Communication rounds.
        clients_per_round: How many clients take part in a round, as a number or a share; None: all.
        min_replies: How many of a round's clients must count, as a number or a share, or the run stops with an error
            and can be resumed; None: every client must answer, though its reply may be refused.
        deadline_s: Seconds to wait for a round's replies; None: as long as it takes. A client that does not answer in
            time is missing: counted, named, and as if it had not been asked.
        stragglers: Clients that answer late or not at all, drawn at random, to study what that costs in a simulation.
        local_steps: Optimizer steps of a client in a round.
        local_epochs: Epochs of a client in a round, instead of ``local_steps``; may be a fraction.
        baselines: Rules to run on the same data, seeds and compute, for comparison.
        compression: What shortens uploads, one or several in their order: ``TopK``, ``Int8``, ``BFloat16``, see
            :mod:`fedlit.compression`; None: nothing. Baselines use it too. What the server sends is not compressed.
        clients_at_once: Clients that train in one forward and backward pass; 1 trains one after the other. ``auto``
            tries out what is fastest here and fits, see :mod:`fedlit.federation.autotune`. Figures differ in their last
            digits between numbers of clients at once, so a resumed run keeps the number that it began with.
        compile: Compile the pass of several clients by ``torch.compile``; ``auto`` tries it before the first round, and
            compiles where the whole run takes less time, the minute of compiling included.
        check_val_every_n_rounds: Evaluate on validation data every so many rounds, and after the last.
        evaluate_at: When: before training (``start``), each client's model after its local steps and before
            aggregation (``after_local``), the global and the personal models after it (``after_aggregation``).
        limit_eval_clients: Evaluate on the first so many clients only; None: on all.
        limit_eval_batches: Evaluate on the first so many batches of each client only; None: on all.
        monitor: Summary figure whose best round is kept as ``checkpoints/best``, for instance
            ``val/personal/rmse``.
        naive: Compare with predictors that need no network, made from each client's own training examples: the last
            value, the context's mean and its last period of signals; the commonest class and a linear model; a
            dictionary of the mentions. They train nothing and change no other figure. Or only those named. See
            docs/naive.md.
        gradient_clip_val: Largest L2 norm of a step's gradient over all of a client's tensors.
        accumulate_grad_batches: Batches of an optimizer step, whose gradients are averaged. An epoch then has fewer
            steps; where it does not go, its last step takes batches of the next.
        fast_dev_run: Run 1 round (or that many) of 1 step with 2 clients, or as many as the rule needs, on a tiny
            stand-in backbone and generated data, to see that a configuration works.
        name: Runs go to ``<default_root_dir>/<name>/version_N``.
        default_root_dir: Where runs go.
        logger: Lightning loggers (W&B, TensorBoard), besides ``metrics.csv``, which is always written.
        callbacks: :class:`fedlit.callbacks.Callback`, or Lightning's where they follow epochs, as EarlyStopping does.
        enable_progress_bar: Show progress: bars in a terminal, plain lines elsewhere.
        accelerator: As in Fabric.
        devices: As in Fabric; each rank trains a share of the clients, with the same result. None: one; but on a CPU
            the command ``fedlit fit`` starts one rank of one thread for each core, see :mod:`fedlit.cli.ranks`.
        num_nodes: As in Fabric.
        strategy: As in Fabric; ``auto`` is enough for one device and for several.
        precision: As in Fabric; parameters that train stay float32.
        num_threads: CPU threads of each rank; None: as many as PyTorch takes for one process. Results may differ in
            the last bits between numbers of threads, so it is part of what a resume must repeat.
        seed: Of everything random.

    Raises:
        FedlitError: An argument is out of range, or two contradict each other.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        *,
        max_rounds: int = 10,
        clients_per_round: int | float | None = None,
        min_replies: int | float | None = None,
        deadline_s: float | None = None,
        stragglers: Stragglers | None = None,
        local_steps: int | None = None,
        local_epochs: float | None = None,
        baselines: list[Aggregator] | None = None,
        compression: Transform | list[Transform] | None = None,
        clients_at_once: int | Literal["auto"] = 1,
        compile: bool | Literal["auto"] = False,
        check_val_every_n_rounds: int = 1,
        evaluate_at: list[Point] | None = None,
        limit_eval_clients: int | None = None,
        limit_eval_batches: int | None = None,
        monitor: str | None = None,
        naive: bool | list[str] = True,
        gradient_clip_val: float | None = None,
        accumulate_grad_batches: int = 1,
        fast_dev_run: bool | int = False,
        name: str = "fedlit",
        default_root_dir: str = "runs",
        logger: Logger | list[Logger] | None = None,
        callbacks: Callback | list[Callback] | None = None,
        enable_progress_bar: bool = True,
        accelerator: str = "auto",
        devices: int | str | list[int] | None = None,
        num_nodes: int = 1,
        strategy: str = "auto",
        precision: Precision = "32-true",
        num_threads: int | None = None,
        seed: int = 0,
    ) -> None:
        given = locals()
        self.aggregator, self.baselines = aggregator, baselines or []
        self.settings = RunSettings.given(given, [aggregator, *self.baselines])
        chosen = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        super().__init__([*chosen, Progress()] if enable_progress_bar else chosen)
        self.check_val_every_n_epoch = self.settings.check_val_every_n_rounds
        loggers = [logger] if isinstance(logger, Logger) else logger
        several = num_nodes > 1 or devices not in (None, 0, 1, "0", "1", "auto", [0])
        self.fabric = L.Fabric(
            accelerator=accelerator,
            devices=1 if devices is None else devices,
            num_nodes=num_nodes,
            # A rank may wait for others for hours: one that has died is noticed otherwise.
            strategy=DDPStrategy(timeout=WAIT) if strategy == "auto" and several else strategy,
            precision=precision,
            loggers=loggers,  # type: ignore[arg-type]
        )
        if precision == "16-mixed" and self.fabric.device.type == "cpu":  # Fabric would take bf16-mixed, with a warning
            raise FedlitError("trainer.precision 16-mixed needs a GPU: on a CPU take bf16-mixed or 32-true")
        self.config_yaml: str | None = None
        self.folder = RunFolder(Path(default_root_dir))

    def __getattr__(self, name: str) -> Any:
        """A setting, by the name of its argument."""
        if name != "settings" and name in RunSettings.__dataclass_fields__:
            return getattr(self.settings, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # -- commands --------------------------------------------------------------------------------------------------
    def fit(
        self,
        model: L.LightningModule,
        datamodule: FederatedDataModule | None = None,
        ckpt_path: str | None = None,
        transport: Transport | None = None,
    ) -> RunFolder:
        """Train, by the rule and by each baseline, and compare them on test data.

        Args:
            model: The task; a LightningModule.
            datamodule: The clients and their data. With ``transport``, the server's own data, for rules that ask for
                some.
            ckpt_path: ``last`` to go on with the newest run of this name, or a run folder.
            transport: Reaches sites that hold their data themselves; None: clients are simulated in this process.

        Returns:
            The run folder.

        Raises:
            Interrupted: Too few clients answered in time; the run can be resumed.
        """
        watch = Stopwatch()
        folder, checkpoint = self._open(ckpt_path)
        if checkpoint != "last":
            raise FedlitError(
                f"ckpt_path {ckpt_path}: a run goes on from its last round; `best` is for test and predict"
            )
        session = self._session(model, datamodule, transport, trains=True)
        for run in session.rules:  # before a file of theirs is written
            loop = FederatedLoop(session, run)
            if loop.folder.checkpoints.exists():
                loop.check(loop.folder.checkpoints.read())
            self._dry_run(loop)
        self.fabric.barrier()
        if self.fabric.is_global_zero:
            folder.make()
            if self.config_yaml is not None:  # also on a resume, which may ask for more rounds
                folder.write_text("config.yaml", self.config_yaml)
            folder.write_json("partition.json", session.partition())
            for name, text in (member(session.task, "run_files") or dict)().items():
                if not (folder.path / name).exists():  # it may have been edited
                    folder.write_text(name, text)
        for logger in self.fabric.loggers:
            logger.log_hyperparams({**session.fingerprint(session.aggregator), "run_folder": str(folder.path)})
        self.lightning("setup", "fit")
        for hook in ("on_fit_start", "on_train_start"):
            self.lightning(hook)
        try:
            naive = self._naive(session, folder)
            results = {session.label(run): self._run(session, run, watch, naive) for run in session.rules}
        except BaseException as error:
            self.lightning("on_exception", error)
            raise
        finally:
            session.engine.load({})  # the task as it came, so that a second command starts from the same values
        for hook in ("on_train_end", "on_fit_end"):
            self.lightning(hook)
        self.lightning("teardown", "fit")
        for logger in self.fabric.loggers:
            logger.finalize("success")
        if self.fabric.is_global_zero:
            said = [*labels(session), f"one seed: {self.settings.seed}"]
            tests = {rule: tested for rule, (tested, _) in results.items()}
            comparison(tests, folder, said, session.task.test_metrics, naive)
            if session.roster.external:
                outside = {rule: external for rule, (_, external) in results.items()}
                external_table(outside, folder, said, session.task.test_metrics)
        return folder

    def validate(
        self, model: L.LightningModule, datamodule: FederatedDataModule | None = None, ckpt_path: str | None = None
    ) -> list[Row]:
        """Scores of the global and the personal models on validation data, without training."""
        return self._score("val", model, datamodule, ckpt_path)

    def test(
        self, model: L.LightningModule, datamodule: FederatedDataModule | None = None, ckpt_path: str | None = None
    ) -> list[Row]:
        """Scores of the global and the personal models on test data, without training."""
        return self._score("test", model, datamodule, ckpt_path)

    def predict(
        self, model: L.LightningModule, datamodule: FederatedDataModule | None = None, ckpt_path: str | None = None
    ) -> Path:
        """Write what each client's personal model predicts on its test data to the task's ``prediction_file``.

        Returns:
            The file.
        """
        loop = self._restored(model, datamodule, ckpt_path)
        path = write_predictions(loop, loop.folder)
        loop.session.engine.load({})
        return path

    def data(
        self,
        model: L.LightningModule,
        datamodule: FederatedDataModule | None = None,
        ckpt_path: str | None = None,
        html: str | None = None,
        json: str | None = None,
        samples: int | None = None,
    ) -> Overview:
        """Show what would be read, without training: clients, splits, channels, classes, what was left out and why.

        No backbone is loaded, and no run folder is made.

        Args:
            model: The task, whose classes or types the data must have.
            datamodule: The clients and their data.
            ckpt_path: Must be None: no run is looked at.
            html: File for the same with charts, and, unless ``samples`` is 0, a few samples of each client's data.
            json: File for the same as JSON, without samples.
            samples: Samples of each client, and of each kind of signal, in ``html``, of images twice as many, of texts
                and documents none; None: 4.
        """
        if ckpt_path is not None:
            raise FedlitError(f"ckpt_path {ckpt_path}: `fedlit data` looks at data and at no run: leave it out")
        if datamodule is None:
            raise FedlitError(NO_DATA)

        def made(count: int) -> Overview:
            self._read(model, datamodule)
            if (take_data := member(model, "take_data")) is not None:
                take_data(datamodule)
            return datamodule.overview(count)

        return show(made, html, json, samples)

    # -- parts of the commands -------------------------------------------------------------------------------------
    def _open(self, ckpt_path: str | None) -> tuple[RunFolder, str]:
        """Launch, and settle on one folder on all ranks; and which of its committed rounds is meant."""
        self.fabric.launch()
        # Fabric gives each of several ranks fewer threads; results must not depend on the number of ranks.
        threads = self.fabric.broadcast(self.settings.num_threads)
        self.settings = replace(self.settings, num_threads=threads)
        torch.set_num_threads(threads)
        checkpoint = "best" if ckpt_path and Path(ckpt_path).name == "best" else "last"
        root, name = Path(self.settings.default_root_dir), self.settings.name
        if ckpt_path is None:
            path = next_version(root, name)
        elif ckpt_path in ("last", "best"):
            path = last_version(root, name)
        else:
            path = Path(ckpt_path)
            path = path.parent.parent if path.parent.name == "checkpoints" else path
            if not RunFolder(path).checkpoints.exists():
                raise FedlitError(
                    f"{ckpt_path}: not a run folder with a committed round; give `last`, `best`, a run folder, or its "
                    "checkpoints/last or checkpoints/best"
                )
        self.folder = RunFolder(Path(self.fabric.broadcast(str(path))))
        return self.folder, checkpoint

    def _session(
        self,
        model: Any,
        datamodule: FederatedDataModule | None,
        transport: Transport | None = None,
        trains: bool = False,
    ) -> Session:
        """What the run works with, its model loaded and its data read; said in a line or two."""
        if datamodule is None and transport is None:
            raise FedlitError(NO_DATA)
        if transport is not None and self.world_size > 1:
            raise FedlitError("sites elsewhere are asked by one rank: set trainer.devices to 1")
        settings = self.settings
        self._read(model, datamodule)
        remote = None if transport is None else Roster.of(transport.describe())
        if (take_data := member(model, "take_data")) is not None:
            take_data(datamodule if remote is None else Facts(remote.facts, remote.examples))
        model.setup("fit")
        model.configure_model()
        self.lightning_module, self.datamodule = model, datamodule
        engine = VectorizedEngine(
            SerialEngine(model, self.fabric, settings.gradient_clip_val, settings.accumulate_grad_batches),
            self._one_by_one,
        )
        rules = suited(labelled(self.aggregator, self.baselines), model, self.fabric.print)
        if transport is None:
            assert datamodule is not None
            transport = RankTransport(LocalSites(datamodule, engine, rules, settings, self.folder.path), self.fabric)
        roster = remote or Roster.of(transport.describe())
        if remote is not None:
            roster.check(engine)
        if settings.stragglers is not None:
            transport = StragglingTransport(transport, settings.stragglers, settings.seed)
        if settings.clients_at_once != 1 and self.fabric.device.type == "cpu":
            keep_freed_memory()
        session = Session(settings, self.fabric, model, engine, roster, transport, rules, self.folder, self, datamodule)
        self._announce(session)
        self.session = replace(session, settings=settle(session, trains))
        return self.session

    def _read(self, model: Any, datamodule: FederatedDataModule | None) -> None:
        """Read the data, or, in a ``fast_dev_run``, a stand-in."""
        parts: list[Any] = [model, datamodule]
        for part in parts:
            if getattr(part, "seed", self.settings.seed) is None:
                part.seed = self.settings.seed
        if self.settings.fast_dev_run:
            model.use_stand_in()
            self._stand_in_folder = tempfile.TemporaryDirectory(prefix="fedlit-stand-in-")
            if datamodule is not None:
                datamodule.use_stand_in(Path(self._stand_in_folder.name))
        if datamodule is not None:
            if self.fabric.is_global_zero:
                datamodule.prepare_data()
            self.fabric.barrier()
            datamodule.setup("fit")

    def _naive(self, session: Session, folder: RunFolder) -> list[Row]:
        """Scores of what needs no network on test data, written to ``naive.csv``."""
        rows = FederatedLoop(session).naive_scores("test")
        if rows and self.fabric.is_global_zero:
            table = Table(folder.path / NAIVE, METRICS)
            table.cut(0)
            table.append(rows)
        return rows

    def _run(self, session: Session, run: str, watch: Stopwatch, naive: Sequence[Row]) -> tuple[list[Row], list[Row]]:
        """One rule to its end: its final scores on test data, and those on external sites."""
        loop = FederatedLoop(session, run)
        folder = loop.folder
        if self.fabric.is_global_zero:
            folder.make()
        self.load_callbacks(self._fresh_callbacks, should_stop=False)
        self.log_prefix = f"{run}/" if run else ""
        loop.run()
        stage: Point = "after_aggregation" if loop.plan.cohorts else "start"
        rows = loop.scores(stage, "test", loop.rounds_done)
        external = loop.external_scores(stage, loop.rounds_done)
        if rows or external:
            self.log_values(summaries([*rows, *external]), loop.rounds_done)
        if (tally := member(session.task, "tally")) is not None:  # each rank saw its own clients
            share_rows(tally.rows, self.fabric)
        export_models(loop, folder.path / "adapters")
        if self.fabric.is_global_zero:
            committed = folder.checkpoints.read()
            folder.metrics.cut(committed.meta["metrics_bytes"])
            folder.metrics.append([*rows, *external])
            if loop.rounds_done > loop.first_round or summarised_rounds(folder) != loop.rounds_done:
                write_summary(loop, nested(rows), watch, {} if run else nested(naive), nested(external))
        self.fabric.barrier()
        return rows, external

    def _restored(
        self, model: L.LightningModule, datamodule: FederatedDataModule | None, ckpt_path: str | None
    ) -> FederatedLoop:
        """The loop at a committed round (``last``, ``best``, or a folder), or of the untrained model without one."""
        _, checkpoint = self._open(ckpt_path)
        loop = FederatedLoop(self._session(model, datamodule))
        if ckpt_path is not None:
            loop.restore(checkpoint, ("aggregator", "model"))
        if self.fabric.is_global_zero:
            loop.folder.make()
        return loop

    def _score(
        self, split: str, model: L.LightningModule, datamodule: FederatedDataModule | None, ckpt_path: str | None
    ) -> list[Row]:
        loop = self._restored(model, datamodule, ckpt_path)
        session, folder = loop.session, loop.folder
        stage: Point = "after_aggregation" if loop.rounds_done else "start"
        rows = loop.scores(stage, split, loop.rounds_done)
        rows += loop.naive_scores(split)
        external = loop.external_scores(stage, loop.rounds_done) if split == "test" else []
        session.engine.load({})
        if self.fabric.is_global_zero:
            outside = {"external": nested(external)} if external else {}
            folder.write_json(f"{split}.json", nested(rows) | outside)
            what = f"{session.label('')} after {loop.rounds_done} rounds, {split} data"
            print_scores(rows, what, labels(session), folder.path, session.metrics(split))
            if external:
                external_table({session.label(""): external}, folder, labels(session), session.metrics(split))
        return [*rows, *external]

    def _one_by_one(self, reason: str) -> None:
        self.fabric.print(f"clients train one after the other: {reason}")

    def _announce(self, session: Session) -> None:
        self.fabric.print(f"run folder: {self.folder.path}\n{'; '.join(labels(session))}")
        if self.world_size > 1:
            self.fabric.print(f"{self.world_size} ranks, threads of each: {self.settings.num_threads}")

    def _dry_run(self, loop: FederatedLoop) -> None:
        """Refuse a rule that cannot work here, and say of one that reads single updates that it does."""
        with named(loop.rule):
            trusts = loop.dry_run()
        name = loop.session.label(loop.run_name)
        if trusts is None:
            self.fabric.print(f"{name} may read each client's update: it could not be tried out before the first round")
        elif trusts:
            self.fabric.print(f"{name} reads each client's update: this rule trusts the server")
