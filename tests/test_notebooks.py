"Every lesson notebook runs top to bottom and all it asserts holds."
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if not {"recipes", ".ipynb_checkpoints"} & set(p.parts))


@pytest.mark.parametrize("path", LESSONS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_notebook(path, recordings, monkeypatch):
    from nbdev.config import get_config
    from nbdev.test import test_nb
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("IN_TEST", "1")  # nbdev sets it for good, and nbdev_export then does nothing in later tests
    passed, _ = test_nb(path, skip_flags=get_config().tst_flags.split())
    assert passed, f"{path.name}: a cell failed, see the error above"

