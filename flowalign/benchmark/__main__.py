"""The command: ``python -m flowalign.benchmark --out report``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import joblib
from sklearn.base import BaseEstimator

from flowalign.atomic_file import expanded
from flowalign.benchmark.feature_sets import EMOJI, encode_split
from flowalign.benchmark.open_set import run_open_set
from flowalign.benchmark.pools import SETTINGS
from flowalign.benchmark.report import write_report
from flowalign.benchmark.runner import EXTRA_METHODS, METHODS, run
from flowalign.benchmark.several_views import run_several_views
from flowalign.benchmark.unlabeled import UNLABELED_METHODS, run_unlabeled
from flowalign.benchmark.view_sets import has_views

INDUCTIVE, OPEN_SET, VIEWS = "inductive", "open-set", "several-views"
EVERY_SETTING = (INDUCTIVE, *SETTINGS, OPEN_SET, VIEWS)


def main(
    arguments: list[str] | None = None, *, prog: str = "python -m flowalign.benchmark"
) -> None:
    """Run the benchmark and write its report."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Compare flowalign with its peers on frozen features, by default on the emoji "
        "set that comes with the package. An interrupted run goes on where it stopped.",
    )
    parser.add_argument("--out", type=expanded, required=True, help="folder of rows and report")
    parser.add_argument(
        "--features",
        type=expanded,
        help="folder of .npz feature sets, of one view or of several (or one such file)",
    )
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seeds", type=int, default=3, help="number of draws")
    parser.add_argument(
        "--setting", nargs="+", choices=EVERY_SETTING, metavar="SETTING",
        help=f"settings, one or more of: {', '.join(EVERY_SETTING)}; by default several-views for "
        "feature sets of several views, inductive for the others",
    )  # fmt: skip
    parser.add_argument(
        "--methods", nargs="+", metavar="METHOD",
        choices=dict.fromkeys([*METHODS, *EXTRA_METHODS, *UNLABELED_METHODS]),
        help=f"methods; in the inductive setting: {', '.join(METHODS)} (all by default), "
        f"{', '.join(EXTRA_METHODS)}; in the settings with unlabelled rows: "
        f"{', '.join(UNLABELED_METHODS)} (all by default)",
    )  # fmt: skip
    parser.add_argument(
        "--oracle", action="store_true", help="add peers with settings chosen on test, starred"
    )
    parser.add_argument(
        "--open-set", action="store_true", help="add open-set to the settings that are run"
    )
    parser.add_argument("--jobs", type=int, help="fits at once, all cores by default")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="tcp://... of a Dask cluster that runs the fits; its workers must read --features",
    )
    images = parser.add_argument_group(
        "pictures", "instead of --features: benchmark data sets in CoOp's layout, encoded by CLIP"
    )
    images.add_argument("--images", type=expanded, help="folder of the data sets")
    images.add_argument("--datasets", nargs="+", default=[], help="such as DTD OxfordPets")
    images.add_argument("--model", default="ViT-B-32", help="of open_clip")
    images.add_argument("--pretrained", help="weights, of open_clip (openai by default), or a file")
    images.add_argument("--cache", type=expanded, help="folder of a feature cache")
    args = parser.parse_args(arguments)
    if importlib.util.find_spec("matplotlib") is None:
        parser.error('the report needs matplotlib: pip install "flowalign[plot]"')
    try:
        with _cluster(args, parser) if args.scheduler else nullcontext():
            paths, draws = _paths(args, parser), {"shots": args.shots, "n_seeds": args.seeds}
            draws["n_jobs"] = -1 if args.jobs is None else args.jobs
            settings = (args.setting or [INDUCTIVE, VIEWS]) + [OPEN_SET] * args.open_set
            several = [path for path in paths if has_views(path)]
            single = [path for path in paths if path not in several]
            _check_sets(single, several, args, parser)
            rows = open_set = views = unlabeled = []
            if single and INDUCTIVE in settings:
                methods = _chosen(METHODS | EXTRA_METHODS, args, INDUCTIVE, parser)
                rows = run(single, args.out, methods=methods, oracle=args.oracle, **draws)
            if single and (pooled := [name for name in settings if name in SETTINGS]):
                methods = _chosen(UNLABELED_METHODS, args, " and ".join(pooled), parser)
                given = {"settings": pooled, "methods": methods, "oracle": args.oracle}
                unlabeled = run_unlabeled(single, args.out, **given, **draws)
                _say_left_out(unlabeled, pooled, methods, single, args.shots)
            if single and OPEN_SET in settings:
                open_set = run_open_set(single, args.out, **draws)
            if several and VIEWS in settings:
                views = run_several_views(several, args.out, **draws)
            fits = [*rows, *views, *unlabeled, *open_set]
            page = write_report(rows, args.out, open_set, views, unlabeled)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    failed = sum("error" in row for row in fits)
    print(f"{len(fits)} fits, {failed} failed. {page}")
    if failed == len(fits):
        sys.exit(f"All failed; the first: {fits[0]['error']}")


@contextmanager
def _cluster(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[None]:
    """Have joblib work on a Dask cluster."""
    if args.jobs is not None:
        parser.error("--jobs goes without --scheduler: all of its workers are used")
    if importlib.util.find_spec("distributed") is None:
        parser.error('--scheduler needs Dask: pip install "flowalign[scale]"')
    from distributed import Client

    try:
        client = Client(args.scheduler)
    except (OSError, ValueError) as error:
        parser.error(f"--scheduler {args.scheduler}: {error}")
    with client, joblib.parallel_config(backend="dask"):
        n_workers = len(client.nthreads())
        if not n_workers:
            parser.error(f"--scheduler {args.scheduler}: the cluster has no workers")
        print(f"Running on {n_workers} workers.")
        yield


def _check_sets(
    single: list[Path],
    several: list[Path],
    args: argparse.Namespace,
    parser: argparse.ArgumentParser,
) -> None:
    """Refuse options that apply to no feature set, and say which sets are left out."""
    settings = args.setting or []
    named = [f"--setting {name}" for name in settings if name != VIEWS]
    about_methods = [name for name in ("--methods", "--oracle") if getattr(args, name.strip("-"))]
    given = named + about_methods + ["--open-set"] * args.open_set
    if about_methods and settings and not {INDUCTIVE, *SETTINGS} & set(settings):
        parser.error(
            f"{', '.join(about_methods)}: --setting {' '.join(settings)} has methods of its own"
        )
    if single and settings and not named:
        print(f"--setting {VIEWS}: without {', '.join(path.stem for path in single)}, of one view.")
    if several and given:
        options = ", ".join(given)
        if not single:
            parser.error(f"{options}: for feature sets of one view; all of --features have several")
        print(f"{options}: without {', '.join(path.stem for path in several)}, of several views.")
    if VIEWS in settings and not several:
        parser.error(f"--setting {VIEWS}: no feature set of --features has several views")


def _chosen(
    methods: dict[str, BaseEstimator],
    args: argparse.Namespace,
    setting: str,
    parser: argparse.ArgumentParser,
) -> dict[str, BaseEstimator]:
    """Return the methods of --methods, or by default all without further dependencies.

    Say which methods of --methods are for other settings.
    """
    usual = [name for name in methods if name not in EXTRA_METHODS]
    chosen = {name: methods[name] for name in args.methods or usual if name in methods}
    if not chosen:
        parser.error(f"--methods: none of {', '.join(args.methods)} is for --setting {setting}")
    if others := [name for name in args.methods or [] if name not in methods]:
        print(f"--setting {setting}: without {', '.join(others)}.")
    return chosen


def _say_left_out(
    rows: list[dict[str, Any]],
    settings: list[str],
    methods: dict[str, BaseEstimator],
    sets: list[Path],
    shots: list[int],
) -> None:
    """Say which sets and which methods have no results for a pool of unlabelled rows."""
    names = [*(path.stem for path in sets), *methods]
    for pool in (pool for setting in dict.fromkeys(settings) for pool in SETTINGS[setting]):
        for n in dict.fromkeys(shots):
            found = [row for row in rows if (row["pool"], row["n_shots"]) == (pool, n)]
            there = {row[what] for row in found for what in ("set", "method")}
            if absent := [name for name in names if name not in there]:
                print(f"{pool}, {n} a class: without {', '.join(absent)}.")


def _paths(args: argparse.Namespace, parser: argparse.ArgumentParser) -> list[Path]:
    if args.images:
        if not args.datasets or args.features:
            parser.error("--images goes with --datasets, and without --features")
        from flowalign.encoders.clip import OpenCLIPEncoder, usual_weights

        pretrained = args.pretrained or usual_weights(args.model)
        encoder = OpenCLIPEncoder(args.model, pretrained, cache=args.cache, verbose=1)
        folder = args.out / "features"
        return [encode_split(args.images, n, encoder, folder / f"{n}.npz") for n in args.datasets]
    if args.datasets:
        parser.error("--datasets goes with --images")
    if args.features is None:
        return [EMOJI]
    paths = sorted(args.features.glob("*.npz")) if args.features.is_dir() else [args.features]
    if not paths or not paths[0].is_file():
        parser.error(f"--features: no .npz file at {args.features}")
    return paths


if __name__ == "__main__":
    main()
