"Notebooks and package are in step: exporting and cleaning a copy changes nothing."
import configparser
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def target(path):
    "The module a notebook exports to, or None."
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        found = re.search(r"^#\|\s*default_exp\s+(\S+)", "".join(cell["source"]), re.M)
        if found:
            return found.group(1)
    return None


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "The repository without its package, exported and cleaned afresh."
    copy = tmp_path_factory.mktemp("sync") / "repo"
    copy.mkdir()
    for name in ("nbs", "data", "settings.ini", "setup.py", "pyproject.toml", "README.md"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, copy / name)
    (copy / "paper_digest").mkdir()
    shutil.copy(ROOT / "paper_digest/__init__.py", copy / "paper_digest/__init__.py")
    tools = Path(sys.executable).parent
    for command in ("nbdev_export", "nbdev_clean"):
        r = subprocess.run([tools / command], cwd=copy, capture_output=True, text=True)
        assert r.returncode == 0, r.stderr
    return copy


def files(folder, pattern):
    return {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in folder.rglob(pattern)
            if ".ipynb_checkpoints" not in p.parts}


def test_exporting_again_gives_the_committed_package(copy):
    fresh, committed = files(copy / "paper_digest", "*.py"), files(ROOT / "paper_digest", "*.py")
    assert sorted(fresh) == sorted(committed), "a module without a notebook, or a notebook not exported"
    assert [f for f in fresh if fresh[f] != committed[f]] == [], "run nbdev_export"


def test_cleaning_again_changes_no_notebook(copy):
    fresh, committed = files(copy / "nbs", "*.ipynb"), files(ROOT / "nbs", "*.ipynb")
    assert [f for f in fresh if json.loads(fresh[f]) != json.loads(committed[f])] == [], "run nbdev_clean"


def test_no_two_notebooks_export_to_one_module():
    targets = Counter(t for t in map(target, NOTEBOOKS) if t)
    assert [t for t, n in targets.items() if n > 1] == []


def test_settings_are_the_one_source_of_metadata():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini")
    version = re.search(r'__version__ = "(.*)"', (ROOT / "paper_digest/__init__.py").read_text()).group(1)
    assert version == cfg["DEFAULT"]["version"]
    assert "[tool" not in (ROOT / "pyproject.toml").read_text() and "version =" not in (ROOT / "pyproject.toml").read_text()
    pinned = {re.split(r"[=<> ]", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1].isalpha()}
    wanted = (cfg["DEFAULT"]["requirements"] + " " + cfg["DEFAULT"]["dev_requirements"]).split()
    assert [w for w in wanted if re.split(r"[=<>\[]", w)[0].lower() not in pinned] == [], "not in constraints.txt"
