"Every recipe at smoke tier, through the command line's own path; those that need a model of the reader's say so."
import pytest
from conftest import need
from test_abc_recipes import ROWS

from paper_digest import recipes, runs

ELSEWHERE = {"abc/negatives", *(f"abc/{name}" for name in ROWS)}  # their smoke record is made and read by tests of their own


@pytest.mark.parametrize("id", [r.id for r in recipes.recipes() if "smoke" in r.tiers and r.id not in ELSEWHERE])
def test_smoke(id, tmp_path, monkeypatch):
    need(*recipes.get_recipe(id).data)
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    recipe = recipes.get_recipe(id)
    record, folder, _ = runs.run_recipe(recipe, "smoke")
    assert record["status"] == "done", f"{record['reason']}\n{(folder / 'worker.log').read_text()[-2000:]}"
    assert record["metrics"] and record["tier"] == "smoke"
    assert {c["id"] for c in record["claims"]} == {c["id"] for c in recipe.claims}, "a claim of the YAML was not judged"
    assert runs.find_record(recipe)[0] is None or runs.find_record(recipe)[0]["tier"] != "smoke"


def test_a_recipe_without_its_model_says_which_command_would_run_it(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    record, _, _ = runs.run_recipe(recipes.get_recipe("hot/components"), "tiny")
    assert record["status"] == "skipped" and record["metrics"] == []
    assert "paper-digest run hot/components --tier paper -p url https://HOST/v1 -p model NAME" in record["reason"]
