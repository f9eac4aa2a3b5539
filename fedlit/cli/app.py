"""The ``fedlit`` command: a LightningCLI whose trainer is :class:`~fedlit.trainer.FederatedTrainer`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedlit.cli.commands import OTHERS, PARSER, RUNS, add_config, answer_early, subcommands
from fedlit.cli.partition import completed
from fedlit.cli.ranks import Ranks, groups, usual_ranks
from fedlit.cli.start_up import collect_again, without_collection
from fedlit.cli.suggestions import one_line
from fedlit.errors import FedlitError, Interrupted

ANYWHERE: Mapping[str, Any] = {
    "accelerator": "cpu", "devices": None, "num_nodes": 1, "strategy": "auto", "precision": "32-true", "logger": None,
}  # fmt: skip
"""Settings of the trainer with which data are looked at on any machine, and nothing is logged."""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Errors that a user can mend end it with one line and exit code 1; a run that stopped and can be resumed with 3.
    """
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does, so that a rule in a file beside the config is found
    warnings.formatwarning = lambda message, *_, **__: f"fedlit: warning: {message}\n"
    ranks, status = Ranks(), 1
    try:
        _run(args, ranks)
        status = 0
    except Exception as error:
        ours = ours_within(error)
        if ranks.rank:
            if ours is not None:
                ranks.tell(str(ours))
            else:
                ranks.outlive_the_first()
                traceback.print_exc()
            return
        told = ranks.told() if ours is None else str(ours)
        if told is None:
            raise
        sys.stderr.write(f"fedlit: error: {told}\n")
        status = 3 if isinstance(ours, Interrupted) else 1
        raise SystemExit(status) from error
    finally:
        ranks.end(status)


def _run(args: list[str] | None, ranks: Ranks) -> None:
    given = sys.argv[1:] if args is None else args
    if given and given[0] in OTHERS:
        with without_collection():
            command = importlib.import_module(OTHERS[given[0]])
        command.main(given[1:])
        return
    answer_early(given, list(os.environ))
    if args is None:
        sys.argv[1:] = with_packaged_configs(sys.argv[1:])  # in place: other ranks are launched with it
        build(ranks=ranks)
    else:
        build(with_packaged_configs(args))


def ours_within(error: BaseException | None) -> FedlitError | None:
    """The error itself or what it came from: jsonargparse wraps those of constructors, where a field may be None."""
    while error is not None and not isinstance(error, FedlitError):
        error = error.__cause__ or error.__context__
    return error


def with_packaged_configs(args: Sequence[str], packaged: Path = Path(__file__).parents[1] / "configs") -> list[str]:
    """The arguments, with a ``configs/NAME.yaml`` that is not here replaced by the one in the package, which is said.

    Args:
        args: Of the command line.
        packaged: Where an installed package has its configs.
    """
    out: list[str] = []
    for position, argument in enumerate(args):
        option, equals, value = argument.rpartition("=") if argument.startswith("--config=") else ("", "", argument)
        here, name = Path(value), value.removeprefix("configs/")
        named = equals or (position and args[position - 1] in ("--config", "-c"))
        if named and name != value and not here.exists() and (packaged / name).is_file():
            sys.stderr.write(f"fedlit: there is no {value} here; taking the one of the package, {packaged / name}\n")
            argument = f"{option}{equals}{packaged / name}"
        out.append(argument)
    return out


def build(args: list[str] | None = None, run: bool = True, ranks: Ranks | None = None) -> Any:
    """The command line; with ``run=False`` only parsed and instantiated, its subcommand left undone.

    Args:
        args: Instead of ``sys.argv``.
        run: Do the subcommand.
        ranks: Started here, where ``fit`` is best run by several; None: it is run by this process.
    """
    with without_collection():
        try:
            command = parsed(args, ranks)
        except FedlitError as error:
            own = (
                None if " partition: " not in str(error) else completed(sys.argv[1:] if args is None else args, parsed)
            )
            if own is None:
                raise
            if args is None:
                sys.argv[1:], own = own, None
            command = parsed(own, ranks)
    if run:
        command.run()
    return command


def parsed(args: list[str] | None, ranks: Ranks | None = None) -> Any:
    """The command line, parsed and instantiated; its ``run()`` does the subcommand. Arguments are those of `build`."""
    import lightning as L  # noqa: N812
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
    from lightning.pytorch.loggers import Logger

    import fedlit.aggregators
    import fedlit.data
    import fedlit.tasks  # noqa: F401 - short class names resolve only for imported classes
    from fedlit.aggregators import Aggregator
    from fedlit.cli.class_paths import use_clean_class_paths
    from fedlit.cli.texts import use_written_texts
    from fedlit.compression import Transform
    from fedlit.data import FederatedDataModule, Partition
    from fedlit.runs.settings import RunSettings
    from fedlit.strict_yaml import use_strict_yaml
    from fedlit.trainer import FederatedTrainer

    use_strict_yaml()
    use_clean_class_paths()
    use_written_texts()

    class Parser(LightningArgumentParser):
        """Refuses what it does not know, with the nearest name that it does."""

        def error(self, message: str, ex: Exception | None = None) -> Any:
            classes = (Aggregator, L.LightningModule, FederatedDataModule, Partition, Transform, Callback, Logger)
            raise FedlitError(one_line(message, known_names(self, *classes)))

        def add_method_arguments(self, class_type: type, method_name: str, **settings: Any) -> list[str]:
            """As the base does; without a heading where one has the subcommand's name, as the section ``data`` has."""
            heading = method_name not in (self.groups or {})
            added: list[str] = super().add_method_arguments(class_type, method_name, as_group=heading, **settings)
            return added

    class FedlitCLI(LightningCLI):
        """``fedlit fit|validate|test|predict|data``."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {name: {"model", "datamodule", "transport"} for name in RUNS}

        def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
            super()._add_subcommands(parser, **kwargs)
            assert parser._subcommands_action is not None
            for name in OTHERS:  # for --help: `main` runs them
                about = subcommands()[name]
                parser._subcommands_action.add_subcommand(name, Parser(description=about), help=about)

        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            check_environment(parser, os.environ)
            super().parse_arguments(parser, args)
            if self.config.subcommand in OTHERS:
                raise FedlitError(f"{self.config.subcommand} takes no options before it: give it as the first argument")

        def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
            parser = Parser(**kwargs)
            add_config(parser)
            return parser

        def _started(self) -> dict[str, Any]:
            """Settings of the ranks that are started here; ``{}`` where the run needs no others."""
            config, data = self._get(self.config_init, "trainer"), self.datamodule
            if ranks is None or self.config.subcommand != "fit" or data is None or (most := usual_ranks(config)) == 1:
                return {}
            rules = [self._get(self.config_init, "aggregator"), *(config["baselines"] or [])]
            RunSettings.given(dict(config), rules)  # refuses what is out of range, before data are read
            collect_again()
            if getattr(data, "seed", 0) is None:
                data.seed = self._get(self.config, "seed_everything")
            data.prepare_data()
            data.setup("fit")  # before the process is copied, so that all ranks look into the same memory
            count = min(most, groups(config, rules, data.clients))
            if count == 1:
                return {}
            ranks.start(count)
            return {"devices": count, "num_threads": 1}

        def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
            # Lightning's own method refuses a trainer that is not a subclass of its Trainer.
            parser.add_class_arguments(
                FederatedTrainer, "trainer", instantiate=False, sub_configs=True, fail_untyped=False,
                skip={"aggregator", "seed"},
            )  # fmt: skip
            parser.add_subclass_arguments(Aggregator, "aggregator", default={"class_path": "FedAvg"})
            parser.add_lightning_class_args(self._model_class, "model", subclass_mode=True)
            parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True)

        def _run_subcommand(self, subcommand: str) -> None:
            """Nothing: this is called by the constructor."""

        def run(self) -> None:
            super()._run_subcommand(self.config.subcommand)

        def _parse_ckpt_path(self) -> None:
            """Nothing: our checkpoints are folders of safetensors, and no pickle is loaded for hyperparameters."""

        def instantiate_trainer(self, **kwargs: Any) -> FederatedTrainer:  # type: ignore[override]
            config = {**self._get(self.config_init, "trainer"), **self._started()}
            if self.config.subcommand == "data":
                config |= ANYWHERE
            trainer = FederatedTrainer(
                self._get(self.config_init, "aggregator"), **config, seed=self._get(self.config, "seed_everything")
            )
            subcommand = self.config[self.config.subcommand].clone()
            subcommand.ckpt_path = None  # the saved file repeats the whole run
            trainer.config_yaml = self._parser(self.config.subcommand).dump(subcommand, skip_none=False)
            return trainer

    return FedlitCLI(
        L.LightningModule,
        FederatedDataModule,
        trainer_class=FederatedTrainer,  # type: ignore[arg-type] # duck-typed: Lightning only calls its methods
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        save_config_callback=None,
        seed_everything_default=0,
        parser_kwargs={"description": fedlit.__doc__, **PARSER},
        args=args,
    )


def check_environment(parser: Any, environment: Mapping[str, str]) -> None:
    """Refuse an environment variable that reads as a setting and is none: jsonargparse would pass over it.

    Args:
        parser: Of the whole command, with its subcommands.
        environment: Names and values.

    Raises:
        FedlitError: ``FEDLIT_FIT__...`` (or of another subcommand) names no setting; the nearest name is given.
    """
    for action in parser._actions:
        for command, sub in getattr(action, "_name_parser_map", {}).items():
            prefix = f"{parser.env_prefix}_{command}__".upper()
            known = [prefix + one.dest.replace(".", "__").upper() for one in sub._actions]
            for name in environment:
                if name.startswith(prefix) and name not in known:
                    near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
                    raise FedlitError(
                        f"environment variable {name} is no setting" + (f"; did you mean {near[0]!r}?" if near else "")
                    )


def known_names(parser: Any, *bases: type) -> list[str]:
    """Subcommands and keys that the parser takes, and short names of classes."""

    def below(cls: type) -> list[type]:
        children: list[type] = cls.__subclasses__()
        return [cls, *(c for child in children for c in below(child))]

    commands: dict[str, Any] = {}
    for action in parser._actions:
        commands.update(getattr(action, "_name_parser_map", {}))
    keys = [*commands, *(action.dest for one in (parser, *commands.values()) for action in one._actions)]
    return keys + [c.__name__ for base in bases for c in below(base) if c is not base]
