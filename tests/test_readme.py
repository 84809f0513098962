"The README's commands, files and figures are real."
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md"))
PROGRAM = Path(sys.executable).parent / "paper-digest"
WORDS = r"^\.venv/bin/paper-digest ((?:data |hot |self-rewarding |abc |babel )?[a-z]+)"
COMMANDS = sorted(set(re.findall(WORDS, TEXT, re.M)))
OPTIONS = sorted(set(re.findall(WORDS + r"[^#\n]*?(--[a-z]+)", TEXT, re.M)))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command):
    assert subprocess.run([PROGRAM, *command.split(), "--help"], capture_output=True).returncode == 0


@pytest.mark.parametrize("command, option", OPTIONS)
def test_options_exist(command, option):
    shown = subprocess.run([PROGRAM, *command.split(), "--help"], capture_output=True, text=True).stdout
    assert option in shown


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", TEXT, re.M))
    assert named and named <= targets


def test_linked_files_exist():
    links = [m for m in re.findall(r"\]\(([^)#]+)", TEXT) if not m.startswith("https://")]
    assert links and [m for m in links if not (ROOT / m).exists()] == []


def test_recipes_named_exist():
    named = set(re.findall(r"(?<!/)\b((?:hot|self_rewarding|abc|babel)/[a-z_]+)(?= |`|\n)", TEXT))
    there = {f"{p.parent.name}/{p.stem}" for p in (ROOT / "nbs/recipes").rglob("*.yaml")}
    assert named and named <= there, named - there


def test_figures_in_the_readme_are_those_of_the_reference_record():
    record = json.loads((ROOT / "results/hot/main-tiny.json").read_text())
    cells = [m for m in record["metrics"] if m["metric"] == "accuracy %" and m["scoring"] == "official"
             and m["table"] in ("arithmetic", "qa", "bbh")]
    assert len(cells) == 88 and "All 88 published" in TEXT


def test_what_stands_under_the_pictures_is_in_the_reference_records():
    def claim(recipe, id):
        return next(c for c in json.loads((ROOT / f"results/{recipe}-tiny.json").read_text())["claims"] if c["id"] == id)
    gain, kept = claim("self_rewarding/main", "psrlm.gain"), claim("self_rewarding/main", "judge.kept")
    assert f"by {gain['value']:.1f} points from M1 to M4 ({gain['ci_low']:.1f} to {gain['ci_high']:.1f})" in TEXT
    assert f"its judge loses {-kept['value']:.0f}" in TEXT
    record = json.loads((ROOT / "results/abc/ctrlbench-tiny.json").read_text())
    inside = {m["model"]: m["value"] for m in record["metrics"] if m["metric"] == "within-image accuracy" and not m["variant"]}
    assert f"{inside['ABC (finetuned)']:.0f} % right" in TEXT
    assert claim("babel/continued_pretraining", "babel.continued.equal_tokens")["verdict"] == "inconclusive"
    assert claim("babel/continued_pretraining", "babel.continued.equal_flops")["verdict"] == "not reproduced"
