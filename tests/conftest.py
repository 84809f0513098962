"Shared by all tests: data and the browser."
import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
if "PAPER_DIGEST_DATA" not in os.environ and (ROOT.parent / "shared" / "data").is_dir():
    os.environ["PAPER_DIGEST_DATA"] = str(ROOT.parent / "shared" / "data")
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

BROWSER_ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--no-first-run"]


LONG = ("test_site", "test_lab", "test_self_rewarding_train", "test_launch_ray", "test_runs", "test_accelerate")  # begun first
ALONE = ("test_recipes", "test_notebooks")  # their tests share nothing: they fill whatever process is free at the end


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    "Files stay together in one process; long ones first, so that no process is left with one at the end."
    def order(item):
        name = item.path.stem
        return LONG.index(name) if name in LONG else len(LONG) + (name in ALONE)
    items.sort(key=order)
    for item in items:
        if item.path.stem not in ALONE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def need(*datasets):
    "Skip, with the cure, where files of these data sets are not on this machine: one without network and mirror is a fair one."
    from paper_digest import data
    lost = data.missing(list(datasets))
    if lost:
        pytest.skip(f"{len(lost)} data files are missing: run `paper-digest data pull {' '.join(datasets)}`")


@pytest.fixture(scope="session")
def recordings():
    "The recorded HoT answers are on this machine."
    need("hot_responses", "hot_tasks")


@pytest.fixture(scope="session")
def browser():
    "Headless Chromium of the system, driven by Playwright."
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium found: install it (Debian: apt-get install chromium) or set CHROMIUM to its path")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=BROWSER_ARGS)
        yield b
        b.close()


@pytest.fixture(scope="session")
def artifacts():
    "Folder for screenshots; git ignores it, CI keeps it."
    folder = ROOT / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def repo(tmp_path, monkeypatch):
    "Makes a toy repository the current one."
    from toy import toy_repo

    def make(**recipes):
        root = toy_repo(tmp_path / "repo", **recipes)
        monkeypatch.setenv("PAPER_DIGEST_ROOT", str(root))
        monkeypatch.setenv("PAPER_DIGEST_RUNS", str(root / "runs"))
        return root
    return make
