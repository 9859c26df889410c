"""The files of a command: their list, their kind and their labels."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from flowalign.atomic_file import check_is_file
from flowalign.datasets.folders import (
    AUDIO_ENDINGS,
    IMAGE_ENDINGS,
    OTHER_ENDINGS,
    files_below,
    load_audio_folder,
    load_image_folder,
    warn_of_others,
    with_endings,
)
from flowalign.inputs import shown
from flowalign.prompts import words

ENDINGS = {"pictures": IMAGE_ENDINGS, "sounds": AUDIO_ENDINGS}
LOADERS = {"pictures": load_image_folder, "sounds": load_audio_folder}
COLUMNS = ("path", "label")


def kind_of(folder: Path) -> str:
    """Return whether there are pictures or sounds below a folder, by the endings of the files."""
    check_is_folder(folder)
    found = [
        kind for kind, endings in ENDINGS.items() if next(iter(files_below(folder, endings)), None)
    ]
    if len(found) == 2:
        raise ValueError(f"{shown(folder)} has pictures and sounds; give --pictures or --sounds.")
    if not found:
        endings = "; ".join(f"{kind}: {', '.join(known)}" for kind, known in ENDINGS.items())
        raise ValueError(f"{shown(folder)} has neither pictures nor sounds ({endings}).")
    return found[0]


def check_is_folder(folder: Path) -> None:
    """Raise FileNotFoundError if there is no such folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{shown(folder)} is no folder.")


def check_can_be_written(path: Path) -> None:
    """Raise an error now, not after an hour's work, if the file cannot be written."""
    if path.exists():
        check_is_file(path)
    elif not path.parent.is_dir():
        raise FileNotFoundError(f"{shown(path.parent)} is no folder; make it first.")
    folder = path.resolve().parent  # a file behind a link is replaced where it is
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{shown(folder)} is not open to writing; choose another place.")


def listed(inputs: Iterable[Path], kind: str) -> list[str]:
    """Return the given files, and the files below the given folders."""
    endings, paths = ENDINGS[kind], []
    for given in inputs:
        if given.is_dir():
            found = files_below(given, endings + OTHER_ENDINGS[endings])
            warn_of_others(found, endings)
            paths += with_endings(found, endings)
        elif given.exists():
            paths.append(str(given))
        else:
            raise FileNotFoundError(f"{shown(given)} does not exist.")
    if not paths:
        raise ValueError(
            f"There are no {kind} in {', '.join(map(shown, inputs)) or 'nothing'} "
            f"({', '.join(endings)})."
        )
    return paths


def labelled(folder: Path, table: Path | None, kind: str) -> Bunch:
    """List labelled files, as the loaders of folders do.

    Returns ``X`` (n,), the paths; ``y`` (n,), their labels; and ``class_names``, a dict of label to
    words. Warns of files below the folder that have no label.
    """
    data = LOADERS[kind](folder) if table is None else _listed_in(table, folder)
    known = {os.path.realpath(path) for path in data.X}
    others = [f for f in files_below(folder, ENDINGS[kind]) if os.path.realpath(f) not in known]
    if others:
        place = "its folders of classes" if table is None else shown(table)
        warnings.warn(
            f"{len(others)} {kind} below {shown(folder)} are not in {place}, such as "
            f"{shown(others[0])}; they have no label.",
            UserWarning,
            stacklevel=2,
        )
    return data


def _listed_in(table: Path, folder: Path) -> Bunch:
    """List the files of a table, in the form in which a loader lists the files of a folder."""
    check_is_folder(folder)
    labels = _labels_in(table)
    paths = {name: folder / name for name in labels}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{shown(table)} lists {len(missing)} of {len(labels)} files that are not in "
            f"{shown(folder)}, such as {shown(missing[0])}."
        )
    names: dict[str, str] = {}
    for name, path in paths.items():
        first = names.setdefault(os.path.realpath(path), name)
        if first != name:
            raise ValueError(f"{shown(table)}: {shown(first)} and {shown(name)} are one file.")
    return Bunch(
        X=np.array([str(path) for path in paths.values()], dtype=object),
        y=np.array([*labels.values()]),
        class_names={label: words(label) or label for label in sorted({*labels.values()})},
    )


def _labels_in(table: Path) -> dict[str, str]:
    """Read the labels of paths."""
    check_is_file(table)
    labels: dict[str, str] = {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:  # Excel writes a mark first
            rows = csv.DictReader(file)
            header = [name.strip() for name in rows.fieldnames or []]
            rows.fieldnames = header
            if any(header.count(name) != 1 for name in COLUMNS):
                raise ValueError(
                    f"its first line must name the columns path and label, with a comma between "
                    f"them, and is {','.join(header)!r}"
                )
            for row in rows:
                more = row.pop(None, [])  # cells for which the first line has no column
                if any(cell.strip() for cell in more):
                    raise ValueError(
                        f"line {rows.line_num} has more cells than the first line; put quotes "
                        "around a label that has a comma"
                    )
                if not any((cell or "").strip() for cell in row.values()):
                    continue  # spreadsheets write empty lines as commas alone
                path, label = ((row[name] or "").strip() for name in COLUMNS)
                if not path or not label:
                    raise ValueError(f"line {rows.line_num} has no path, or no label")
                if path in labels:
                    raise ValueError(f"line {rows.line_num} has {shown(path)} again")
                labels[path] = label
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(table)} is not in UTF-8; save it as CSV UTF-8.") from error
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{shown(table)}: {error}.") from error
    if not labels:
        raise ValueError(f"{shown(table)} has no rows.")
    return labels
