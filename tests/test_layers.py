"Who may import whom: a module imports from the left only, papers never import each other."
import ast
from pathlib import Path

import pytest

from paper_digest import data

PACKAGE = Path(__file__).resolve().parents[1] / "paper_digest"
LAYERS = ["core", "registry", "data", "models", "decode", "protocol", "generate", "generate_vllm", "journal", "replies", "served", "live",
          "pace", "train_rows", "train", "exact_answers", "qwen_answers", "qwen_equal", "answers", "grade", "recipes", "records", "runs",
          "launch", "launch_ray", "printed_means", "tables", "ledger", "report"]
COMMANDS = ["cli_recipes", "cli_papers", "cli"]  # to the right of the papers
PAPERS = list(data.PAPERS)
DEVELOPMENT = {"nbdev", "fastcore", "execnb", "pytest", "hypothesis", "playwright", "sphinx"}
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p.name != "_modidx.py")


def imports(path):
    "Absolute names of all modules a file imports, wherever in the file."
    package = ["paper_digest", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            assert "*" not in {a.name for a in node.names}, f"{path}: star import of {module}"
            yield module
            if module == "paper_digest":
                yield from (f"paper_digest.{a.name}" for a in node.names)


def rank(name):
    "(layer, paper) of a dotted paper_digest module."
    top = name.split(".")[1] if "." in name and name != "paper_digest.__init__" else ""
    if top in PAPERS:
        return len(LAYERS), top
    return {"": -1, "_modidx": -1, **{m: i for i, m in enumerate([*LAYERS, "a paper", *COMMANDS])}}[top], None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_imports_come_from_the_left(path):
    own = ".".join(["paper_digest", *path.relative_to(PACKAGE).with_suffix("").parts])
    layer, paper = rank(own)
    for name in imports(path):
        if name.split(".")[0] != "paper_digest":
            assert name.split(".")[0] not in DEVELOPMENT, f"{own} imports {name}, which a user does not have"
            continue
        other, other_paper = rank(name)
        same_paper = paper is not None and paper == other_paper
        assert other < layer or same_paper, f"{own} imports {name}, which is not to its left"


def test_every_module_has_a_place():
    for path in MODULES:
        rank(".".join(["paper_digest", *path.relative_to(PACKAGE).with_suffix("").parts]))
