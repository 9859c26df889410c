"""Pictures or sounds of your own: one folder for each class."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from flowalign.inputs import shorten, shown
from flowalign.prompts import words

HIDDEN = (".", "__MACOSX")  # beginnings of names; macOS leaves __MACOSX folders in archives

# What Pillow and libsndfile read wherever they are installed.
IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
AUDIO_ENDINGS = (
    ".wav", ".wave", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc",
    ".au", ".snd", ".caf",
)  # fmt: skip

# Other files of pictures or sounds. Some installations read them, others do not.
OTHER_ENDINGS: dict[tuple[str, ...], tuple[str, ...]] = {
    IMAGE_ENDINGS: (
        ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".jpc", ".apng",
        ".dib", ".tga", ".ico", ".icns", ".dds", ".qoi", ".pcx", ".psd", ".exr", ".hdr", ".pfm",
        ".fits", ".svg", ".svgz", ".eps", ".wmf", ".emf", ".dng", ".raw", ".cr2", ".cr3", ".nef",
        ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".dcm",
    ),
    AUDIO_ENDINGS: (
        ".m4a", ".m4b", ".mp4", ".aac", ".ac3", ".eac3", ".dts", ".wma", ".webm", ".weba", ".mka",
        ".amr", ".3gp", ".alac", ".ape", ".wv", ".tta", ".mpc", ".spx", ".mp2", ".mpga", ".ra",
        ".voc", ".sph", ".nist", ".rf64", ".bwf", ".pcm", ".raw", ".mid", ".midi",
    ),
}  # fmt: skip


def load_image_folder(root: str | os.PathLike[str]) -> Bunch:
    """List the pictures in a folder that has one folder for each class.

    Parameters
    ----------
    root : str or path
        The folder. ``root/tabby_cat/tom.jpg`` is a sample of class ``"tabby_cat"``. Hidden
        files and files with other endings are passed over. The endings are .jpg, .jpeg, .jpe,
        .jfif, .png, .webp, .bmp, .gif, .tif, .tiff, .ppm, .pgm, .pbm and .pnm, also in capitals.

    Returns
    -------
    sklearn.utils.Bunch
        ``X`` (n,), paths as strings, sorted within their class; ``y`` (n,), names of folders;
        ``class_names``, a dict of folder name to the words that stand for the class in a prompt
        (``{"tabby_cat": "tabby cat"}``), for ``encoder.class_embeddings``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If `root` has no folders, or if one of these has no picture or has pictures one level lower.

    Warns
    -----
    UserWarning
        If files with other endings look like pictures (.heic, .avif). The message counts them.

    See Also
    --------
    load_audio_folder : The same for sounds.
    load_split : The benchmark data sets.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from flowalign.datasets import load_image_folder
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("tabby_cat", "dog"):
    ...         Path(root, name).mkdir()
    ...         Path(root, name, "1.jpg").touch()
    ...     data = load_image_folder(root)
    >>> data.y
    array(['dog', 'tabby_cat'], dtype='<U9')
    >>> data.class_names
    {'dog': 'dog', 'tabby_cat': 'tabby cat'}
    """
    return _load_folder(root, "picture", IMAGE_ENDINGS)


def load_audio_folder(root: str | os.PathLike[str]) -> Bunch:
    """List the sounds in a folder that has one folder for each class.

    Parameters
    ----------
    root : str or path
        The folder. ``root/song_thrush/dawn.wav`` is a sample of class ``"song_thrush"``. Hidden
        files and files with other endings are passed over. The endings are .wav, .wave, .w64,
        .flac, .ogg, .oga, .opus, .mp3, .aif, .aiff, .aifc, .au, .snd and .caf, also in capitals.

    Returns
    -------
    sklearn.utils.Bunch
        ``X``, ``y`` and ``class_names``, as from :func:`load_image_folder`.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If `root` has no folders, or if one of these has no sound or has sounds one level lower.

    Warns
    -----
    UserWarning
        If files with other endings look like sounds (.m4a, .wma). The message counts them.
    """
    return _load_folder(root, "sound", AUDIO_ENDINGS)


def _load_folder(root: str | os.PathLike[str], kind: str, endings: tuple[str, ...]) -> Bunch:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"root={str(folder)!r} is no folder.")
    classes = visible_folders(folder)
    if not classes:
        raise ValueError(
            f"{shown(folder)} has no folders; put the {kind}s of each class into a folder of its "
            f"name, such as {Path('cat', 'tom' + endings[0])}."
        )
    listed = {name: files_in(folder / name, endings + OTHER_ENDINGS[endings]) for name in classes}
    paths = {name: with_endings(listed[name], endings) for name in classes}
    empty = [name for name in classes if not paths[name]]
    if empty:
        nested = any(visible_folders(folder / name) for name in empty)
        hint = " They have folders instead: is root one level too high?" if nested else ""
        others = _by_ending(path for name in empty for path in listed[name])
        hint += f" They have files with other endings ({others}): convert these." if others else ""
        raise ValueError(
            f"{shown(folder)} has folders without a {kind} ({', '.join(endings)}): "
            f"{shorten(empty)}.{hint} Put {kind}s into each of them, or remove it."
        )
    for name in classes:
        for inner in visible_folders(folder / name):
            if files_in(folder / name / inner, endings):
                raise ValueError(
                    f"{shown(folder / name / inner)} has {kind}s, one level too low to be found; "
                    f"put them into {shown(folder / name)}, or make the folder a class of its own."
                )
    warn_of_others([path for name in classes for path in listed[name]], endings, stacklevel=4)
    return Bunch(
        X=np.array([path for name in classes for path in paths[name]], dtype=object),
        y=np.repeat(classes, [len(paths[name]) for name in classes]),
        class_names={name: words(name) or name for name in classes},
    )


def with_endings(paths: Iterable[str], endings: tuple[str, ...]) -> list[str]:
    """Return the paths with one of the endings, in capitals or not."""
    return [path for path in paths if path.lower().endswith(endings)]


def warn_of_others(paths: Iterable[str], endings: tuple[str, ...], *, stacklevel: int = 2) -> None:
    """Warn of paths with other endings, which will be passed over."""
    others = set(paths).difference(with_endings(paths, endings))
    if others:
        warnings.warn(
            f"Files were passed over for their endings ({_by_ending(others)}), which not every "
            f"installation reads. Convert them to {endings[0]}. A file that is given by its own "
            "path is tried whatever its ending.",
            UserWarning,
            stacklevel=stacklevel,
        )


def _by_ending(paths: Iterable[str]) -> str:
    """Count paths by their ending: ".avif: 2, .heic: 1"."""
    counts = Counter(Path(path).suffix.lower() for path in paths)
    return ", ".join(f"{ending}: {count}" for ending, count in sorted(counts.items()))


def visible_folders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(HIDDEN))


def files_in(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Return the paths of visible files with one of the endings, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.is_file()
            and not entry.name.startswith(HIDDEN)
            and entry.name.lower().endswith(endings)
        )


def files_below(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Return the paths of visible files with one of the endings, at any depth, in a fixed order.

    Links to folders are not followed: they may form a circle.
    """
    paths = files_in(folder, endings)
    for name in visible_folders(folder):
        if not (folder / name).is_symlink():
            paths += files_below(folder / name, endings)
    return paths
