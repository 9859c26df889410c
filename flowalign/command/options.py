"""The options of all commands. This module imports the standard library alone."""

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
  flowalign evaluate pets.flowalign test/          how often it is right
"""


def cache_folder() -> Path:
    """Return the folder in which the system keeps this user's caches."""
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
        help="folder of more files of the same classes, at any depth; their labels are not "
        "needed, and files that have one are left out",
    )  # fmt: skip
    kind = parser.add_mutually_exclusive_group()
    for name in ("pictures", "sounds"):
        kind.add_argument(
            f"--{name}", dest="kind", action="store_const", const=name,
            help=f"take the {name} if the folder has both pictures and sounds",
        )  # fmt: skip
    parser.add_argument(
        "--unknown-rate", type=float, default=0.05, metavar="SHARE",
        help="share of files of known classes that may be called unknown, 0.05 by default",
    )  # fmt: skip
    encoder = parser.add_argument_group("encoder")
    encoder.add_argument(
        "--model", metavar="NAME",
        help="for pictures a model of open_clip, ViT-B-32 by default, or local-dir:FOLDER; for "
        "sounds a CLAP model of transformers, laion/clap-htsat-unfused by default, or its folder",
    )  # fmt: skip
    encoder.add_argument(
        "--pretrained", metavar="WEIGHTS",
        help="weights: a tag of open_clip, openai by default for pictures, or a checkpoint; "
        "'none' is an untrained model, for tests alone",
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
        "unknown. The label is always the best class. The column unknown says whether the file "
        "looks like no class at all: whether its score is below the model's threshold.",
    )
    _model(parser)
    _inputs(parser, "*")
    parser.add_argument(
        "--features", type=expanded, metavar="FILE",
        help="features instead of files, without the encoder: a .npy file with an array, or a "
        ".npz file with X and, if there are any, paths",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=expanded, metavar="FILE", help="the table to write; it is printed otherwise"
    )
    _encoder(parser)


def _report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="answer for new files, in a page with pictures or players",
        description="Answer for new files, in one HTML page that loads nothing from outside. It "
        "has the files by predicted class, the least certain first, the files that look like no "
        "class, and the files whose labels would help most.",
    )
    _model(parser)
    _inputs(parser, "+")
    parser.add_argument(
        "--out", type=expanded, default=Path("report.html"), metavar="FILE",
        help="the page to write, report.html by default",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, metavar="N",
        help="files to show at most, 1000 pictures or 100 sounds by default: first those that look "
        "like no class, then the least certain",
    )  # fmt: skip
    _encoder(parser)


def _evaluate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="count how often a model is right on labelled files",
        description="Count how often a model is right on labelled files that it was not fitted "
        "to. It prints the accuracy, in all and for each class, how far the probabilities can be "
        "trusted, how many files look unknown, and which classes are confused.",
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


def _inputs(parser: argparse.ArgumentParser, how_many: str) -> None:
    parser.add_argument(
        "inputs", nargs=how_many, type=expanded, metavar="PATH",
        help="files, and folders, whose files are taken at any depth",
    )  # fmt: skip


def _encoder(parser: argparse.ArgumentParser) -> None:
    encoder = parser.add_argument_group(
        "encoder", "needed only if the encoder of the fit was a folder or file of yours"
    )
    encoder.add_argument("--model", metavar="NAME", help="as given to fit")
    encoder.add_argument("--pretrained", metavar="WEIGHTS", help="as given to fit")
    _work(parser)


def _work(parser: argparse.ArgumentParser) -> None:
    """Add options that change how files are encoded, but no answer."""
    work = parser.add_argument_group("work")
    work.add_argument(
        "--cache", type=expanded, default=cache_folder(), metavar="FOLDER",
        help="folder in which features are kept, so that a file is encoded once; by default "
        "flowalign in your folder of caches",
    )  # fmt: skip
    work.add_argument(
        "--no-cache", dest="cache", action="store_const", const=None, help="keep no features"
    )
    work.add_argument("--batch-size", type=int, metavar="N", help="files in one pass")
    work.add_argument("--device", help="such as cuda:1; by default a GPU if there is one")
    work.add_argument(
        "--skip-unreadable", action="store_true", help="leave out unreadable files, and list them"
    )
    work.add_argument(
        "--progress", action="store_true", default=None,
        help="always show a progress bar; by default only in a terminal",
    )  # fmt: skip
