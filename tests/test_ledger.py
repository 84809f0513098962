"The claims ledger: complete, runnable, and the README shows it as it is."
import json
import subprocess
import sys
from pathlib import Path

import pytest

from paper_digest.data import PAPERS
from paper_digest.ledger import claims, open_claims
from paper_digest.recipes import recipes

ROOT = Path(__file__).resolve().parents[1]
OPEN = open_claims()


def test_every_paper_and_at_least_sixty_claims():
    table = claims(reference=True)
    assert len(table) >= 60 and set(table["paper"]) == set(PAPERS)
    assert table["id"].is_unique and (table["source"] != "").all() and (table["run"] != "").all() and (table["needs"] != "").all()


def test_a_verdict_follows_from_an_interval():
    for c in claims(reference=True).itertuples():
        if c.verdict != "not run":
            assert c.tier and c.measured == c.measured, c.id
        if c.verdict == "reproduced":
            assert c.ci_low * c.published > 0 and c.ci_high * c.published > 0, c.id


def test_what_was_not_run_shows_no_number():
    from paper_digest.ledger import show_claims
    assert " nan" not in show_claims()


@pytest.mark.parametrize("id, run", [(c["id"], c["run"]) for _, c in OPEN], ids=[c["id"] for _, c in OPEN])
def test_what_would_run_it_exists(id, run):
    words = run.split()
    assert words[0] == "paper-digest"
    if words[1] == "run":
        recipe = {r.id: r for r in recipes()}[words[2]]
        tier = words[words.index("--tier") + 1] if "--tier" in words else "tiny"
        assert tier in recipe.tiers, f"{id}: {recipe.id} has no such tier"
    else:
        assert words[1:3] == ["hot", "ask"]



def test_readme_is_current():
    done = subprocess.run([sys.executable, ROOT / "docs" / "readme.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ledger_from_the_command_line(tmp_path):
    program = Path(sys.executable).parent / "paper-digest"
    said = subprocess.run([program, "claims", "--paper", "babel", "--format", "json"], capture_output=True, text=True, cwd=tmp_path)
    rows = json.loads(said.stdout)
    assert {r["paper"] for r in rows} == {"babel"} and all(r["verdict"] for r in rows)
