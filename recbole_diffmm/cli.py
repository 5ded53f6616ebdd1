"""The console script, `recbole-diffmm`: each command in a function of its own."""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from recbole_diffmm import __version__, told_of_recbole
from recbole_diffmm.errors import RecBoleMissingError, UserError, nearest
from recbole_diffmm.quiet import quiet_libraries

_SETTINGS = """
Every other --key=value is a setting and wins over the files. Values are YAML: --learning_rate=1e-4, --topk=[10,20],
--use_modalities="[text]"; text with brackets in quotes of its own: --user_inter_num_interval='"[10,inf)"'.
`recbole-diffmm models NAME` lists a model's own settings, properties/overall.yaml the general ones. Among them:
  --protocol=recbole|paper   paper masks training items alone at test and looks at test in training, as published code
  --resume=true              continue a stopped run of the same settings; a finished one gives its record
  --eval_graph=full|dropped  which graph DiffMM scores with, for evaluate too
"""

_EXAMPLES = """
examples:
  recbole-diffmm run
  recbole-diffmm run --model=LightGCN --dataset=ml-100k --learning_rate=0.005
  recbole-diffmm run -m DiffMM -d tiktok --config_files="mine.yaml more.yaml" --use_modalities="[image]"
  recbole-diffmm compare --models=DiffMM,Pop,BPR,LightGCN,EASE --dataset=ml-100k
  recbole-diffmm leaderboard quick
  recbole-diffmm tune --model=LightGCN --dataset=ml-100k --trials=20
  recbole-diffmm convert diffmm path/to/tiktok --name tiktok --out dataset/
  recbole-diffmm evaluate saved/DiffMM-ml-100k-s2026-0123abcd.pth
  recbole-diffmm models DiffMM
  recbole-diffmm doctor
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the console script and return its exit code: 0, or 2 where the user can put something right.

    Args:
        arguments: what follows the program's name; None takes the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ° still shows a table
    parser = _parser()
    given, settings = parser.parse_known_args(arguments)
    quiet_libraries()
    try:
        if settings and not given.takes_settings:
            raise UserError(f"{given.command} does not take {settings[0]!r}; see recbole-diffmm {given.command} --help")
        given.action(given, settings)
    except UserError as error:
        if not (told_of_recbole and isinstance(error, RecBoleMissingError)):  # importing the package has said it
            sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt as stopped:
        sys.stderr.write(f"stopped{': ' if str(stopped) else ''}{stopped}\n")
        return 130
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            # What no check has foreseen: a name that is too long, a folder that went away, a full disk.
            place = f"{error.filename}: " if error.filename else ""
            reason = (error.strerror or str(error) or type(error).__name__).lower()
            sys.stderr.write(f"error: {' '.join(f'{place}{reason}'.split())}; mend that and give the command again\n")
            return 2
        # The reader of our output, such as `head`, has gone; Python would complain once more while closing.
        sys.stdout = None  # type: ignore[assignment]
        return 141
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of this package's, with the nearest of what was allowed."""

    def error(self, message: str) -> NoReturn:
        wrong = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
        if wrong:
            name, got, known = wrong.groups()
            choices = [choice.strip(" '") for choice in known.split(",")]
            message = f"unknown {name} {got!r}{nearest(got, choices) or ' (known: ' + ', '.join(choices) + ')'}"
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="recbole-diffmm",
        description="DiffMM and other multimodal recommenders inside RecBole.",
        epilog=_SETTINGS + _EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"recbole-diffmm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    run = _command(commands, "run", _run, "train a model, test its best epoch and write the record", settings=True)
    run.add_argument("-m", "--model", help="a model's name (default: DiffMM); recbole-diffmm models lists all")
    run.add_argument("-d", "--dataset", help="a dataset's name (default: ml-100k, which is bundled)")
    _config_files(run)

    compare = _command(commands, "compare", _compare, "run several models and print one table", settings=True)
    compare.add_argument("-m", "--models", default="DiffMM,Pop,BPR,LightGCN,EASE", help="names, separated by commas")
    compare.add_argument("-d", "--dataset", default="ml-100k", help="a dataset's name (default: ml-100k)")
    _config_files(compare)

    what = "make a leaderboard: run what is missing, then write its tables and pages"
    leaderboard = _command(commands, "leaderboard", _leaderboard, what)
    leaderboard.add_argument("board", nargs="?", help="a YAML file, or the name of one in properties/leaderboard/")
    leaderboard.add_argument(
        "-m", "--models", help="rows to run, separated by commas (default: all); the others need no tuning yet"
    )
    leaderboard.add_argument("--workers", type=int, help="runs at a time (default: one a GPU, or as cores allow)")
    leaderboard.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host:8786")
    leaderboard.add_argument("--rerun_stale", action="store_true", help="run again what code or data changed for")
    leaderboard.add_argument(
        "--confirm_stale",
        type=int,
        nargs="?",
        const=3,
        metavar="EPOCHS",
        help="train the first epochs (default: 3) of what code changed for; what comes out the same is not stale",
    )
    leaderboard.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="on another machine than the records': compare --confirm_stale with the code that made them, trained here",
    )
    leaderboard.add_argument(
        "--render", type=Path, metavar="FOLDER", help="write a board's views from its records alone"
    )
    leaderboard.add_argument(
        "--compare", type=Path, nargs=2, metavar="RECORD", help="tell what changed between two runs"
    )

    tune = _command(commands, "tune", _tune, "search a model's best settings on validation", settings=True)
    tune.add_argument("-m", "--model", help="a model's name, or a row's with --board")
    tune.add_argument("-d", "--dataset", help="a dataset's name (default: ml-100k)")
    tune.add_argument("--trials", type=int, help="settings to try (default: 20)")
    tune.add_argument(
        "--minutes", type=float, help="begin no trial after so many minutes of training (default: no end)"
    )
    tune.add_argument(
        "--finalists",
        type=int,
        help="best settings that are trained again with two more seeds to choose by (default: 1)",
    )
    tune.add_argument(
        "--final_only", action="store_true", help="hold the final of searches that are done, as their reports have them"
    )
    tune.add_argument("--board", help="tune every row of a leaderboard with its budget; --model names one of them")
    tune.add_argument("--space", type=Path, metavar="FILE", help="ranges (default: properties/tune/<Model>.yaml)")
    tune.add_argument("--workers", type=int, help="trials at a time (default: one a GPU, or as cores allow)")
    tune.add_argument("--storage", metavar="FILE|URL", help="where the study is kept, such as postgresql://...")
    tune.add_argument("--label", default="", help="name of the search and its files (default: the model's)")
    tune.add_argument("--out", type=Path, help="where the best settings go (default: properties/tuned)")
    tune.add_argument("--reports", type=Path, help="where reports and pictures go (default: results/tuning)")
    _config_files(tune)

    convert = _command(commands, "convert", _convert, "turn a published dataset into RecBole's files")
    convert.add_argument("format", choices=["diffmm"], help="the published format")
    convert.add_argument("folder", type=Path, help="folder of the published files")
    convert.add_argument("--name", required=True, help="name of the dataset to write")
    convert.add_argument("--out", type=Path, default=Path("dataset"), help="where datasets live (default: dataset)")
    convert.add_argument("--overwrite", action="store_true", help="replace a dataset of that name with other content")

    what = "print a checkpoint's validation and test metrics"
    evaluate = _command(commands, "evaluate", _evaluate, what, settings=True)
    evaluate.add_argument("checkpoint", type=Path, help="a .pth file that a run wrote")

    models = _command(commands, "models", _models, "list the models, or one model's settings")
    models.add_argument("name", nargs="?", help="the model whose settings to list")

    _command(commands, "doctor", _doctor, "print versions, device, mended RecBole defects and search paths")
    return parser


def _command(
    commands: Any, name: str, action: Callable[[Any, list[str]], None], help_: str, *, settings: bool = False
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_,
        description=help_[0].upper() + help_[1:] + ".",
        epilog=_SETTINGS if settings else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(action=action, takes_settings=settings)
    return command


def _config_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config_files", default="", metavar='"A.yaml B.yaml"', help="YAML files; later ones win")


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _say(text: str) -> None:
    if sys.stdout is not None:  # closed: nobody wants to know
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def _run(given: Any, settings: list[str]) -> None:
    from recbole_diffmm.compare import render
    from recbole_diffmm.quick_start import run
    from recbole_diffmm.sources import parse_overrides, read_yaml

    files = given.config_files.split()
    overrides = parse_overrides(settings)
    named: dict[str, Any] = {}
    for file in files:  # as in RecBole, a file may name the model and the dataset
        named.update(read_yaml(Path(file)))
    model = named.get("model", "DiffMM") if given.model is None else given.model
    dataset = named.get("dataset", "ml-100k") if given.dataset is None else given.dataset
    result = run(model, dataset, files, None, overrides)
    _say(render([result.record]))
    _say(f"record: {result.record_path}")


def _compare(given: Any, settings: list[str]) -> None:
    from recbole_diffmm.compare import compare, render
    from recbole_diffmm.sources import parse_overrides

    names = _names(given.models)
    failures: dict[str, str] = {}
    overrides = parse_overrides(settings)
    records = compare(names, given.dataset, given.config_files.split(), None, overrides, failures=failures)
    if records:
        _say(render(records))
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
        raise UserError(f"{len(failures)} of {len(names)} models failed: {reasons}")


def _leaderboard(given: Any, _: list[str]) -> None:
    if sum(bool(asked) for asked in (given.board, given.render, given.compare)) != 1:
        raise UserError(
            "give one of: a board (a YAML file, or one of properties/leaderboard/, such as quick), --render FOLDER, "
            "--compare A.json B.json"
        )
    rows = _names(given.models or "")
    if given.models is not None and not (rows and given.board):
        raise UserError(f"--models is {given.models!r}; give a board and names of its rows, separated by commas")
    if given.compare:
        from recbole_diffmm.leaderboard.difference import describe

        _say(describe(*given.compare))
        return
    from recbole_diffmm.leaderboard.render import render

    if given.render:
        board = render(given.render)
        if board is None:
            raise UserError(f"{given.render} holds no board.json; recbole-diffmm leaderboard BOARD writes it")
        _say_board(board, given.render)
        return
    from recbole_diffmm.leaderboard.make import make

    asked = {"rerun_stale": given.rerun_stale, "confirm_stale": given.confirm_stale, "against": given.against}
    made = make(given.board, given.workers, given.scheduler, rows=rows, **asked)
    board = render(made.folder, made.data_path, only_if_changed=True)
    if board is None:
        _say(f"nothing has changed: {made.folder / 'index.html'}")
    else:
        _say_board(board, made.folder)
    if made.stale:
        reasons = "; ".join(dict.fromkeys(made.stale.values()))
        _say(
            f"{len(made.stale)} runs are stale ({reasons}); --rerun_stale runs them again, --confirm_stale tells which "
            "changed code leaves as they are"
        )
    if made.failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in made.failures.items())
        raise UserError(f"{len(made.failures)} runs failed, the same command tries them again: {reasons}")


def _say_board(board: Any, folder: Path) -> None:
    from recbole_diffmm.leaderboard.views.terminal import render

    _say(render(board))
    _say(f"wrote {folder / 'index.html'}, board.md, board.csv, board.tex")


def _tune(given: Any, settings: list[str]) -> None:
    from recbole_diffmm.leaderboard.spec import REPORTS, TUNED
    from recbole_diffmm.sources import parse_overrides
    from recbole_diffmm.tuning.search import Search
    from recbole_diffmm.tuning.tune import tune

    if given.board:
        from recbole_diffmm.leaderboard.spec import find_spec, load_spec
        from recbole_diffmm.leaderboard.tuned import searches

        others = (given.space, given.label, given.config_files, given.dataset, given.out, given.reports)
        if settings or any((*others, given.trials, given.minutes, given.finalists)):
            raise UserError("--board says everything but the row (--model); leave settings, budget and the others out")
        rows = [given.model] if given.model else []
        spec = load_spec(find_spec(given.board))
        found = searches(spec, rows)
        out, reports = Path(TUNED) / spec.name, Path(REPORTS) / spec.name
    else:
        if not given.model:
            raise UserError("no model to tune: give --model NAME, or --board NAME for every row of a leaderboard")
        out, reports = given.out or Path(TUNED), given.reports or Path(REPORTS)
        files = tuple(given.config_files.split())
        overrides = parse_overrides(settings)
        found = [
            Search(
                given.model,
                "ml-100k" if given.dataset is None else given.dataset,
                20 if given.trials is None else given.trials,
                given.label,
                files,
                overrides,
                given.space,
                minutes=given.minutes,
                finalists=1 if given.finalists is None else given.finalists,
            )
        ]
    for search in found:
        result = tune(search, out, reports, given.storage, given.workers, only_final=given.final_only)
        _say(f"{search.name}: validation {result.score:.4f} with {json.dumps(result.settings)}")
        for file in result.files:
            _say(f"wrote {file}")


def _convert(given: Any, _: list[str]) -> None:
    from recbole_diffmm.data.convert.diffmm import convert

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    _say(f"wrote {convert(given.folder, given.name, given.out, given.overwrite)}")


def _evaluate(given: Any, settings: list[str]) -> None:
    from recbole_diffmm import registry
    from recbole_diffmm.quick_start import load, settings_told
    from recbole_diffmm.sources import parse_overrides

    also = [argument for argument in settings if not argument.startswith("--")]
    if also:  # a pattern of the shell's, which a run's state fits too
        raise UserError(f"evaluate takes one checkpoint, got {given.checkpoint} and {', '.join(also)}; give one")
    config, model, _dataset, train, valid, test = load(given.checkpoint, parse_overrides(settings))
    # A trainer makes these places; nothing is written by looking.
    config["tensorboard"], config["checkpoint_dir"] = False, str(Path(given.checkpoint).parent)
    with settings_told(config, "scored"):
        trainer = registry.get_trainer_class(config)(config, model)
    trainer.eval_collector.data_collect(train)  # how often training has each item, which some metrics are made of
    for name, loader in (("valid", valid), ("test", test)):
        with settings_told(config, "scored"):
            metrics = trainer.evaluate(loader, load_best_model=False, show_progress=False) or {}
        _say(json.dumps({name: {metric: float(value) for metric, value in metrics.items()}}))


def _models(given: Any, _: list[str]) -> None:
    if given.name:
        from recbole_diffmm.config import describe_model

        _say(describe_model(given.name))
        return
    from recbole_diffmm.catalogue import catalogue, render

    _say(render(catalogue()))


def _doctor(_given: Any, _: list[str]) -> None:
    from recbole_diffmm.doctor import report

    _say(report())
