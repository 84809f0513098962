"The guides in docs/ name what exists: commands, files, options; the gpu tiers keep what the guide promises."
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from paper_digest.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
GUIDES = {n: (ROOT / "docs" / f"{n}.md").read_text(encoding="utf-8") for n in ("engines", "gpu", "how_to_run")}
TEXT = "\n".join(GUIDES.values())


def test_gpu_tiers_are_bounded_and_listed():
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
    sys.path.insert(0, str(ROOT / "docs"))
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    assert build.GPU in GUIDES["gpu"] and set(GUIDES) <= {*build.GUIDES}
    table = build.gpu_table()
    for r in recipes():
        assert ("gpu" in r.tiers) == (f"| `{r.id}` |" in table)
        assert "gpu" not in r.tiers or 0 < r.tiers["gpu"].minutes <= 10, f"{r.id}: its gpu tier is bounded to ten minutes"


@pytest.mark.parametrize("words", sorted(set(re.findall(r"^(?:\.venv/bin/)?paper-digest ((?:data |hot |babel |abc )?[a-z-]+[^#\n]*)", TEXT, re.M))))
def test_commands_and_options_exist(words):
    command = re.match(r"(?:data |hot |babel |abc )?[a-z-]+", words)[0]
    shown = subprocess.run([Path(sys.executable).parent / "paper-digest", *command.split(), "--help"], capture_output=True, text=True)
    assert shown.returncode == 0
    assert [o for o in re.findall(r"(?<= )--[a-z]+", words) if o not in shown.stdout] == []


def test_files_and_recipes_named_exist():
    named = re.findall(r"(?:nbs|docs|tests|benchmarks)/[\w/]+\.(?:ipynb|md|py|sh|yaml)", TEXT)
    assert named and [n for n in named if not (ROOT / n).is_file()] == []
    ids = set(re.findall(r"(?<![/\w])((?:hot|self_rewarding|abc|babel)/[a-z_]+)(?![\w/.])", TEXT))
    assert ids <= {r.id for r in recipes()}


def test_the_node_script_is_sound():
    assert subprocess.run(["bash", "-n", ROOT / "docs/gpu_node.sh"]).returncode == 0
    r = subprocess.run(["bash", ROOT / "docs/gpu_node.sh"], capture_output=True, text=True)
    assert r.returncode != 0 and "usage:" in r.stderr
