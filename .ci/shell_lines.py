"""Runs the shell lines of README.md, CONTRIBUTING.rst and docs/: ``shell_lines.py [page ...]``.

Shell lines stand in blocks of their own: ``.. code-block:: sh`` in rst, a fence named ``sh`` in
Markdown. The lines of a page run in their order, in a folder with drawn pictures, tones and random
features; README's blocks of Python run there as well. A line that fails is an error, and so is a
shell line in a block that is not marked as one.

Differences from what a reader types:

- No hub is reached: models that are fitted have untrained weights, ``--pretrained none``. So have
  the encoders of ``flowalign encode`` and of sounds, which are small.
- The benchmark makes one draw, of one sample a class, with two methods.
- ``pip install`` is not run again. It has to name extras that pyproject.toml has.

Blocks of the same lines on several pages run once. What cannot run here has a comment right above
its block, ``.. not run: the reason`` in rst and ``<!-- not run: the reason -->`` in Markdown. Such
blocks are counted and listed.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # for the small models of the inputs

from shell_inputs import prepare  # noqa: E402

PROGRAMS = (
    r"\.ci/run|cd|conda|curl|docker|export|ffmpeg|flowalign|git|mkdir|pip|pre-commit|pytest|python3?|"
    r"sbatch|sphinx-build|sqlite3|srun|ssh|torchrun|uv|uvicorn"
)
SHELL_LINE = re.compile(rf"\s*(\$ )?([A-Z_]+=\S+ )*({PROGRAMS})( (?![=:(,.])|$)")
MARK = re.compile(r"(?:\.\.|<!--) not run: (.+?)(?: -->)?")
CODE_BLOCK = re.compile(r"(\s*)\.\. code-block::\s*(\w*)")
LITERAL = re.compile(r"(\s*)(?!\s|\.\. ).*::|(\s*)::")
INSTALL = re.compile(r"pip install (?:-e )?\"?(?:\.|flowalign)(?:\[[\w,]+\])?\"?")
NAMED_EXTRAS = re.compile(r"(?:\"\.|flowalign)\[([\w,]+)\]")
# What is added to lines that begin so; of an option that is given twice the last counts.
UNTRAINED_CLIP, UNTRAINED_CLAP = " --model local-dir:untrained_clip", " --model untrained_clap"
ADDED = [
    (r"flowalign (fit|predict|report|evaluate) .*sounds", UNTRAINED_CLAP),
    (r"flowalign fit ", " --pretrained none"),
    (r"(flowalign encode|python -m flowalign\.encoders) .*--sounds", UNTRAINED_CLAP),
    (r"(flowalign encode|python -m flowalign\.encoders) ", UNTRAINED_CLIP),
    (
        r"(flowalign|python -m) (flowalign\.)?benchmark ",
        " --seeds 1 --shots 1 --methods flowalign zero-shot",
    ),
]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


@dataclass(frozen=True)
class Block:
    """Lines of a page in one language, and the reason if they are not run."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """Return what a shell reads at once: a line, with those on which it goes on."""
        lines = re.sub(r"(^|\s)#.*", "", self.text.replace("\\\n", " "), flags=re.M).splitlines()
        return [" ".join(line.split()) for line in lines if line.strip()]

    def runs(self) -> tuple[str, ...]:
        """Return what is run of it."""
        if self.language != "sh":
            return (self.text,)
        return tuple(filter(None, map(in_ci, self.commands())))


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the blocks of code of a page."""
    lines = page.read_text("utf-8").splitlines()
    mark, at = None, 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if page.suffix == ".md" and line.startswith("```"):
            start, at = at, lines.index("```", at)
            yield Block(page, start, line.strip("`"), "\n".join(lines[start:at]), mark)
            at += 1
        elif page.suffix == ".rst" and (
            found := CODE_BLOCK.fullmatch(line) or LITERAL.fullmatch(line)
        ):
            start, margin = at, " " * (len(line) - len(line.lstrip()) + 1)
            while at < len(lines) and (not lines[at] or lines[at].startswith(margin)):
                at += 1
            language = found[2] if found.re is CODE_BLOCK else ""
            yield Block(page, start, language, "\n".join(lines[start:at]), mark)
        if line.strip():
            found_mark = MARK.fullmatch(line.strip())
            mark = found_mark[1] if found_mark else None


def faults(pages: list[Path], blocks: list[Block]) -> list[str]:
    """Return what is wrong with pages before anything is run."""
    found = []
    for block in blocks:
        if block.language != "sh":
            lines = [line.strip() for line in block.text.splitlines() if SHELL_LINE.match(line)]
            found += [f"{block}: mark as sh: {line}" for line in lines]
        elif not block.not_run:
            others = [command for command in block.runs() if "pip install" in command]
            found += [f"{block}: installs other packages: {command}" for command in others]
    for page in pages:
        named = ",".join(NAMED_EXTRAS.findall(page.read_text("utf-8"))).split(",")
        found += [f"{page}: pyproject.toml has no extra {x}" for x in {*named} - {"", *EXTRAS}]
    return found


def is_readme_python(block: Block) -> bool:
    """Whether these are lines of Python that no doctest runs."""
    return block.language == "python" and block.page.suffix == ".md"


def in_ci(command: str) -> str:
    """Return what is run instead of a command, as the head of this file says."""
    parts = []
    for part in command.split(" && "):
        if INSTALL.fullmatch(part):
            continue
        parts.append(part + next((more for start, more in ADDED if re.match(start, part)), ""))
    return " && ".join(parts)


def run(page: Path, blocks: list[Block], work: Path) -> list[str]:
    """Run the lines of a page in a folder of its own, and return what was run, timed."""
    folder = work / page.relative_to(ROOT).as_posix().replace("/", "-")
    shutil.copytree(work / "inputs", folder, symlinks=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    environment["XDG_CACHE_HOME"] = str(folder / "caches")
    done = []
    for block in blocks:
        for command in block.runs():
            shell = ["bash", "-euo", "pipefail", "-c"]
            arguments = [*(shell if block.language == "sh" else [sys.executable, "-c"]), command]
            start = time.perf_counter()
            result = subprocess.run(
                arguments, cwd=folder, env=environment, text=True, capture_output=True
            )
            seconds = time.perf_counter() - start
            if result.returncode:
                raise RuntimeError(f"{block}: {command}\n{result.stdout}{result.stderr}")
            done.append(f"{seconds:5.1f} s  {block}: {command.splitlines()[0]}")
    return done


def main(pages: list[str]) -> str | None:
    """Check and run the lines, and return what is wrong."""
    made = {"auto_examples", "generated", "_build"}
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
    found = [page for page in found if made.isdisjoint(page.parts)]
    paths = [Path(page).resolve() for page in pages] or found
    blocks = [block for page in paths for block in blocks_of(page)]
    if wrong := faults(paths, blocks):
        return "\n".join(wrong)
    shell = [block for block in blocks if block.language == "sh"]
    skipped = [block for block in shell if block.not_run]
    first: dict[tuple[str, ...], Block] = {}  # of blocks that run the same
    for block in blocks:
        if not block.not_run and (block.language == "sh" or is_readme_python(block)):
            first.setdefault(block.runs(), block)
    todo = list(first.values())
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads:
        work = Path(folder)
        prepare(work / "inputs", ROOT)
        jobs = [
            threads.submit(run, page, [block for block in todo if block.page == page], work)
            for page in dict.fromkeys(block.page for block in todo)
        ]
        try:
            ran = [line for job in jobs for line in job.result()]
        except RuntimeError as error:
            threads.shutdown(cancel_futures=True)
            return str(error)
    print("\n".join(ran))
    for block in skipped:
        print(f"not run  {block}: {'; '.join(block.commands())}  ({block.not_run})")
    n_lines, n_skipped = (sum(len(b.commands()) for b in part) for part in (shell, skipped))
    print(f"{n_lines} shell lines on {len(paths)} pages, {n_skipped} of them marked as not run")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
