"""The real JupyterLab in a real browser: the tour, the dials and a notebook of each paper, run from top to bottom.

Where there is no Chromium these tests are skipped; the notebooks themselves are then still run by tests/test_notebooks.py.
"""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "only-for-this-test"
SETTINGS = {  # every cell is drawn, so that a page can be looked at whole; nothing asks the network for news
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RUN = """async () => {
    const app = window.jupyterapp, panel = app.shell.currentWidget;
    await panel.sessionContext.ready;
    await app.commands.execute('notebook:run-all-cells');
}"""
CELLS = "() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells).map(c => c.toJSON())"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "JupyterLab on 127.0.0.1 over a copy of the notebooks."
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "nbs", folder / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name, values in SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = {**os.environ, "PAPER_DIGEST_ROOT": str(ROOT), "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
           "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={TOKEN}",
               f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            for _ in range(120):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api?token={TOKEN}", timeout=2)
                    break
                except OSError:
                    assert server.poll() is None, (folder / "lab.log").read_text()
                    time.sleep(.5)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture
def page(lab, browser):
    "A desktop window that may talk to the server and to nothing else."
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith((lab, "data:", "blob:")) else route.abort())
    page = context.new_page()
    yield page
    context.close()


def run_all(page, lab, notebook, seconds=300):
    "Open a notebook, run all its cells, and return them; a cell that failed or did not run fails the test."
    page.set_default_timeout(60_000)
    page.goto(f"{lab}/lab/tree/nbs/{notebook}?token={TOKEN}&reset")
    page.wait_for_function("() => window.jupyterapp && window.jupyterapp.shell.currentWidget && window.jupyterapp.shell.currentWidget.content.model"
                           " && window.jupyterapp.shell.currentWidget.content.model.cells.length > 3")
    page.set_default_timeout(1000 * seconds)
    page.evaluate(RUN)
    cells = [c for c in page.evaluate(CELLS) if c["cell_type"] == "code"]
    errors = [(o["ename"], o["evalue"]) for c in cells for o in c["outputs"] if o["output_type"] == "error"]
    assert errors == []
    assert all(c["execution_count"] for c in cells if "".join(c["source"]).strip()), "a cell did not run"
    page.set_default_timeout(30_000)
    return cells


def kinds(cells):
    "MIME types of all outputs, with how often."
    found = {}
    for c in cells:
        for o in c["outputs"]:
            for kind in o.get("data", {}):
                found[kind] = found.get(kind, 0) + 1
    return found


def keep(page, artifacts, name):
    "Screenshots of the notebook, a screen each."
    for n, part in enumerate(page.locator(".jp-CodeCell .jp-Cell-outputArea").all()[:40]):
        if (part.bounding_box() or {}).get("height", 0) > 60:
            part.screenshot(path=str(artifacts / f"lab-{name}-{n:02}.png"))


def test_tour(page, lab, artifacts):
    begun = time.time()
    cells = run_all(page, lab, "index.ipynb", 400)
    took = time.time() - begun
    shown = kinds(cells)
    assert shown.get("text/html", 0) >= 5 and shown.get("image/png", 0) >= 3
    assert all("text/plain" in o["data"] for c in cells for o in c["outputs"] if "text/html" in o.get("data", {})), "no text beside the HTML"
    page.wait_for_selector(".pdtree")
    page.wait_for_selector(".abcg img")
    fact = page.locator("[class*=pdh] [tabindex], mark, [data-fact]").first
    fact.scroll_into_view_if_needed()
    keep(page, artifacts, "tour")
    assert took < 360, f"the tour took {took:.0f} s"


def test_dials(page, lab, artifacts):
    cells = run_all(page, lab, "09_dials.ipynb")
    assert kinds(cells).get("application/vnd.jupyter.widget-view+json") == 4
    page.wait_for_function("() => document.querySelectorAll('.widget-interact').length == 4")
    slider = page.locator(".widget-interact .noUi-handle").first
    slider.scroll_into_view_if_needed()
    title = "() => Array.from(document.querySelectorAll('.widget-interact img')).map(i => i.src.length + i.src.slice(-400)).join()"
    before = page.evaluate(title)
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({title})() != before", arg=before)   # the figure follows its control
    keep(page, artifacts, "dials")


@pytest.mark.parametrize("notebook", ["hot/02_align.ipynb", "self_rewarding/04_view.ipynb", "abc/index.ipynb", "babel/01_plan.ipynb"])
def test_a_notebook_of_each_paper(page, lab, artifacts, notebook):
    cells = run_all(page, lab, notebook)
    assert kinds(cells), f"{notebook} shows nothing"
    keep(page, artifacts, re.sub(r"\W+", "-", notebook.removesuffix(".ipynb")))
