"""The command: ``python -m flowalign.encoders pictures --out features --shard 1/8``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from flowalign.datasets.folders import AUDIO_ENDINGS, IMAGE_ENDINGS, files_below
from flowalign.encoders.base import Encoder
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder
from flowalign.files import written_whole


def main(arguments: list[str] | None = None) -> None:
    """Encode a share of the files below a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m flowalign.encoders",
        description="Encode all pictures (or sounds) below a folder, or a share of them, so that "
        "several processes, on as many machines, encode all. Under torchrun each process takes "
        "its share, and its GPU, by itself.",
    )
    parser.add_argument("folder", type=Path, help="where the files are, at any depth")
    parser.add_argument(
        "--out", type=Path, required=True,
        help="folder; a share becomes features-1-of-8.npz: X (n, d) and paths (n,) below FOLDER",
    )  # fmt: skip
    parser.add_argument("--sounds", action="store_true", help="sounds, by CLAP")
    parser.add_argument(
        "--model", help="of open_clip, ViT-B-32 by default; with --sounds a CLAP of transformers"
    )
    parser.add_argument(
        "--pretrained", help="weights, or a file of them; of open_clip, openai by default"
    )
    parser.add_argument(
        "--shard", type=_shard, metavar="i/n", help="the i-th of n shares, 1/n to n/n"
    )
    parser.add_argument("--cache", type=Path, help="folder of a feature cache, for all shares")
    parser.add_argument("--batch-size", type=int, help="inputs in one pass through the model")
    parser.add_argument("--views", type=int, default=1, help="of each file; their mean is taken")
    parser.add_argument("--device", help="such as cuda:1; by default a GPU if there is one")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out what cannot be read, and say so"
    )
    args = parser.parse_args(arguments)
    i, n = args.shard or _shard_of_torchrun()
    try:
        kind, endings = ("sounds", AUDIO_ENDINGS) if args.sounds else ("pictures", IMAGE_ENDINGS)
        files = files_below(args.folder, endings)[i - 1 :: n]
        if not files:
            parser.error(f"share {i} of {n} is empty: too few {kind} below {args.folder}")
        encoded = _encoder(args).encode(files, on_error="skip" if args.skip_unreadable else "raise")
        kept = [Path(files[row]).relative_to(args.folder).as_posix() for row in encoded.rows]
        path = args.out / f"features-{i}-of-{n}.npz"
        args.out.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as aside:
            np.savez(aside, X=encoded.X, paths=np.array(kept))
    except (OSError, ValueError, ImportError) as error:
        parser.error(str(error))
    print(f"{len(kept)} of {len(files)} {kind} in {path}")


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is none of 1/n to n/n, such as 2/8")
    return int(i), int(n)


def _shard_of_torchrun() -> tuple[int, int]:
    return int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1))


def _encoder(args: argparse.Namespace) -> Encoder:
    device = args.device or "auto"
    if args.device is None and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        # Fewer devices than processes: each may see its own alone.
        device = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    kind: type[ClapEncoder | OpenCLIPEncoder] = ClapEncoder if args.sounds else OpenCLIPEncoder
    given = {"model_name": args.model, "pretrained": args.pretrained, "batch_size": args.batch_size}
    if not args.sounds and args.pretrained is None:
        given["pretrained"] = "openai"  # else they would be random
    given = {name: value for name, value in given.items() if value is not None}
    return kind(**given, device=device, n_views=args.views, cache=args.cache, verbose=1)


if __name__ == "__main__":
    main()
