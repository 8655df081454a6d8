"""``python docs/offline.py FOLDER``: no built page fetches anything from another host."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

#: Attributes that a browser follows by itself. Links that a reader clicks are none.
_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"),
            ("object", "data"), ("source", "src"), ("video", "src"), ("embed", "src")}
#: ``link`` elements that fetch nothing.
_NAMED_ONLY = {"canonical", "next", "prev", "index", "search", "author", "license"}
_IN_STYLE = re.compile(
    r"url\(\s*['\"]?((?:https?:)?//[^)'\"]+)|@import\s+['\"]((?:https?:)?//[^'\"]+)")


class _Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "link" and (given.get("rel") or "") in _NAMED_ONLY:
            return
        self.found += [value for name, value in attrs
                       if (tag, name) in _FETCHED and value
                       and re.match(r"(?:https?:)?//", value)]


def fetched_from_elsewhere(folder: Path) -> list[str]:
    """What the pages and style sheets below `folder` would fetch, as ``page: address``."""
    found = []
    for page in sorted(folder.rglob("*.html")):
        parser = _Fetches()
        parser.feed(page.read_text("utf-8"))
        found += [f"{page.relative_to(folder)}: {address}" for address in parser.found]
    for sheet in sorted(folder.rglob("*.css")):
        found += [f"{sheet.relative_to(folder)}: {match.group(1) or match.group(2)}"
                  for match in _IN_STYLE.finditer(sheet.read_text("utf-8"))]
    return found


def main(folder: Path) -> int:
    """Print what is fetched from elsewhere; 1 if anything is, or if there is no search."""
    found = fetched_from_elsewhere(folder)
    if not (folder / "searchindex.js").exists():
        found.append(f"{folder}: no searchindex.js, so the search does not work without a server")
    print("\n".join(found) or f"{folder}: nothing is fetched from elsewhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
