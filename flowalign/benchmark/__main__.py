"""The command: ``python -m flowalign.benchmark --out report``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import joblib

from flowalign.atomic_file import expanded
from flowalign.benchmark.feature_sets import EMOJI, encode_split
from flowalign.benchmark.open_set import run_open_set
from flowalign.benchmark.report import write_report
from flowalign.benchmark.runner import METHODS, run
from flowalign.benchmark.several_views import run_several_views
from flowalign.benchmark.view_sets import has_views


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
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD",
                        help=f"some of: {', '.join(METHODS)}")  # fmt: skip
    parser.add_argument(
        "--oracle", action="store_true", help="also peers with settings chosen on test, starred"
    )
    parser.add_argument(
        "--open-set", action="store_true", help="also hold out classes, and score rows of none"
    )
    parser.add_argument("--jobs", type=int, help="fits at once, all cores by default")
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster that runs the fits, tcp://..., and can read --features",
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
            several = [path for path in paths if has_views(path)]
            single = [path for path in paths if path not in several]
            if several and (args.methods or args.oracle or args.open_set):
                _leave_out(several, single, parser)
            methods = {name: METHODS[name] for name in args.methods or METHODS}
            rows = open_set = views = []
            if single:
                rows = run(single, args.out, methods=methods, oracle=args.oracle, **draws)
            if single and args.open_set:
                open_set = run_open_set(single, args.out, **draws)
            if several:
                views = run_several_views(several, args.out, **draws)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    fits = rows + views + open_set
    failed = sum("error" in row for row in fits)
    print(f"{len(fits)} fits, {failed} failed. {write_report(rows, args.out, open_set, views)}")
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


def _leave_out(several: list[Path], single: list[Path], parser: argparse.ArgumentParser) -> None:
    """Say that options which are for sets of one view act on these alone."""
    if not single:
        parser.error(
            "--methods, --oracle and --open-set are for sets of one view; all of --features have "
            "several"
        )
    names = ", ".join(path.stem for path in several)
    print(f"--methods, --oracle and --open-set leave out {names}, of several views.")


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
