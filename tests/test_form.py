"The form of the notebooks: what a reader and the tools rely on."
import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
RECIPES = [p for p in NOTEBOOKS if "recipes" in p.parts]
LESSONS = [p for p in NOTEBOOKS if "recipes" not in p.parts]
named = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())


def cells(path, kind=None):
    return [c | {"source": "".join(c["source"])} for c in json.loads(path.read_text(encoding="utf-8"))["cells"]
            if kind in (None, c["cell_type"])]


def exported(path):
    return [c["source"] for c in cells(path, "code") if re.match(r"#\|\s*export", c["source"])]


def lines_of_code(source, tree):
    "Lines of a cell without those of long text constants (style sheets and scripts of pages)."
    texts = (n.value for n in tree.body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Constant))
    return len(source.splitlines()) - sum(t.end_lineno - t.lineno for t in texts if isinstance(t.value, str))


def outputs(path):
    for c in cells(path, "code"):
        for o in c["outputs"]:
            yield json.dumps(o, ensure_ascii=False)


@named
def test_opens_with_a_title_and_a_promise(path):
    first = cells(path)[0]
    assert first["cell_type"] == "markdown" and first["source"].startswith("# ")
    assert re.search(r"^> \S", first["source"], re.M), "no quoted line under the title"


@named
def test_can_be_read_in_one_sitting(path):
    assert len(cells(path)) <= 25, f"{len(cells(path))} cells: split it by idea, or merge cells that say one thing"


@named
def test_outputs_are_small_and_tell_nothing_of_a_machine(path):
    assert path.stat().st_size < 1_500_000
    for text in outputs(path):
        assert not re.search(r"0x[0-9a-f]{6,}", text), f"object address in {text[:120]}"
        assert not re.search(r"(?<![\w.:/])/(home|root|tmp|work|usr|Users)/\w", text), f"path of a machine in {text[:200]}"
        assert "\\u001b[" not in text and "it/s]" not in text, f"terminal codes or a progress bar in {text[:120]}"


@named
def test_nothing_unfinished(path):
    for c in cells(path):
        assert not re.search(r"\b(TODO|FIXME|XXX)\b|NotImplementedError", c["source"]), c["source"][:120]


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_exported_code(path):
    for source in exported(path):
        tree = ast.parse(source)
        assert lines_of_code(source, tree) <= 60, f"export cell of {lines_of_code(source, tree)} lines: {source[:80]}"
        kinds = {isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body}
        assert kinds != {True, False}, f"imports mixed with code: {source[:80]}"
        for f in (n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))):
            assert ast.get_docstring(f) or f.name.startswith("_"), f"{f.name} has no docstring"
            methods = [m for m in f.body if isinstance(m, ast.FunctionDef)] if isinstance(f, ast.ClassDef) else [f]
            for m in methods:
                args = [a for a in (*m.args.posonlyargs, *m.args.args, *m.args.kwonlyargs) if a.arg not in ("self", "cls")]
                assert all(a.annotation for a in args), f"{f.name}.{m.name}: an argument has no annotation"
                assert m.returns is not None or m.name == "__init__", f"{f.name}.{m.name}: no return annotation"


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_lessons_check_something(path):
    if exported(path):
        lessons = "\n".join(c["source"] for c in cells(path, "code") if not re.match(r"#\|\s*export", c["source"]))
        assert re.search(r"test_eq|test_close|test_fail|assert ", lessons)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_recipe(path):
    from paper_digest.recipes import declared_params, load_recipe, resolve_params
    from paper_digest.records import published_value
    recipe = load_recipe(path.with_suffix(".yaml"))
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells(path)) == 1
    assert not any(c["outputs"] for c in cells(path, "code")), "recipes are committed without outputs"
    assert exported(path) == [] and not any("def " in c["source"] for c in cells(path, "code")), "no algorithm in a recipe"
    declared = declared_params(path)
    assert declared["tier"] == "tiny"
    for tier, spec in recipe.tiers.items():
        resolve_params(recipe, tier)
        assert spec.minutes > 0
    assert all(declared[k] == v for k, v in recipe.tiers["tiny"].params.items()), "the notebook's defaults are the tiny run"
    for claim in recipe.claims:
        assert isinstance(published_value(recipe.paper, claim["published"]), float)


def test_every_recipe_has_both_files():
    found = {p for p in (ROOT / "nbs/recipes").rglob("*.yaml") if p.parent.name != "accelerate"}  # launch files are no recipes
    assert {p.with_suffix(".yaml") for p in RECIPES} == found
