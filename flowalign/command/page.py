"""The page of a report: HTML that loads nothing from outside.

Names of files and classes come from outside, so they are escaped where they enter.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import date
from html import escape
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

import flowalign
from flowalign.command.answers import Answers
from flowalign.command.previews import SECONDS, excerpt, thumbnail
from flowalign.inputs import shown
from flowalign.prompts import words

NEXT = (
    "The labels of these would help most. They look like some class, and the model is less than "
    "90 % sure which. The closest calls come first, from each predicted class in turn."
)
UNKNOWN = (
    "These files score below the model's threshold, so they may belong to none of the classes. "
    "Each is shown with the class that it is most like."
)


def page(
    answers: Answers, kind: str, kept: NDArray[np.intp], ask: NDArray[np.intp], model: str
) -> str:
    """Return the page.

    Parameters
    ----------
    answers : Answers
        Answers to n files.
    kind : {"pictures", "sounds"}
    kept : ndarray of shape (m,)
        Which files to show, in this order.
    ask : ndarray of shape (k,)
        Which labels would help most.
    model : str
        The name of the model.
    """
    writer = _Writer(answers, kind)
    accepted = kept[~answers.unknown[kept]]
    sections = [
        ("next", "Label next", NEXT, ask, len(ask)),
        ("unknown", "Unknown", UNKNOWN, kept[answers.unknown[kept]], int(answers.unknown.sum())),
    ]
    links = []
    counts = np.bincount(answers.codes[~answers.unknown], minlength=len(answers.classes))
    for code, (label, count) in enumerate(zip(answers.classes, counts, strict=True)):
        mine = accepted[answers.codes[accepted] == code]
        sections.append((f"class-{code}", str(label), "", mine, int(count)))
        links.append((f"class-{code}", str(label), int(count)))
    links.append(("unknown", "unknown", int(answers.unknown.sum())))
    place, script = files("flowalign.command") / "page_parts", "page.js"
    code_of_page = (place / script).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(code_of_page.encode()).digest()).decode()
    left_out = len(answers.paths) - len(kept)
    return Template((place / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"{model}: {len(answers.paths)} {kind}"),
        policy=f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=(place / "page.css").read_text(encoding="utf-8"),
        script=code_of_page,
        kind=kind,
        model=escape(shown(model)),
        count=len(answers.paths),
        folder=escape(shown(Path(*writer.folder))),
        left_out=f"The {left_out} most certain are not shown." if left_out else "",
        about_sounds=f"Long sounds are cut to the middle {SECONDS} seconds."
        if kind == "sounds"
        else "",
        links="\n".join(_link(*link, max(count for *_, count in links)) for link in links),
        options="\n".join(_option(str(label)) for label in answers.classes),
        sections="\n".join(writer.section(*section) for section in sections),
        version=flowalign.__version__,
        day=date.today().isoformat(),
    )


def _option(label: str) -> str:
    return f'<option value="{escape(label)}">{spelt(label)}</option>'


def _link(place: str, label: str, count: int, most: int) -> str:
    share = round(100 * count / max(most, 1))
    return (
        f'<li><a href="#{place}"><span>{spelt(label)}</span> <b>{count}</b>'
        f'<i style="--share:{share}%"></i></a></li>'
    )


def spelt(label: str) -> str:
    """Return a class as words, which a browser can break into lines."""
    return escape(words(label) or label)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}&nbsp;%"


class _Writer:
    """Writes sections of cards. A file in two sections is read once."""

    def __init__(self, answers: Answers, kind: str) -> None:
        self.answers, self.kind = answers, kind
        folders = [Path(path).parts[:-1] for path in answers.paths]
        pairs = zip(min(folders), max(folders), strict=False)
        self.folder = [part for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
        self.previews: dict[int, str] = {}

    def section(
        self, place: str, title: str, about: str, rows: NDArray[np.intp], count: int
    ) -> str:
        shows = f"{len(rows)} of {count}" if len(rows) < count else f"{count}"
        cards = "\n".join(self._card(int(row), place) for row in rows)
        body = f'<ul class="cards">\n{cards}\n</ul>' if len(rows) else "<p>None.</p>"
        note = f"<p>{escape(about)}</p>\n" if about else ""
        return (
            f'<section id="{place}" aria-labelledby="{place}-title">\n'
            f'<h2 id="{place}-title">{spelt(title)} <small>{shows}</small></h2>\n{note}{body}\n'
            "</section>"
        )

    def _card(self, row: int, place: str) -> str:
        answers, proba = self.answers, self.answers.proba[row]
        first, *others = np.argsort(-proba, kind="stable")[:2]
        label = str(answers.classes[first])
        name = escape(shown(Path(*Path(answers.paths[row]).parts[len(self.folder) :])))
        lines = [
            f'<li data-label="{escape(label)}" data-name="{name}">{self._preview(row, name)}',
            f'<p class="said"><b>{spelt(label)}</b> <span>{_percent(proba[first])}</span></p>',
            f'<i class="bar" style="--share:{100 * proba[first]:.0f}%"></i>',
        ]
        for other in others:
            said = f"or {spelt(str(answers.classes[other]))}, {_percent(proba[other])}"
            lines.append(f'<p class="other">{said}</p>')
        return "\n".join([*lines, f'<p class="name">{name}</p></li>'])

    def _preview(self, row: int, name: str) -> str:
        if row not in self.previews:
            make = thumbnail if self.kind == "pictures" else excerpt
            self.previews[row] = make(self.answers.paths[row])
        if self.kind == "pictures":
            return f'<img src="{self.previews[row]}" alt="{name}" decoding="async">'
        return (
            f'<audio controls preload="none" src="{self.previews[row]}" aria-label="{name}">'
            "</audio>"
        )
