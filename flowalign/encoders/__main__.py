"""The command: ``python -m flowalign.encoders pictures --out features --shard 1/8``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from flowalign.atomic_file import expanded, written_whole
from flowalign.datasets.folders import (
    AUDIO_ENDINGS,
    IMAGE_ENDINGS,
    OTHER_ENDINGS,
    files_below,
    warn_of_others,
    with_endings,
)
from flowalign.encoders.base import Encoder, described
from flowalign.encoders.clap import ClapEncoder
from flowalign.encoders.clip import OpenCLIPEncoder, usual_weights
from flowalign.inputs import shown


def main(arguments: list[str] | None = None, *, prog: str = "python -m flowalign.encoders") -> None:
    """Encode a share of the files below a folder."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Encode all pictures (or sounds) below a folder, or one share of them, so that "
        "processes on several machines can divide the work. Under torchrun each process takes its "
        "own share and its own GPU.",
    )
    parser.add_argument(
        "folder",
        type=expanded,
        help="where the files are, at any depth; links to folders are not followed",
    )
    parser.add_argument(
        "--out", type=expanded, required=True,
        help="folder for the results. Each share is a file such as features-1-of-8.npz, with X (n, "
        "d), paths (n,) below FOLDER, encoder (its parameters) and n_listed (files of all shares)",
    )  # fmt: skip
    parser.add_argument("--sounds", action="store_true", help="encode sounds, with CLAP")
    parser.add_argument(
        "--model", help="of open_clip, ViT-B-32 by default; with --sounds a CLAP of transformers"
    )
    parser.add_argument(
        "--pretrained", help="weights or a file of weights; for open_clip, openai by default"
    )
    parser.add_argument(
        "--shard", type=_shard, metavar="i/n", help="the i-th of n shares, 1/n to n/n"
    )
    parser.add_argument("--cache", type=expanded, help="folder of a cache that all shares can use")
    parser.add_argument("--batch-size", type=int, help="inputs in one pass through the model")
    parser.add_argument("--views", type=int, default=1, help="views of each file, to be averaged")
    parser.add_argument("--device", help="such as cuda:1; by default a GPU if there is one")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out unreadable files, and list them"
    )
    args = parser.parse_args(arguments)
    if not args.folder.is_dir():
        parser.error(f"folder: {shown(args.folder)} is no folder")
    kind, endings = ("sounds", AUDIO_ENDINGS) if args.sounds else ("pictures", IMAGE_ENDINGS)
    try:
        i, n = args.shard or _shard_of_torchrun()
        found = files_below(args.folder, endings + OTHER_ENDINGS[endings])
        warn_of_others(found, endings)
        listed = with_endings(found, endings)
        if not listed:
            parser.error(f"folder: no {kind} below {shown(args.folder)} ({', '.join(endings)})")
        args.out.mkdir(parents=True, exist_ok=True)  # now, not when all is encoded
        files = listed[i - 1 :: n]
        if not files:  # no error: torchrun would end the other processes
            print(f"Share {i} of {n} of {len(listed)} {kind} is empty.")
            return
        encoder = _encoder(args)
        encoded = encoder.encode(files, on_error="skip" if args.skip_unreadable else "raise")
        kept = [Path(files[row]).relative_to(args.folder).as_posix() for row in encoded.rows]
        path = args.out / f"features-{i}-of-{n}.npz"
        with written_whole(path) as file:
            np.savez(
                file, X=encoded.X, paths=np.array(kept), n_listed=len(listed),
                encoder=described(encoder),
            )  # fmt: skip
    except (OSError, ValueError, ImportError, argparse.ArgumentTypeError) as error:
        parser.error(str(error))
    print(f"{len(kept)} of {len(files)} {kind} in {shown(path)}")


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise argparse.ArgumentTypeError(f"{text!r} is none of 1/n to n/n, such as 2/8")
    return int(i), int(n)


def _shard_of_torchrun() -> tuple[int, int]:
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return 1, 1
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    return _shard(f"{int(rank) + 1}/{size}")


def _encoder(args: argparse.Namespace) -> Encoder:
    encoder: ClapEncoder | OpenCLIPEncoder = ClapEncoder() if args.sounds else OpenCLIPEncoder()
    encoder.set_params(n_views=args.views, cache=args.cache, verbose=1)
    given = {"model_name": args.model, "pretrained": args.pretrained, "device": args.device}
    given["batch_size"] = args.batch_size
    encoder.set_params(**{name: value for name, value in given.items() if value is not None})
    if isinstance(encoder, OpenCLIPEncoder) and args.pretrained is None:
        encoder.set_params(pretrained=usual_weights(encoder.model_name))
    if args.device is None and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        # There may be fewer devices than processes: a process may see only its own device.
        number = int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count()
        encoder.set_params(device=f"cuda:{number}")
    return encoder


if __name__ == "__main__":
    main()
