"""Several views in the report and in the command."""

import numpy as np
import pytest
from benchmark_rows import make
from view_files import view_arrays, write_views

from flowalign.benchmark import write_report
from flowalign.benchmark.__main__ import main

pytest.importorskip("matplotlib")

NAMES = ["a", "b", "c", "d"]
LEVELS = {
    "flowalign": {name: [0.6] for name in NAMES},
    "side by side": {name: [0.5 + 0.1 * k] for k, name in enumerate(NAMES)},
    "eye alone": {name: [0.55] for name in NAMES[:2]},
    "<ear> alone": {name: [0.65] for name in NAMES[2:]},
}


def test_the_section_says_losses_as_plainly_as_wins(tmp_path):
    rows = make(LEVELS) + make(LEVELS, n_shots=16)
    page = write_report(make(), tmp_path, several_views=rows).read_text()
    text = (tmp_path / "report.md").read_text()
    before, section = text.split("## Several views: 4 labelled samples a class")
    assert section.lstrip().startswith("Sets in which each sample was encoded by several encoders.")
    assert (
        page.index("Several views: 4") < page.index("Sets in wh") < page.index("Several views: 16")
    )
    assert "that lack it: they count as wrong" in section
    assert "| flowalign | 60.0 | - | 1.6 |  |  | 0.40 |" in section
    beside = "| side by side | **65.0** | - | 1.4 | -5.0 [-25.5, +15.5] | 1 / 1 / 2 | 0.35 |"
    assert beside in section
    # Views of some sets only have no mean, but their wins and losses.
    assert "| eye alone | - | - | - | - | 2 / 0 / 0 | - |" in section
    assert "| <ear> alone | - | - | - | - | 0 / 0 / 2 | - |" in section
    assert "| - | - | 65.0 | 65.0 |" in section
    assert "side by side" not in before
    assert "40 fits, 4 feature sets, draws 0, 1, 2;" in before
    for written in (page, text):
        assert written.count("Several views: ") == 2
        assert written.count("Sets in which each sample was") == 1
    assert "&lt;ear&gt; alone" in page
    for name in ("differences", "time", "shots", "calibration"):
        assert f"](views_{name}.svg)" in section
        both = [(tmp_path / f"{start}{name}.svg").read_text() for start in ("", "views_")]
        assert both[0] != both[1]
    assert page.count("<svg") == 8
    assert "nan" not in section


def test_there_may_be_several_views_alone(tmp_path):
    lost = {name: make(LEVELS)[0][name] for name in ("set", "n_shots", "seed")}
    lost |= {"method": "none alone", "error": "ValueError: no luck"}
    page = write_report([], tmp_path, several_views=[*make(LEVELS), lost]).read_text()
    assert page.index("<h1>") < page.index("<h2>Several views: 4") == page.index("<h2>")
    assert "13 fits, 4 feature sets, draws 0;" in page
    assert "none alone on a, 4 shots, draw 0: ValueError: no luck" in page
    assert not (tmp_path / "time.svg").exists()


def test_a_report_without_several_views_says_nothing_of_them(tmp_path):
    assert "views" not in write_report(make(), tmp_path).read_text()


@pytest.fixture
def path(tmp_path):
    return write_views(tmp_path / "one.npz")


def command(folder, *arguments):
    main(["--features", str(folder), "--shots", "1", "--seeds", "1", "--jobs", "1",
          "--out", str(folder / "report"), *arguments])  # fmt: skip


def test_the_command_sees_by_the_file_whether_there_are_several_views(path, tmp_path, capsys):
    command(tmp_path)
    assert capsys.readouterr().out.startswith("4 fits, 0 failed")
    one = {name.removesuffix("_ear"): a for name, a in view_arrays().items() if "eye" not in name}
    np.savez(tmp_path / "plain.npz", **one)
    settings = "--setting", "inductive", "open-set", "several-views"
    command(tmp_path, "--methods", "zero-shot", *settings)
    said = capsys.readouterr().out
    left_out = "--setting inductive, --setting open-set, --methods: without one, of several views."
    assert said.startswith(f"{left_out}\n6 fits, 0 failed")
    text = (tmp_path / "report" / "report.md").read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    parts = ["", "Several views: ", "None of these: "]
    assert titles == [f"## {part}1 labelled sample a class" for part in parts]
    assert "6 fits" not in text  # rows of open sets are no fits
    assert "5 fits, 2 feature sets" in text


@pytest.mark.parametrize(
    "option", [["--methods", "zero-shot"], ["--oracle"], ["--setting", "open-set"]]
)
def test_options_for_one_view_are_refused_where_all_sets_have_several(path, option, capsys):
    with pytest.raises(SystemExit):
        command(path.parent, *option)
    said = capsys.readouterr().err
    assert f"{option[0]}" in said
    assert "for feature sets of one view; all of --features have several" in said


def test_several_views_are_asked_for_in_vain_where_no_set_has_them(tmp_path, capsys):
    one = {name.removesuffix("_ear"): a for name, a in view_arrays().items() if "eye" not in name}
    np.savez(tmp_path / "plain.npz", **one)
    with pytest.raises(SystemExit):
        command(tmp_path, "--setting", "several-views")
    assert "--setting several-views: no feature set" in capsys.readouterr().err


def test_a_damaged_file_of_several_views_is_told_by_the_command(tmp_path, capsys):
    write_views(tmp_path / "set.npz", X_test_ear=None)
    with pytest.raises(SystemExit):
        command(tmp_path)
    assert "lacks X_test_ear" in capsys.readouterr().err
