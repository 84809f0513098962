"""Checks of the built site: internal links and anchors lead somewhere, no page asks the network for anything."""
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# attributes a browser follows by itself while it shows a page
LOADS = {("img", "src"), ("script", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("audio", "src"),
         ("embed", "src"), ("object", "data"), ("img", "srcset"), ("source", "srcset"), ("image", "href"),
         ("image", "xlink:href"), ("use", "href"), ("use", "xlink:href"), ("video", "poster"), ("input", "src")}
LOADING_RELS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
REMOTE_CSS = re.compile(r"""(?:@import\s+|url\(\s*)(?:url\(\s*)?["']?((?:https?:)?//[^"')\s]+)""", re.I)


class Page(HTMLParser):
    "Ids, links and loaded addresses of one page."

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links, self.loads, self.style = set(), [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {v for k, v in attrs if v and (k == "id" or (k == "name" and tag == "a"))}
        self.style = tag == "style"
        if "style" in given:
            self.loads += REMOTE_CSS.findall(given["style"] or "")
        for name, value in attrs:
            if not value:
                continue
            if (tag, name) in LOADS:
                self.loads += [p.split()[0] for p in value.split(",") if p.strip()] if name == "srcset" else [value]
            elif tag == "link" and name == "href":
                rels = set((given.get("rel") or "").lower().split())
                (self.loads if rels & LOADING_RELS else self.links).append(value)
            elif name == "href":
                self.links.append(value)

    def handle_data(self, data):
        if self.style:
            self.loads += REMOTE_CSS.findall(data)

    def handle_endtag(self, tag):
        self.style = False


def check_site(site: Path) -> list[str]:
    "Problems, one line each: broken links and anchors, requests to other hosts, machine paths."
    site = site.resolve()
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    problems = []
    for path, page in pages.items():
        name = path.relative_to(site)
        for address in page.loads:
            if urlsplit(address).scheme in ("http", "https") or address.startswith("//"):
                problems.append(f"{name}: loads {address} from the network")
        for address in page.links + page.loads:
            problem = follow(address, path, site, pages)
            if problem:
                problems.append(f"{name}: {problem}")
    for sheet in site.rglob("*.css"):
        for address in REMOTE_CSS.findall(sheet.read_text(encoding="utf-8", errors="replace")):
            problems.append(f"{sheet.relative_to(site)}: loads {address} from the network")
    return sorted(set(problems))


def follow(address: str, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    "What is wrong with `address` on the page at `path`, or None; other hosts are not asked."
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address} is not an address"
    if parts.scheme in ("data", "mailto", "blob", "https"):
        return None
    if parts.scheme or address.startswith("//"):
        return f"{address} is not https"
    if parts.path.startswith("/"):
        return f"{address} is absolute: it breaks when the site is moved into a folder"
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_relative_to(site):
        return f"{address} leads out of the site"
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return f"{address} does not exist"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return f"{address} has no such anchor"
    return None


if __name__ == "__main__":
    found = check_site(Path(sys.argv[1] if len(sys.argv) > 1 else "_site"))
    print("\n".join(found) or "no broken link, no request to another host")
    sys.exit(1 if found else 0)
