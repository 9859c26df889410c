"""Exits with the links inside a built site that lead nowhere: ``check_links.py html``."""

import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

root = Path(sys.argv[1]).resolve()
pages = {
    path: BeautifulSoup(path.read_text("utf-8"), "html.parser")
    for path in root.rglob("*.html")
    if "_static" not in path.parts  # templates of the theme
}
names = {
    path: {tag[key] for key in ("id", "name") for tag in page.find_all(attrs={key: True})}
    for path, page in pages.items()
}
broken, n_links = [], 0
for path, page in pages.items():
    for key in ("href", "src"):
        for tag in page.find_all(attrs={key: True}):
            link = urlsplit(tag[key])
            if link.scheme or link.netloc:
                continue
            n_links += 1
            target = (path.parent / unquote(link.path)).resolve() if link.path else path
            if target.is_dir():
                target /= "index.html"
            lost = link.fragment and target in names and link.fragment not in names[target]
            if lost or not target.exists():
                broken.append(f"{path.relative_to(root)}: {tag[key]}")
print(f"{n_links} links inside {len(pages)} pages, {len(broken)} broken")
sys.exit("\n".join(sorted(set(broken))) or 0)
