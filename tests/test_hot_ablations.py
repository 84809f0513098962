"Tables that need a model: not run without one, filled with one."
import json
import re

import pytest
import servers

from paper_digest import recipes, runs
from paper_digest.hot.tasks import load_task
from paper_digest.tables import show_table

HOSTED = ["components", "mismatched", "repeated", "selfcheck", "human_study", "reasoning", "llm_judge"]


@pytest.mark.parametrize("name", HOSTED)
def test_without_a_run_the_table_says_so_and_names_the_command(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    rows = json.loads(show_table(f"hot/{name}", format="json"))
    assert rows and {r["verdict"] for r in rows} <= {"not run", ""} and any(r["verdict"] == "not run" for r in rows)
    assert all(f"paper-digest run hot/{name} " in r["note"] for r in rows)
    assert f"paper-digest run hot/{name}" in show_table(f"hot/{name}")


class Knowing(servers.Protocol):
    "Knows the answers to GSM8K, and repeats the question."
    gold = None

    def reply(self, body, text):
        asked = text.rsplit("\n\n", 1)[-1]
        answer = next((g for q, g in self.gold.items() if asked.startswith(q[:60])), "A")
        return f"Reformatted Question: {asked[:40]}\nAnswer: The answer is {{{answer}}}.", "stop", 20


def test_a_recipe_with_a_served_model_fills_its_table(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    monkeypatch.setenv("PAPER_DIGEST_API_KEY", "sk-recipe-secret-0123")
    gold = {r.question.strip(): f"{r.gold:g}" for r in load_task("GSM8K").itertuples()}
    with servers.serving(Knowing, gold=gold) as (url, _):
        recipe = recipes.get_recipe("hot/components")
        record, folder, _ = runs.run_recipe(recipe, "tiny", {"url": url, "model": "m", "label": "Gemini-1.5-Pro", "items": 2})
    assert record["status"] == "done", record["reason"]
    cells = {m["variant"]: m for m in record["metrics"] if m["scoring"] == "strict"}
    assert len(cells) == 5 and all(m["n"] == 22 and m["value"] > 9 for m in cells.values())
    rows = [r for r in json.loads(show_table("hot/components", format="json")) if r["model"] == "Gemini-1.5-Pro"]
    assert {r["verdict"] for r in rows} == {"not run"} or all(r["measured"] is not None for r in rows)
    kept = (tmp_path / "answers/hot-components.jsonl").read_text()
    assert len(kept.splitlines()) == 110 and not re.search("sk-recipe", kept + json.dumps(record) + (folder / "notebook.ipynb").read_text())
