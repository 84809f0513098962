"Every lesson notebook runs top to bottom and all it asserts holds. The tour is run in JupyterLab (test_lab), where there is a browser."
import shutil
from pathlib import Path

import pytest
from conftest import need

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not {"recipes", ".ipynb_checkpoints"} & set(p.parts))

if any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
    LESSONS.remove(ROOT / "nbs/index.ipynb")

# data sets a notebook reads through its paper's own modules
READS = {f"hot/{name}.ipynb": {"hot_responses", "hot_tasks"} for name in (
    "04_tasks", "05a_letter_rules", "05b_official", "05d_score", "06_stated", "07_replay", "07a_claims", "13_compliance", "14_cost",
    "16_prompts", "18_streaming", "22_checks", "23_selfcheck", "26_ablations")}
READS |= {f"abc/{name}.ipynb": {"emoji"} for name in ("18a_emoji_texts", "18b_emoji_study", "18c_emoji_view")}
READS |= {f"babel/{name}.ipynb": {"multilingual"} for name in ("11a_foreign", "15a_quality", "15b_judge", "16_clean", "16a_fertility", "16c_blocks")}


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_notebook(path, monkeypatch):
    from nbdev.config import get_config
    from nbdev.test import test_nb

    from paper_digest.data import registry
    text = path.read_text(encoding="utf-8")
    called = {e.dataset for e in registry().values() if f'(\\"{e.dataset}\\"' in text}  # as in load("math", ...)
    need(*sorted(called | READS.get(path.relative_to(ROOT / "nbs").as_posix(), set())))
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("IN_TEST", "1")  # nbdev sets it for good, and nbdev_export then does nothing in later tests
    passed, _ = test_nb(path, skip_flags=get_config().tst_flags.split())
    assert passed, f"{path.name}: a cell failed, see the error above"

