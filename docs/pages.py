"""A notebook as a page of the site: hidden cells go, exported code becomes an API entry with its source below."""
import ast
import copy
import os
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import api

WIDGETS = ("application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json")
EXPORTS = {"export", "exports", "exporti"}


@dataclass
class Page:
    doc: str            # name of the page on the site, without ending
    source: Path | None  # notebook or markdown file
    title: str          # its first heading
    lead: str = ""      # its quoted line
    module: str = ""    # module the notebook exports, e.g. paper_digest.hot.tags


def head(path: Path) -> tuple[str, str, str]:
    "Title, quoted line and `default_exp` of a notebook."
    import nbformat
    title = lead = module = ""
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and not title:
            found = re.search(r"^# +(.+)$", cell.source, re.M)
            title = found[1].strip() if found else ""
            quote = re.search(r"^> +(.+(?:\n> ?.+)*)$", cell.source, re.M)
            lead = re.sub(r"\n> ?", " ", quote[1]).strip() if quote else ""
        elif cell.cell_type == "code" and not module:
            found = re.search(r"^#\| *default_exp +(\S+)", cell.source, re.M)
            module = found[1] if found else ""
    return title or path.stem, lead, module


class Index:
    "Every public name of the package with its page, so that `names` in text lead to their entry."

    def __init__(self, pages: list[Page], recipes: dict[str, str]):
        self.recipes = recipes  # hot/main -> page
        self.full: dict[str, str] = {}      # paper_digest.hot.tags.parse -> kind
        self.short: dict[str, list[str]] = {}
        self.alias: dict[str, str] = {}     # paper_digest.hot.parse -> paper_digest.hot.tags.parse
        for page in pages:
            for cell in exported(page.source):
                if page.source.stem == "index":
                    self.alias |= {f"{page.module}.{n}": f"{m}.{n}" for m, n in imported(cell)}
                for symbol in api.symbols(cell):
                    name = f"{page.module}.{symbol.name}"
                    self.full[name] = symbol.kind
                    self.short.setdefault(symbol.name, []).append(name)
                    for member in symbol.members:
                        self.full[f"{name}.{member.name}"] = member.kind
        self.full |= {page.module: "module" for page in pages}

    def find(self, name: str, module: str) -> str | None:
        "Full name meant by `name` on the page of `module`; None when unknown, ambiguous or too common a word."
        name = name.removesuffix("()")
        for prefix in ("", "paper_digest."):
            if self.alias.get(prefix + name) in self.full:
                return self.alias[prefix + name]
        for prefix in ("", f"{module}.", "paper_digest.", ".".join(module.split(".")[:-1]) + "."):
            if prefix + name in self.full and (prefix or "." in name):
                return prefix + name
        hits = self.short.get(name, [])
        common = name.islower() and "_" not in name
        return hits[0] if len(hits) == 1 and not common else None

    def link(self, code: str, module: str) -> str:
        "A code span, linked to its entry or recipe where it names one."
        if code in self.recipes:
            return f"[`{code}`](/{self.recipes[code]}.ipynb)"
        found = self.find(code, module)
        ticks = "``" if "`" in code else "`"
        role = "{py:mod}" if found and self.full[found] == "module" else "{py:obj}"
        return f"{role}`{code} <{found}>`" if found and "`" not in code else f"{ticks}{code}{ticks}"


def imported(source: str) -> list[tuple[str, str]]:
    "Module and name of every `from module import name` in a cell."
    found = [node for node in ast.parse(source).body if isinstance(node, ast.ImportFrom)]
    return [(node.module, alias.name) for node in found for alias in node.names]


def exported(path: Path) -> list[str]:
    import nbformat
    cells = nbformat.read(path, as_version=4).cells
    return [c.source for c in cells if c.cell_type == "code" and re.match(r"\s*#\| *exports?\b", c.source)]


# ------------------------------------------------------------------ cells
def convert(page: Page, root: Path, index: Index, rewrite) -> dict:
    "The notebook of `page` as nbformat JSON for myst-nb; `rewrite(address, folder)` gives a link's place on the site."
    from nbdev.process import NBProcessor
    from nbdev.processors import filter_stream_, hide_, hide_line, rm_header_dash, strip_ansi
    done = NBProcessor(page.source, procs=[strip_ansi, hide_line, filter_stream_, rm_header_dash, hide_])
    done.process()
    cells = []
    for cell in done.nb.cells:
        if cell.cell_type == "markdown":
            cells.append(markdown(links(text_of(cell), index, page, rewrite)))
        elif cell.cell_type == "raw":
            cells += front_matter(text_of(cell))
        elif cell.cell_type == "code":
            cells += code_cells(cell, page, root, index)
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python", "pygments_lexer": "python"}}
    for number, cell in enumerate(cells):
        cell["id"] = f"c{number}"
    return {"cells": cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 5}


def text_of(cell) -> str:
    return "".join(cell.source)


def markdown(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def front_matter(text: str) -> list[dict]:
    "A raw front-matter cell as heading and lead."
    import yaml
    found = yaml.safe_load(text.strip().strip("-")) if text.strip().startswith("---") else None
    if not isinstance(found, dict) or "title" not in found:
        return []
    quote = f"\n\n> {found['description']}" if found.get("description") else ""
    return [markdown(f"# {found['title']}{quote}")]


def code_cells(cell, page: Page, root: Path, index: Index) -> list[dict]:
    "API entries and shown code for one code cell."
    marks = {k.rstrip(":"): " ".join(v) for k, v in (cell.directives_ or {}).items()}
    tags = set(cell.get("metadata", {}).get("tags", []))
    if "default_exp" in marks or marks.get("include") == "false" or "injected-parameters" in tags:
        return []
    source = "\n".join(line for line in text_of(cell).splitlines() if not re.match(r"\s*#\|", line)).strip("\n")
    if not source.strip() or source.startswith("show_doc("):  # every exported name has its entry already
        return []
    shown = {"cell_type": "code", "execution_count": None, "metadata": {}, "source": source, "outputs": []}
    if EXPORTS & marks.keys():
        return export_cells(shown, page, index)
    shown["outputs"] = [o for o in map(partial(clean_output, root=root), cell.get("outputs", [])) if o]
    keep = tags & {"hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell", "scroll-output"}
    if marks.get("echo") == "false":
        keep.add("remove-input")
    if marks.get("output") == "false":
        keep.add("remove-output")
    if "code-fold" in marks and marks["code-fold"] != "show":
        keep.add("hide-input")
    if not shown["outputs"] and imports_only(source):
        keep.add("hide-input")
        shown["metadata"]["mystnb"] = {"code_prompt_show": "Imports", "code_prompt_hide": "Imports"}
    shown["metadata"]["tags"] = sorted(keep)
    return [shown]


def export_cells(shown: dict, page: Page, index: Index) -> list[dict]:
    "API entries of an exported cell, then its code folded away under them; import cells are left out."
    if imports_only(shown["source"]) or shown["source"].startswith("_all_ ="):  # plumbing, nothing to read
        return []
    link = lambda code: index.link(code, page.module)
    entries = [markdown(api.directive(symbol, page.module, link)) for symbol in api.symbols(shown["source"])]
    defines = [n.name for n in ast.parse(shown["source"]).body if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    prompt = "Source" if entries else f"Source of {', '.join(defines)}"
    shown["metadata"] = {"tags": ["hide-input", "source"] if defines else ["source"],  # constants stay in sight
                         "mystnb": {"code_prompt_show": prompt, "code_prompt_hide": prompt}}
    return [*entries, shown]


def imports_only(source: str) -> bool:
    "Whether a cell holds nothing but imports; one that is no plain Python (magics, say) does not."
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in body)


def clean_output(output, root: Path) -> dict | None:
    "An output without progress bars, widgets and machine paths; None when nothing is left."
    output = copy.deepcopy(dict(output))
    if output["output_type"] == "stream":
        if output["name"] == "stderr":
            return None
        output["text"] = scrub("".join(output["text"]), root)
        return output if output["text"].strip() else None
    if output["output_type"] == "error":
        output["traceback"] = [scrub(line, root) for line in output["traceback"]]
        return output
    data = dict(output.get("data", {}))
    if any(kind in data for kind in WIDGETS):
        return None
    for kind, value in data.items():
        if kind.startswith("text/") or kind.endswith(("xml", "javascript")):
            data[kind] = scrub("".join(value), root)
    if not data:
        return None
    return {**output, "data": data, "metadata": dict(output.get("metadata", {}))}


def machine_paths(root: Path) -> dict[str, str]:
    "Folders of this machine that no page may show -> what stands there instead."
    found = {str(root): ".", str(root.resolve()): ".", tempfile.gettempdir(): "/tmp"}
    for name in ("PAPER_DIGEST_DATA", "PAPER_DIGEST_RUNS", "PAPER_DIGEST_CACHE"):
        if os.environ.get(name):
            found[str(Path(os.environ[name]).resolve())] = f"${name}"
    found[str(Path.home())] = "~"
    return {k: v for k, v in found.items() if len(k) > 4 and k != v}


def scrub(text: str, root: Path) -> str:
    for path, name in sorted(machine_paths(root).items(), key=lambda kv: -len(kv[0])):
        text = text.replace(f"{path}/", "" if name == "." else f"{name}/")
        text = re.sub(re.escape(path) + r"(?![\w-])", lambda m: name, text)
    return text


# ------------------------------------------------------------------ links in text
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")


def links(text: str, index: Index, page: Page, rewrite) -> str:
    "Markdown with addresses that hold on the site, and code spans that lead to the entry they name."
    lines, fence = [], None
    for line in text.splitlines():
        mark = FENCE.match(line)
        if mark and (fence is None or line.strip() == fence):
            fence = mark[1] if fence is None else None
        elif fence is None and not line.startswith("    "):
            line = links_in_line(line, index, page, rewrite)
        lines.append(line)
    return "\n".join(lines)


def links_in_line(line: str, index: Index, page: Page, rewrite) -> str:
    folder = page.source.parent
    heading = line.lstrip().startswith("#")
    pattern = re.compile(r"(?P<code>(?<!`)`[^`]+`(?!`))"
                         r"|(?P<image>!\[(?P<alt>[^\]]*)\]\((?P<img>[^)\s]+)\))"
                         r"|(?P<link>\[(?P<label>(?:[^\[\]`]|`[^`]*`)*)\]\((?P<to>[^)\s]+)\))"
                         r"|(?P<attr>(?P<name>src|href)=\"(?P<at>[^\"]+)\")")

    def put(m: re.Match) -> str:
        if m["code"]:
            return m[0] if heading else index.link(m["code"][1:-1], page.module)
        if m["image"]:
            return f"![{m['alt']}]({rewrite(m['img'], folder)})"
        if m["link"]:
            return f"[{m['label']}]({rewrite(m['to'], folder)})"
        return f'{m["name"]}="{rewrite(m["at"], folder)}"'

    return pattern.sub(put, line)


def relative(path: Path, root: Path) -> str:
    return PurePosixPath(path.resolve().relative_to(root.resolve())).as_posix()
