"""The documentation site: built without a warning or broken link, and looked at in a real browser.

PAPER_DIGEST_SITE names a site that is already built.
"""
import fcntl
import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs"))
WIDTHS = {"desktop": 1280, "phone": 390}


# ------------------------------------------------------------------ the build
@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    given = os.environ.get("PAPER_DIGEST_SITE")
    if given:
        assert (Path(given) / "index.html").is_file(), f"PAPER_DIGEST_SITE={given} holds no built site"
        return Path(given).resolve()
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    out, log = shared / "site", shared / "site.log"
    with open(shared / "site.lock", "w") as lock:  # workers that come second wait for the first one's build
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not log.is_file():
            log.write_text(build(out))
    assert log.read_text() == "", log.read_text()
    return out


def build(out: Path) -> str:
    "What was wrong with building the site into `out`; empty when nothing was."
    before = set((ROOT / "nbs").rglob("*"))
    done = subprocess.run([sys.executable, ROOT / "docs" / "build.py", "--out", out], capture_output=True, text=True, timeout=300)
    if done.returncode or "warning" in done.stderr.lower():
        return f"docs/build.py ended with {done.returncode}\n{done.stdout}{done.stderr}"
    left = [str(p) for p in set((ROOT / "nbs").rglob("*")) - before if p.suffix != ".ipynb"]
    return f"the build left files in nbs/: {left}" if left else ""


def pages_of(pattern: str) -> list[Path]:
    return [p for p in sorted((ROOT / "nbs").glob(pattern)) if ".ipynb_checkpoints" not in p.parts]


def address(notebook: Path) -> str:
    "Page of a notebook, relative to the site."
    folder = notebook.relative_to(ROOT / "nbs").parts[:-1]
    stem = re.sub(r"^\d+[a-z]?_", "", notebook.stem)
    stem = "module_index" if stem == "index" != notebook.stem else stem
    if not folder:
        return "tour.html" if stem == "index" else f"shared/{stem}.html"
    return f"{folder[1]}/recipes/{notebook.stem}.html" if folder[0] == "recipes" else f"{folder[0]}/{stem}.html"


def test_every_notebook_has_a_page(site):
    notebooks = pages_of("*.ipynb") + pages_of("*/*.ipynb") + pages_of("recipes/*/*.ipynb")
    assert len(notebooks) > 5
    missing = [str(n.relative_to(ROOT)) for n in notebooks if not (site / address(n)).is_file()]
    assert not missing, f"no page for {missing}"
    for paper in {n.parent.name for n in pages_of("recipes/*/*.ipynb")}:
        assert (site / paper / "index.html").is_file() and (site / paper / "results.html").is_file()


def test_pages_hide_what_is_not_for_readers(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for mark in ("#| export", "#| hide", "#| default_exp", "injected-parameters", "from fastcore.test import", f'"{ROOT}'):
            assert mark not in text, f"{page.relative_to(site)} shows {mark!r}"


def test_parameter_comments_are_shown(site):
    text = (site / "shared" / "core.html").read_text(encoding="utf-8")
    assert 'id="paper_digest.core.seed_everything"' in text
    assert "non-negative, below 2**32" in text  # a parameter's comment, beside its type


def test_search_index_knows_functions(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert index.startswith("Search.setIndex(") and "seed_everything" in index


def test_no_broken_link_and_no_foreign_request(site):
    import check
    assert check.check_site(site) == []


@pytest.mark.parametrize("body, problem", [
    ('<a href="nowhere.html">x</a>', "nowhere.html does not exist"),
    ('<a href="other.html#part">x</a>', "no such anchor"),
    ('<a href="/other.html">x</a>', "absolute"),
    ('<a href="../../secret.txt">x</a>', "leads out of the site"),
    ('<a href="http://example.org">x</a>', "not https"),
    ('<script src="https://cdn.example.org/x.js"></script>', "from the network"),
    ('<link rel="stylesheet" href="//fonts.example.org/x.css">', "from the network"),
    ('<img srcset="https://example.org/x.png 2x">', "from the network"),
    ('<style>@import url("https://example.org/x.css");</style>', "from the network"),
    ('<p style="background:url(https://example.org/x.png)">x</p>', "from the network"),
])
def test_checker_sees(tmp_path, body, problem):
    import check
    (tmp_path / "other.html").write_text("<p id=here>other</p>")
    (tmp_path / "index.html").write_text(f'<a href="other.html#here">ok</a><a href="https://example.org">ok</a>{body}')
    found = check.check_site(tmp_path)
    assert len(found) >= 1 and problem in " ".join(found), found


def test_docments_are_read_as_written():
    import api
    source = '''
def mean(
    xs: list[float],     # any numbers
    *rest: float,
    weights: dict[str, "a|b"] | None = None,  # by name, `None` for equal
) -> float:              # never NaN
    "Mean, *weighted*."

class Kind(str, Enum):
    "Kinds."
    one = "1"  # first

@dataclass
class Point:
    "A point."
    x: int = 0  # left to right
    def norm(self) -> float:
        "Length."
'''
    mean, kind, point = api.symbols(source)
    assert mean.signature == "(xs, *rest, weights=None) -> float"
    assert [(r.name, r.type, r.text) for r in mean.rows] == [
        ("xs", "list[float]", "any numbers"), ("*rest", "float", ""),
        ("weights", 'dict[str, "a|b"] | None', "by name, `None` for equal"), ("returns", "float", "never NaN")]
    assert [(r.name, r.text) for r in kind.rows] == [("one", "first")]
    assert [r.name for r in point.rows] == ["x"] and [m.name for m in point.members] == ["norm"]
    assert r"\*weighted\*" in api.directive(mean, "m", lambda code: f"`{code}`")


# ------------------------------------------------------------------ the browser
@pytest.fixture(scope="session")
def served(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            return None

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def opened(browser, served):
    "open(address, width, scheme) -> page; at the end no error on the console and no request to another host."
    problems, contexts = [], []

    def watch(page):
        page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
        page.on("pageerror", lambda e: problems.append(f"page error: {e}"))
        page.on("requestfailed", lambda r: None if "ABORTED" in (r.failure or "") else problems.append(f"failed: {r.url}"))  # a page left early
        page.on("response", lambda r: problems.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
        page.on("request", lambda r: None if r.url.startswith((served, "data:", "blob:")) else problems.append(f"asks {r.url}"))

    def open_page(where: str, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(f"{served}/{where}", wait_until="load")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems, problems


def shown() -> dict[str, str]:
    "Pages the browser looks at: home, one module, one paper, its results, one recipe."
    recipes = pages_of("recipes/*/*.ipynb")
    first = next((r for r in recipes if r.stem == "main"), recipes[0] if recipes else None)
    found = {"home": "index.html", "module": "shared/core.html", "how_to_run": "how_to_run.html"}
    if first:
        found |= {"recipe": address(first), "paper": f"{first.parent.name}/index.html", "results": f"{first.parent.name}/results.html"}
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", WIDTHS)
@pytest.mark.parametrize("name", ["home", "module", "how_to_run", "recipe", "paper", "results"])
def test_page_in_browser(opened, artifacts, name, screen, scheme):
    assert name in shown(), f"no {name} page: nbs/recipes holds no recipe"
    page = opened(shown()[name], WIDTHS[screen], scheme)
    assert page.locator("article h1").count() == 1
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert over <= 0, f"the page is {over} px wider than the screen"
    outside = page.evaluate("""() => [...document.querySelectorAll('article *')].filter(e => {
        const box = e.getBoundingClientRect();
        if (!box.width || box.right <= window.innerWidth + 1) return false;
        let up = e;  // what lies in a box that scrolls by itself may be wider
        while (up !== document.body && getComputedStyle(up).overflowX === 'visible') up = up.parentElement;
        return up === document.body;
    }).map(e => e.outerHTML.slice(0, 80))""")
    assert not outside, outside
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager'; })")
    blank = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
    assert not blank, f"pictures that do not show: {blank}"
    (artifacts / "site").mkdir(exist_ok=True)
    page.screenshot(path=str(artifacts / "site" / f"{name}-{screen}-{scheme}.png"), full_page=True, animations="disabled")


def test_search_finds_a_function(opened):
    page = opened("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("seed_everything")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=seed_everything**")
    hit = page.locator("#search-results a", has_text="seed_everything").first
    hit.wait_for(timeout=10_000)
    hit.click()
    page.wait_for_url("**/shared/core.html**")


def test_search_finds_prose(opened):
    page = opened("search.html?q=quiet+fallback")
    page.locator("#search-results ul.search a").first.wait_for(timeout=10_000)


def test_dark_mode_can_be_chosen(opened):
    page = opened("index.html", scheme="light")
    for _ in range(3):
        page.locator("button.theme-switch-button:visible, .theme-switch-container button:visible").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
        dark = page.locator("button.theme-change-button[data-mode=dark]:visible")
        if dark.count():
            dark.first.click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_source_opens(opened):
    page = opened("shared/core.html")
    source = page.locator("div.cell.tag_source details").first
    assert not source.evaluate("d => d.open")
    page.get_by_role("button", name="Show all source").click()
    assert page.locator("div.cell.tag_source details:not([open])").count() == 0
    assert source.locator("pre").is_visible()


# ------------------------------------------------------------------ for everybody
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["home", "module", "recipe", "paper", "results"])
def test_axe_finds_nothing_serious(opened, name, scheme):
    from axe_playwright_python.sync_playwright import Axe
    page = opened(shown()[name], 1280, scheme)
    page.evaluate("Promise.all(document.getAnimations().map(a => a.finished.catch(() => 0)))")  # colours that fade into the scheme
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
    serious = [f"{v['id']}: {v['help']}; {n['html'][:120]}" for v in found if v["impact"] in ("serious", "critical") for n in v["nodes"][:3]]
    assert serious == []
