"""flowalign report: a page that shows all, asks for nothing, and is not written by file names."""

import base64
import io
import re
import wave
from html.parser import HTMLParser

import numpy as np
import pytest
from encoder_models import tone
from stub_clip import MODEL, write_colors

from flowalign.command.answers import Answers
from flowalign.command.page import page
from flowalign.command.previews import RATE, SECONDS, SMALL, THUMBNAIL, excerpt, thumbnail
from flowalign.command.report import label_next, to_show

VOID = {"img", "input", "link", "meta", "br", "hr"}
HOSTILE = "<img src=x onerror=alert(1)> & \"quoted\" 'name'.png"


class Page(HTMLParser):
    """Elements with their attributes; each that opens must close."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names))
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.texts.append((self.open[-1] if self.open else "", text))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def answers(n=12, classes=("ant", "bee", "cat"), paths=None):
    """Made up; file i is of class i modulo 3, and less certain the larger i is."""
    certainty = np.linspace(0.95, 0.5, n)
    proba = np.repeat((1 - certainty)[:, None] / 2, 3, axis=1)
    proba[np.arange(n), np.arange(n) % 3] = certainty
    scores = np.where(np.arange(n) % 5 == 4, -1.0, 1.0)
    paths = paths or [f"new/{i}.png" for i in range(n)]
    return Answers(paths, proba, scores, 0.0, np.array(classes), np.arange(n))


@pytest.fixture
def report(command, tmp_path):
    """The page of a folder in which a file has a hostile name."""
    write_colors(tmp_path / "colors", ("big_red", "green", "blue"))
    command("fit", "colors", "--out", "m.flowalign", "--model", MODEL)
    write_colors(tmp_path / "new", seed=1)
    (tmp_path / "new" / "red" / "red0.png").rename(tmp_path / "new" / HOSTILE)
    status, out, errors = command("report", "m.flowalign", "new")
    assert (status, out, errors) == (0, "12 of 12 pictures in report.html\n", "")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_nothing_is_asked_of_anybody(report):
    found = Page(report)
    policy = found.all("meta")[1]["content"]
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:; style-src")
    assert "connect-src" not in policy
    assert not re.search(r"https?:|//[a-z]|url\(|@import", report)
    for _, attributes in found.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")


def test_the_script_is_the_one_that_the_policy_names(report):
    import hashlib

    script = report[report.index("<script>") + 8 : report.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in report.replace("'", "&#39;")
    assert len(Page(report).all("script")) == 1


def test_a_name_of_a_file_is_a_text(report):
    found = Page(report)
    images = found.all("img")
    assert {*images[0]} == {"src", "alt", "decoding"}
    assert HOSTILE in [image["alt"] for image in images]
    assert HOSTILE in [card.get("data-name") for card in found.all("li")]
    assert ("p", HOSTILE) in found.texts


@pytest.mark.parametrize("label", ["</script><script>alert(1)</script>", "a\"b'c&d", "$title"])
def test_a_name_of_a_class_is_a_text(label, tmp_path, monkeypatch):
    monkeypatch.setattr("flowalign.command.page.thumbnail", lambda path: "data:,")
    made = answers(classes=("ant", "bee", label))
    found = Page(page(made, "pictures", np.arange(12), label_next(made), f"{label}.flowalign"))
    assert label in [option["value"] for option in found.all("option")]
    assert {*found.all("li")[-1]} == {"data-label", "data-name"}
    assert found.all("li")[-1]["data-label"] == label
    assert any(label in text for tag, text in found.texts if tag == "h2")
    assert len(found.all("script")) == 1


def test_thumbnails_are_small_pictures(report):
    from PIL import Image

    for image in Page(report).all("img"):
        kind, content = image["src"].split(",")
        assert kind == "data:image/jpeg;base64"
        assert max(Image.open(io.BytesIO(base64.b64decode(content))).size) <= THUMBNAIL


def test_thumbnails_of_large_pictures(tmp_path):
    Image = pytest.importorskip("PIL.Image")

    Image.new("RGBA", (3000, 1500)).save(tmp_path / "a.png")
    content = base64.b64decode(thumbnail(str(tmp_path / "a.png")).split(",")[1])
    shown = Image.open(io.BytesIO(content))
    assert shown.size == (THUMBNAIL, THUMBNAIL // 2)
    assert min(shown.getpixel((5, 5))) > 250  # what is transparent is white, as to the encoder


def test_each_class_begins_with_what_is_least_certain(monkeypatch):
    monkeypatch.setattr("flowalign.command.page.thumbnail", lambda path: "data:,")
    made = answers()
    text = page(made, "pictures", to_show(made, 100), label_next(made), "m")
    parts = re.split(r'<section id="', text)
    named = {part.split('"')[0]: re.findall(r'data-name="(\d+).png"', part) for part in parts[1:]}
    assert named["unknown"] == ["9", "4"]
    assert named["class-0"] == ["6", "3", "0"]
    assert named["class-1"] == ["10", "7", "1"]
    assert named["class-2"] == ["11", "8", "5", "2"]
    assert named["next"][0] == "11"
    headings = re.findall(r"<h2.*?>(.*?)</h2>", text)
    assert headings[1:3] == ["Unknown <small>2</small>", "ant <small>3</small>"]


def test_a_limit_keeps_what_is_doubtful(monkeypatch):
    monkeypatch.setattr("flowalign.command.page.thumbnail", lambda path: "data:,")
    made = answers()
    kept = to_show(made, 5)
    assert kept.tolist() == [9, 4, 11, 10, 8]
    text = page(made, "pictures", kept, label_next(made)[:0], "m")
    assert "The 7 most certain are not shown." in text
    assert "cat <small>2 of 4</small>" in text
    assert len(re.findall("<img ", text)) == 5


def test_labels_are_asked_for_where_classes_are_close():
    made = answers()
    order = label_next(made, 12)
    assert not made.unknown[order].any()
    assert (made.certainty[order] < 0.9).all()
    assert order[:3].tolist() == [11, 10, 6]  # the closest of each class, then the next of each
    assert order[3:].tolist() == [8, 7, 3, 5, 2][: len(order) - 3]
    assert label_next(made, 2).tolist() == [11, 10]


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_that_is_none(limit, command, tmp_path):
    status, _, errors = command("report", "m", "new", "--limit", limit)
    assert status == 2
    assert "--limit must be" in errors


def write_wave(path, seconds, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((tone(440, seconds, rate) * 30000).astype("<i2").tobytes())


def test_a_small_sound_is_there_as_it_is(tmp_path):
    write_wave(tmp_path / "a.WAV", 1.0)
    kind, content = excerpt(str(tmp_path / "a.WAV")).split(",")
    assert kind == "data:audio/wav;base64"
    assert base64.b64decode(content) == (tmp_path / "a.WAV").read_bytes()


def test_of_a_long_sound_the_middle_is_there(tmp_path):
    pytest.importorskip("soundfile")
    write_wave(tmp_path / "a.wav", 30.0)
    assert (tmp_path / "a.wav").stat().st_size > SMALL
    content = base64.b64decode(excerpt(str(tmp_path / "a.wav")).split(",")[1])
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert file.getnframes() == SECONDS * RATE


def test_players_have_names(monkeypatch):
    monkeypatch.setattr("flowalign.command.page.excerpt", lambda path: "data:audio/wav,")
    made = answers(3, paths=["a/1.wav", "a/2.wav", "b/3.wav"])
    found = Page(page(made, "sounds", np.arange(3), label_next(made), "m"))
    assert {audio["aria-label"] for audio in found.all("audio")} == {
        "a/1.wav", "a/2.wav", "b/3.wav",
    }  # fmt: skip
    assert all("controls" in audio for audio in found.all("audio"))
