"The tables and figures beside CtrlBench: what a record must hold, trained or not. That all of them run is in test_recipes."
import json

import pytest

from paper_digest import recipes, runs, tables

# recipe -> rows every record has, as (part of the model's name, part of the data set's name)
ROWS = {
    "vqa": [("ABC", "held-out families"), ("late fusion (sum)", "beside another"), ("finetuned on all families", "one word")],
    "classification": [("ABC", "mean of four"), ("pixels to words", "one colour"), ("untrained", "any of five")],
    "resolution": [("16 pixels", "one shape"), ("48 pixels", "asked what is at a place"), ("48 - 16 pixels", "zero-shot")],
}


@pytest.mark.parametrize("name", ROWS)
def test_record(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    recipe = recipes.get_recipe(f"abc/{name}")
    record, folder, _ = runs.run_recipe(recipe, "smoke")
    assert record["status"] == "done", f"{record['reason']}\n{(folder / 'worker.log').read_text()[-2000:]}"
    for model, dataset in ROWS[name]:
        assert any(model in m["model"] and dataset in m["dataset"] for m in record["metrics"]), f"no row of {model} on {dataset}"
    for m in record["metrics"]:
        assert m["ci_low"] - 1e-6 <= m["value"] <= m["ci_high"] + 1e-6 and m["n"] > 1 and len(m["seeds"]) == 2, m
        if not any(w in m["metric"] for w in ("difference", "Pearson")):
            assert 0 <= m["value"] <= 100, m
    for c in record["claims"]:
        assert c["ci_low"] <= c["value"] <= c["ci_high"] and c["seeds"] == record["metrics"][0]["seeds"]
    assert {c["id"] for c in record["claims"]} == {c["id"] for c in recipe.claims}
    assert [f.suffix for f in (folder / "figures").iterdir()] == [".png"]


@pytest.mark.parametrize("name", [*ROWS, "backbone", "retrieval", "pooling_attention"])
def test_published_rows_stand_in_the_table(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    rows = json.loads(tables.show_table(f"abc/{name}", format="json"))
    assert sum(r["published"] is not None for r in rows) >= 6
