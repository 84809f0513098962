"""Build the documentation site: python docs/build.py [--out _site]

Notebooks become pages (docs/pages.py), exported code API entries (docs/api.py), finished runs and reference records the
recipe and results pages; Sphinx renders them with warnings as errors, and docs/check.py follows every link. No cell runs,
nothing is fetched, no tracked file changes. What appears is found in nbs/: a new paper needs no change here.
"""
import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

here = Path(__file__).resolve().parent
root = here.parent
sys.path[:0] = [str(here), str(root)]
os.environ.setdefault("PAPER_DIGEST_ROOT", str(root))
mirror = root.parent / "shared" / "data"
if mirror.is_dir():
    os.environ.setdefault("PAPER_DIGEST_DATA", str(mirror))

import check  # noqa: E402
import pages  # noqa: E402
import results  # noqa: E402
from pages import Page  # noqa: E402

from paper_digest.core import UserError  # noqa: E402
from paper_digest.data import PAPERS  # noqa: E402
from paper_digest.recipes import recipes  # noqa: E402
from paper_digest.runs import find_record  # noqa: E402

CARDS = re.compile("<!-- site: papers -->.*?<!-- end of papers -->", re.S)  # in README.md: four pictures; on the site cards stand there
FIRST = {"hot": "main/gains", "self_rewarding": "main/rounds", "abc": "ctrlbench/arms", "babel": "continued_pretraining/against_plain"}
GPU = "<!-- site: gpu recipes -->"  # in gpu.md: where the needs of the gpu tiers stand
GUIDES = ("how_to_run", "reading_a_verdict", "engines", "gpu")  # docs/<name>.md


class Site:
    "The pages, and the folder they are written to for Sphinx."

    def __init__(self, work: Path):
        self.work, self.problems = work, []
        nbs = root / "nbs"
        self.tour = self.notebook(nbs / "index.ipynb", "tour") if (nbs / "index.ipynb").is_file() else None
        self.shared = [self.notebook(p, f"shared/{name(p)}") for p in sorted(nbs.glob("*.ipynb")) if p.stem != "index"]
        self.methods, self.overview, self.recipes = {}, {}, {}
        for paper in PAPERS:
            found = [self.notebook(p, f"{paper}/{name(p)}") for p in sorted((nbs / paper).glob("*.ipynb"))]
            self.methods[paper] = [p for p in found if p.source.stem != "index"]
            self.overview[paper] = next((p for p in found if p.source.stem == "index"), None)
            self.recipes[paper] = [(r, self.notebook(r.notebook, f"{paper}/recipes/{r.name}")) for r in recipes(paper)]
        self.papers = [p for p in PAPERS if self.methods[p] or self.recipes[p]]
        every = [self.tour, *self.shared]
        for paper in self.papers:
            every += [self.overview[paper], *self.methods[paper], *(page for _, page in self.recipes[paper])]
        every = [p for p in every if p]
        recipe_pages = {recipe.id: page.doc for found in self.recipes.values() for recipe, page in found}
        self.index = pages.Index([p for p in every if p.module], recipe_pages)
        # file or folder of the repository -> file the page is made from
        self.docs = {p.source.resolve(): f"{p.doc}.ipynb" for p in every}
        self.docs |= {here / f"{n}.md": f"{n}.md" for n in GUIDES}
        self.docs |= {root / "README.md": "index.md", nbs: "shared/index.md"}
        self.docs |= {nbs / p: f"{p}/index.{'ipynb' if self.overview[p] else 'md'}" for p in self.papers}
        self.docs |= {nbs / "recipes" / p: f"{p}/results.md" for p in self.papers}

    @staticmethod
    def notebook(path: Path, doc: str) -> Page:
        title, lead, module = pages.head(path)
        return Page(doc, path, title, lead, f"paper_digest.{module}".removesuffix(".__init__") if module else "")

    # -------------------------------------------------------------- writing
    def put(self, doc: str, text: str, ending: str = ".md") -> None:
        target = self.work / f"{doc}{ending}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def rewrite(self, address: str, folder: Path) -> str:
        "Place on the site of an address written relative to `folder` of the repository."
        parts = urlsplit(address)
        if parts.scheme or not parts.path or address.startswith(("//", "/")):
            return address
        anchor = f"#{parts.fragment}" if parts.fragment else ""
        target = (folder / parts.path).resolve()
        if target in self.docs:
            return f"/{self.docs[target]}{anchor}"
        if not target.exists() or not target.is_relative_to(root):
            self.problems.append(f"link {address!r} in {folder.relative_to(root).as_posix()}/ leads to no file of the repository")
            return "index.md"
        place = target.relative_to(root).as_posix()
        if target.suffix.lower() in (".png", ".svg", ".jpg", ".gif", ".webp"):
            copied = self.work / "pictures" / place
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, copied)
            return f"/pictures/{place}"
        return f"{self.settings('git_url')}/blob/{self.settings('branch')}/{place}{anchor}"

    @staticmethod
    def settings(key: str) -> str:
        import configparser
        found = configparser.ConfigParser(delimiters=["="])
        found.read(root / "settings.ini", encoding="utf-8")
        return found["DEFAULT"][key]

    def markdown(self, path: Path, doc: str) -> str:
        "A markdown file of the repository with links that hold on the site."
        return pages.links(path.read_text(encoding="utf-8"), self.index, Page(doc, path, ""), self.rewrite)

    def page_of_notebook(self, page: Page, after_head: str = "", at_end: str = "", source: Path | None = None) -> None:
        "Convert and write one notebook; `after_head` and `at_end` are markdown put below its first cell and at its end."
        shown = Page(page.doc, source or page.source, page.title, page.lead, page.module)
        # links are written relative to the notebook's own folder, wherever the executed copy lies
        rewrite = lambda address, folder: self.rewrite(address, page.source.parent)
        nb = pages.convert(shown, root, self.index, rewrite)
        place = pages.relative(page.source, root)
        copied = self.work / "notebooks" / place
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page.source, copied)
        line = f"{{download}}`{place} </notebooks/{place}>`"
        if page.module:
            line += f" exports `{page.module}`"
        top = f"{{.origin}}\n{line}\n"
        if page.module:
            top = f"```{{py:module}} {page.module}\n```\n\n{top}"
        nb["cells"][1:1] = [pages.markdown(t) for t in (top, after_head) if t]
        nb["cells"] += [pages.markdown(at_end)] if at_end else []
        for number, cell in enumerate(nb["cells"]):
            cell["id"] = f"c{number}"
        self.put(page.doc, json.dumps(nb), ".ipynb")

    def write(self) -> None:
        for page in filter(None, [self.tour, *self.shared]):
            self.page_of_notebook(page)
        for paper in self.papers:
            for page in self.methods[paper]:
                self.page_of_notebook(page)
            for recipe, page in self.recipes[paper]:
                self.recipe_page(recipe, page)
            self.put(f"{paper}/results", results.paper_results(paper, PAPERS[paper][0], self.recipes[paper], self.picture))
            self.paper_page(paper)
        for n in GUIDES:
            self.put(n, self.markdown(here / f"{n}.md", n).replace(GPU, gpu_table()))
        self.put("shared/index", listing("Shared modules", "What more than one paper needs, in reading order.", self.shared))
        self.put("index", self.home())

    def picture(self, path: Path, recipe) -> str:
        "Copy a figure of a recipe beside the pages; its address on the site."
        place = f"pictures/{recipe.paper}-{recipe.name}-{path.name}"
        (self.work / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self.work / place)
        return f"/{place}"

    def recipe_page(self, recipe, page: Page) -> None:
        "The notebook of the run to show, or the source notebook with the reference record's tables."
        record, origin, folder = find_record(recipe)
        notebook = folder / "notebook.ipynb" if folder else None
        executed = bool(notebook and notebook.is_file())
        top = results.run_facts(recipe, record, origin, executed)
        end = "" if executed else "## Published beside measured\n\n" + results.comparison(recipe, 3, self.picture)
        self.page_of_notebook(page, top, end, notebook if executed else None)

    def paper_page(self, paper: str) -> None:
        "Overview of one paper: its index notebook where there is one, then its modules and recipes."
        (title, arxiv), overview = PAPERS[paper], self.overview[paper]
        counts = results.verdict_counts(results.ledger.claims(paper))
        facts = (f"Paper: *{title}*, [arXiv:{arxiv}](https://arxiv.org/abs/{arxiv}). "
                 f"[Results](results.md){': ' + counts if counts else ''}.")
        lines = ["## Method, notebook by notebook", "", *entries(self.methods[paper])] if self.methods[paper] else []
        if self.recipes[paper]:
            lines += ["", "## Recipes", "", "One published table or claim each; [all results on one page](results.md).", ""]
            for recipe, page in self.recipes[paper]:
                lines += [f"[{recipe.title}](/{page.doc}.ipynb)", f": {results.status_line(recipe)}", ""]
        below = [f"{label(p)} <{p.doc.split('/', 1)[1]}>" for p in self.methods[paper]]
        below += [f"Recipe: {r.name.replace('_', ' ')} <{p.doc.split('/', 1)[1]}>" for r, p in self.recipes[paper]]
        end = "\n".join([*lines, "", toctree(["Results <results>", *below])])
        if overview:
            self.page_of_notebook(overview, facts, end)
        else:
            self.put(f"{paper}/index", f"# {title}\n\n{facts}\n\n{end}")

    def home(self) -> str:
        "The landing page: README.md, with a card per paper where it says so."
        readme = root / "README.md"
        text = self.markdown(readme, "index") if readme.is_file() else ""
        if not text.strip():
            text = f"# {self.settings('title')}\n\n{self.settings('description')}.\n"
        cards = "\n".join(["::::{container} cards", *(self.card(p) for p in self.papers), "::::"])
        text = CARDS.sub(lambda _: cards, text)
        start = [*([f"Tour <{self.tour.doc}>"] if self.tour else []), *GUIDES]
        trees = [toctree(start, "Start"), toctree([f"{PAPERS[p][0].split(':')[0]} <{p}/index>" for p in self.papers], "Papers"),
                 toctree(["shared/index"], "Library")]
        return "\n\n".join([text, *trees])

    def card(self, paper: str) -> str:
        "One paper in a box: picture where results/ has one, title, links, verdicts."
        title, arxiv = PAPERS[paper]
        folder = root / "results" / paper / "figures"
        pictures = sorted(folder.glob("*/*.png"), key=lambda f: (f.relative_to(folder).with_suffix("").as_posix() != FIRST.get(paper), f))
        shown = f"![A result of {title}]({self.rewrite(pictures[0].relative_to(root).as_posix(), root)})\n\n" if pictures else ""
        counts = results.verdict_counts(results.ledger.claims(paper))
        claims = f"Claims: {counts}.\n\n" if counts else ""
        page = f"/{self.docs[root / 'nbs' / paper]}"
        return (f":::{{container}} card-paper\n{shown}**[{title}]({page})**\n\n{claims}"
                f"[Method]({page}) · [Results](/{paper}/results.md) · [arXiv:{arxiv}](https://arxiv.org/abs/{arxiv})\n:::")


def name(path: Path) -> str:
    "Page name of a notebook: its file name without the number that orders it."
    stem = re.sub(r"^\d+[a-z]?_", "", path.stem)
    return "module_index" if stem == "index" != path.stem else stem  # index is the paper's own page


def label(page: Page) -> str:
    "Short name of a notebook: that of its module, else its title."
    return page.module.split(".")[-1] if page.module else page.title


def gpu_table() -> str:
    "What the gpu tier of each recipe needs, as its YAML says."
    rows = ["| recipe | GPU | minutes at most | data | changed parameters |", "|---|---|---|---|---|"]
    for r in (r for r in recipes() if "gpu" in r.tiers):
        tier = r.tiers["gpu"]
        changed = ", ".join(f"{k} {v}" for k, v in tier.params.items())
        rows.append(f"| `{r.id}` | {'one' if 'gpu' in tier.needs else 'none'} | {tier.minutes:g} | {', '.join(r.data) or 'none'} "
                    f"| {changed or 'none'} |")
    return "\n".join(rows)


def toctree(docs: list[str], caption: str = "") -> str:
    "Order of pages in the side bar; nothing on the page itself."
    lines = ["```{toctree}", *([f":caption: {caption}"] if caption else []), ":hidden:", "", *docs, "```"]
    return "\n".join(lines)


def entries(listed: list[Page]) -> list[str]:
    "Pages as a definition list."
    return [line for p in listed for line in (f"[{label(p)}](/{p.doc}.ipynb)", f": {p.lead or p.title}", "")]


def listing(title: str, lead: str, listed: list[Page]) -> str:
    tree = toctree([f"{label(p)} <{p.doc.split('/', 1)[1]}>" for p in listed])
    return "\n".join([f"# {title}", "", lead, "", *entries(listed), "", tree])


def sphinx(work: Path, out: Path) -> int:
    "Render `work` to `out`; every warning is an error."
    from sphinx.cmd.build import main
    return main(["-b", "html", "-W", "--keep-going", "-q", "-T", "-c", str(here), "-d", str(work.parent / "doctrees"),
                 str(work), str(out)])


def machine_path_problems(out: Path) -> list[str]:
    "Pages that show a folder of this machine or a cell papermill put in."
    marks = [re.compile(re.escape(f) + r"(?=[/\"'<\s]|$)") for f in pages.machine_paths(root)]
    marks += [re.compile("injected-parameters")]
    found = []
    for page in [*out.rglob("*.html"), out / "searchindex.js"]:
        text = page.read_text(encoding="utf-8")
        found += [f"{page.relative_to(out)}: shows {m.group()}" for mark in marks if (m := mark.search(text))]
    return found


def make_way(out: Path) -> None:
    "Empty `out`, but only if it is a site built earlier."
    if out.exists() and any(out.iterdir()):
        if not (out / "searchindex.js").is_file() and not (out / ".buildinfo").is_file():
            raise SystemExit(f"docs: {out} is not empty and not a site built by this script; choose another --out")
        shutil.rmtree(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "_site", help="folder of the site (default: _site)")
    out, begun = parser.parse_args().out.resolve(), time.time()
    make_way(out)
    with tempfile.TemporaryDirectory(prefix="paper_digest_docs_") as folder:
        work = Path(folder) / "pages"
        try:
            site = Site(work)
            site.write()
        except UserError as err:
            print(f"docs: {err}", file=sys.stderr)
            return 2
        built = Path(folder) / "site"  # myst-nb leaves a folder of its own beside what it builds
        if sphinx(work, built):
            print("docs: Sphinx reported the warnings above; there is no site", file=sys.stderr)
            return 1
        shutil.copytree(built, out, dirs_exist_ok=True)
    for template in out.glob("_static/*macros.html"):  # the theme's own templates, not pages
        template.unlink()
    problems = site.problems + check.check_site(out) + machine_path_problems(out)
    if problems:
        print("\n".join(["docs: the built site has problems:", *problems]), file=sys.stderr)
        return 1
    count = sum(1 for _ in out.rglob("*.html"))
    print(f"{count} pages in {out} after {time.time() - begun:.0f} s; no warning, no broken link")
    return 0


if __name__ == "__main__":
    sys.exit(main())
