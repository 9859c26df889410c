"""The command: what is called, what is said of errors, and that help costs nothing."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowalign
from flowalign.command import main, options, predict
from flowalign.encoders.__main__ import main as encode

COMMANDS = ["fit", "predict", "report", "evaluate", "encode", "benchmark"]


@pytest.mark.parametrize("arguments", [[], ["fit"], ["report"]], ids=str)
def test_help_is_printed_without_the_libraries_that_work(arguments):
    code = (
        "import sys\n"
        "from flowalign.command import main\n"
        f"try: main([*{arguments}, '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'sklearn', 'numpy', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("[]\n")
    assert "usage: flowalign" in done.stdout


def test_both_forms_are_one():
    command = [sys.executable, "-m", "flowalign"]
    version = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True)
    assert version.stdout == f"flowalign {flowalign.__version__}\n"
    usage = subprocess.run([*command, "fit", "--help"], check=True, capture_output=True, text=True)
    assert usage.stdout.startswith("usage: python -m flowalign fit ")


def test_the_overview_names_each_command(command):
    status, out, _ = command("--help")
    assert status == 0
    for name in COMMANDS:
        assert f"\n    {name} " in out or f"\n    {name}\n" in out


@pytest.mark.parametrize("name", ["encode", "benchmark"])
@pytest.mark.parametrize("prog", ["flowalign", "python -m flowalign"])
def test_commands_that_are_forwarded_know_their_name(name, prog, capsys):
    with pytest.raises(SystemExit) as end:
        main([name, "--help"], prog=prog)
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {prog} {name} [-h] ")


def test_a_form_of_before_keeps_its_name(capsys):
    with pytest.raises(SystemExit):
        encode(["--help"])
    assert capsys.readouterr().out.startswith("usage: python -m flowalign.encoders ")


def test_arguments_are_forwarded(command, tmp_path):
    status, _, errors = command("encode", tmp_path / "no", "--out", tmp_path)
    assert status == 2
    assert errors.endswith("no is no folder\n")
    assert "flowalign encode: error: " in errors


@pytest.mark.parametrize(
    "arguments",
    [[], ["grow"], ["fit"], ["fit", "pictures"], ["predict"], ["fit", "x", "--out", "y", "--no"]],
    ids=str,
)
def test_arguments_that_do_not_parse(arguments, command):
    status, out, errors = command(*arguments)
    assert (status, out) == (2, "")
    assert errors.splitlines()[-1].startswith("flowalign")


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError("gone"), ImportError("install it")])
def test_errors_are_one_line(error, command, monkeypatch):
    def run(args):
        raise error

    monkeypatch.setattr(predict, "run", run)
    assert command("predict", "model") == (2, "", f"flowalign predict: error: {error}\n")


def test_the_log_of_libraries_is_silent_below_errors(command, monkeypatch):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)

    def run(args):
        for name in (None, "hub"):
            logging.getLogger(name).warning("retrying")
            logging.getLogger(name).error("failed")

    monkeypatch.setattr(predict, "run", run)
    logging.getLogger().addHandler(handler)
    try:
        assert command("predict", "model") == (0, "", "")
        logging.getLogger().warning("after")
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue().split() == ["failed", "failed", "after"]


def test_an_interruption_leaves_no_traceback(command, monkeypatch):
    def run(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict, "run", run)
    assert command("predict", "model") == (130, "", "Interrupted.\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(unbuffered, tmp_path):
    """What is written is far more than a pipe holds."""
    np.save(tmp_path / "X.npy", np.ones((40_000, 6), dtype=np.float32))
    model_file = Path(__file__).parent / "models" / "gaussian_format_2.safetensors"
    command = [sys.executable, "-m", "flowalign", "predict", str(model_file)]
    command += ["--features", str(tmp_path / "X.npy")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        assert process.stdout.readline() == b"path,label,probability,score,unknown\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=100) == 0


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/caches"}, "/caches/flowalign"),
        ("linux", {"XDG_CACHE_HOME": "not/absolute"}, "~/.cache/flowalign"),
        ("linux", {}, "~/.cache/flowalign"),
        ("darwin", {"XDG_CACHE_HOME": "/caches"}, "~/Library/Caches/flowalign"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/flowalign"),
        ("win32", {}, "~/AppData/Local/flowalign"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="other paths are absolute there")
def test_caches_are_where_the_system_has_them(platform, environment, expected, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert options.cache_folder() == Path(expected).expanduser()
