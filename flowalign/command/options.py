"""What can be asked for. Nothing here imports more than the standard library."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import flowalign
from flowalign.atomic_file import expanded

OVERVIEW = """\
Classify pictures or sounds from a few labelled examples.

  flowalign fit pictures/ --out pets.flowalign     one folder for each class
  flowalign predict pets.flowalign new/            a table of answers
  flowalign report pets.flowalign new/             a page to look through
"""


def cache_folder() -> Path:
    """Return where this user's caches are kept, by the custom of the system."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "flowalign"
    name, otherwise = "XDG_CACHE_HOME", Path.home() / ".cache"
    if sys.platform == "win32":
        name, otherwise = "LOCALAPPDATA", Path.home() / "AppData" / "Local"
    place = Path(os.environ.get(name, ""))
    return (place if place.is_absolute() else otherwise) / "flowalign"


def parser_of(prog: str) -> argparse.ArgumentParser:
    """Make the parser of all commands; ``args.command`` is the module that has ``run(args)``."""
    parser = argparse.ArgumentParser(
        prog=prog, description=OVERVIEW, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"flowalign {flowalign.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _fit(commands)
    _predict(commands)
    _report(commands)
    _evaluate(commands)
    commands.add_parser("encode", add_help=False, help="turn files into features, in shares")
    commands.add_parser("benchmark", add_help=False, help="compare methods on features")
    return parser


def _fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fit",
        help="learn classes from labelled files, and write a model file",
        description="Learn classes from labelled pictures or sounds, and write a model file.",
    )
    parser.add_argument(
        "folder", type=expanded, metavar="FOLDER",
        help="one folder for each class, named as the class: tabby_cat/tom.jpg is a tabby cat; "
        "with --labels, where the files of the table are",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=expanded, required=True, metavar="FILE", help="the model file to write"
    )
    _labels(parser)
    parser.add_argument(
        "--unlabeled", type=expanded, metavar="FOLDER",
        help="more files of the same classes, at any depth, which help without labels; those with "
        "one are left out",
    )  # fmt: skip
    kind = parser.add_mutually_exclusive_group()
    for name in ("pictures", "sounds"):
        kind.add_argument(
            f"--{name}", dest="kind", action="store_const", const=name,
            help=f"take the {name} of a folder that has both",
        )  # fmt: skip
    parser.add_argument(
        "--unknown-rate", type=float, default=0.05, metavar="SHARE",
        help="share of files of known classes that may be called unknown, 0.05 by default",
    )  # fmt: skip
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--model", metavar="NAME",
        help="of open_clip, ViT-B-32 by default, or local-dir:FOLDER; for sounds a CLAP model of "
        "transformers, laion/clap-htsat-unfused by default, or a folder with one",
    )  # fmt: skip
    encoder.add_argument(
        "--pretrained", metavar="WEIGHTS",
        help="openai by default for pictures; a tag of open_clip, or a checkpoint; none is an "
        "untrained model, for tests alone",
    )  # fmt: skip
    encoder.add_argument(
        "--views", type=int, default=1, metavar="N",
        help="views of each file: crops of a picture, windows of a sound; their mean is taken",
    )  # fmt: skip
    _work(parser)


def _predict(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "predict",
        help="answer for new files, in a table",
        description="Answer for new files: a CSV table of path, label, probability, score and "
        "unknown. The label is always the best class; unknown says whether the file looks like no "
        "class at all, which is so where its score is below the model's threshold.",
    )
    _model(parser)
    parser.add_argument(
        "inputs", nargs="*", type=expanded, metavar="FILE",
        help="files, and folders, whose files are taken at any depth",
    )  # fmt: skip
    parser.add_argument(
        "--features", type=expanded, metavar="FILE",
        help="instead of files: rows of features, an array in a .npy file, or X, and paths if "
        "there are any, in a .npz file; needs no encoder",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=expanded, metavar="FILE", help="where to write the table, instead of here"
    )
    _encoder(parser)


def _report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="answer for new files, in a page with pictures or players",
        description="Answer for new files, in one HTML page that asks for nothing from outside: "
        "the files by predicted class, the least certain first, those that look like no class, "
        "and those whose labels would help most.",
    )
    _model(parser)
    parser.add_argument(
        "inputs", nargs="+", type=expanded, metavar="FILE",
        help="files, and folders, whose files are taken at any depth",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=expanded, default=Path("report.html"), metavar="FILE",
        help="the page to write, report.html by default",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N",
        help="files to show at most, 1000 pictures or 100 sounds by default: those that look like "
        "no class, and those of which it is least certain",
    )  # fmt: skip
    _encoder(parser)


def _evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="count how often a model is right on labelled files",
        description="Count how often a model is right on labelled files that it was not fitted "
        "to: accuracy, of each class too, how far its probabilities can be trusted, what it would "
        "call unknown, and what it confuses.",
    )
    _model(parser)
    parser.add_argument(
        "folder", type=expanded, metavar="FOLDER",
        help="one folder for each class; with --labels, where the files of the table are",
    )  # fmt: skip
    _labels(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    _encoder(parser)


def _labels(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels", type=expanded, metavar="TABLE",
        help="CSV table with the columns path, below FOLDER, and label",
    )  # fmt: skip


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model_file", type=expanded, metavar="MODEL", help="a file that flowalign fit wrote"
    )


def _encoder(parser: argparse.ArgumentParser) -> None:
    encoder = parser.add_argument_group(
        "encoder", "the model file names it; these are for one that is a folder or file of yours"
    )
    encoder.add_argument("--model", metavar="NAME", help="as given to fit")
    encoder.add_argument("--pretrained", metavar="WEIGHTS", help="as given to fit")
    _work(parser)


def _work(parser: argparse.ArgumentParser) -> None:
    """Add what changes how files are encoded, and no answer."""
    work = parser.add_argument_group("work")
    work.add_argument(
        "--cache", type=expanded, default=cache_folder(), metavar="FOLDER",
        help="where features are kept, so that a file is encoded once; by default flowalign in "
        "your folder of caches",
    )  # fmt: skip
    work.add_argument(
        "--no-cache", dest="cache", action="store_const", const=None, help="keep no features"
    )
    work.add_argument("--batch-size", type=int, metavar="N", help="files in one pass")
    work.add_argument("--device", help="such as cuda:1; by default a GPU if there is one")
    work.add_argument(
        "--skip-unreadable", action="store_true", help="leave out what cannot be read, and say so"
    )
    work.add_argument(
        "--progress", action="store_true", default=None,
        help="show a bar even where nobody watches; without, in a terminal only",
    )  # fmt: skip
