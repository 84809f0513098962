"The published layout, from files to table, on a tiny checkpoint of the same architecture; and benchmarks in their own formats."
import json
import random
import shutil

import numpy as np
import pytest

pytest.importorskip("peft")
from paper_digest import runs  # noqa: E402
from paper_digest.recipes import get_recipe  # noqa: E402


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A tiny release and CtrlBench in the paper's schema, with pictures."
    from paper_digest.abc.ctrlbench import CtrlItem, save_ctrlbench, scene_ctrlbench
    from paper_digest.abc.tiny_release import write_tiny_release
    from paper_digest.abc.world import ASKED, SMALL, draw, scenes
    home = tmp_path_factory.mktemp("release")
    parts, drawn = write_tiny_release(home), scenes(SMALL, 12, 3)
    (home / "images").mkdir()
    for n, s in enumerate(drawn):
        draw(s, 120).save(home / "images" / f"{n}.jpg")
    items = [CtrlItem(i.image, i.prompts, tuple(f"{t} of picture {n}" for t in i.texts)) for n, i in enumerate(scene_ctrlbench(drawn, drawn, ASKED[0]))]
    save_ctrlbench(items, home / "ctrlbench.json", [f"{n}.jpg" for n in range(12)])
    return home, parts


@pytest.mark.timeout(300)
def test_the_paper_tier_of_ctrlbench(home, tmp_path, monkeypatch):
    home, parts = home
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(runs, "lacking", lambda recipe, tier: "")  # this tier wants a GPU; the path is the same without
    record, folder, _ = runs.run_recipe(get_recipe("abc/ctrlbench"), "paper", {
        **parts, "file": str(home / "ctrlbench.json"), "images": str(home / "images"), "device": "cpu", "tokens": [4, 16], "resamples": 100})
    assert record["status"] == "done", (record["reason"], (folder / "worker.log").read_text()[-1500:])
    found = {(m["model"], m["metric"]): m["value"] for m in record["metrics"] if m["table"] == "table6_ctrlbench"}
    assert ("ABC (finetuned)", "R@1") in found and ("ABC (pretrained)", "R@10") in found
    assert found["image alone", "within-image accuracy"] == pytest.approx(20)
    assert {c["id"] for c in record["claims"]} == {"abc.ctrlbench.ceiling", "abc.ctrlbench.tuning"}
    assert all("published model" in c["evidence"] for c in record["claims"])


@pytest.mark.timeout(300)
def test_the_published_tables(home, tmp_path, monkeypatch):
    home, parts = home
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(runs, "lacking", lambda recipe, tier: "")
    rows = [{"filename": f"{i}.jpg", "split": "test", "sentences": [{"raw": f"caption {i}"}]} for i in range(12)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": rows}))
    (tmp_path / "GQA.json").write_text(json.dumps([{"qry_text": "what is it ?", "qry_img_path": f"{i}.jpg", "tgt_text": [f"word {i}", "word 99"]} for i in range(4)]))
    given = {**parts, "coco": str(tmp_path / "coco.json"), "coco_images": str(home / "images"), "vqa": str(tmp_path),
             "mmeb_images": str(home / "images"), "device": "cpu", "tokens": [4, 16]}
    record, folder, _ = runs.run_recipe(get_recipe("abc/released"), "paper", given)
    assert record["status"] == "done", (record["reason"], (folder / "worker.log").read_text()[-1500:])
    found = {(m["table"], m["dataset"], m["metric"]): m["n"] for m in record["metrics"]}
    assert found["table5_vqa", "GQA", "accuracy (P@1)"] == 4 and found["table1_retrieval", "MSCOCO-5K", "i2t R@1"] == 12
    assert ("table5_vqa", "ALL_VQA", "accuracy (P@1)") not in found   # one task is not the mean of ten
    record, _, _ = runs.run_recipe(get_recipe("abc/released"), "tiny", {})
    assert record["status"] == "skipped" and "needs the published checkpoint" in record["reason"]


def test_prompts_are_those_of_the_published_processor(home):
    "Where torchvision lets the full processor load, ids and pixels are compared with it."
    pytest.importorskip("torchvision")
    from PIL import Image
    from transformers import Qwen2VLProcessor
    from paper_digest.abc.store import load_reader
    parts = home[1]
    reader, full = load_reader(parts["backbone"]), Qwen2VLProcessor.from_pretrained(parts["backbone"])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (84, 140, 3), np.uint8))
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Instruction: look at the centre"}]}]
    want = full(text=full.apply_chat_template(chat, tokenize=False, add_generation_prompt=True), images=[image], return_tensors="pt")
    item = reader.item({"image": image, "text": "look at the centre"})
    assert reader.prompt(item)[0] == want["input_ids"][0].tolist()
    assert np.abs(item.image.values - want["pixel_values"]).max() < .05


@pytest.mark.parametrize("change, says", [
    (lambda f: (f / "adapter_model.safetensors").unlink(), "holds no adapter_model.safetensors"),
    (lambda f: _edit(f, lambda t: {k: v for k, v in t.items() if "layers.1" not in k}), "the adapter lacks"),
    (lambda f: _edit(f, lambda t: {**t, "base_model.model.lm_head.lora_A.weight": t[min(t)].clone()}), "have no place"),
])
def test_a_damaged_adapter_is_named(home, tmp_path, change, says):
    from paper_digest.abc.store import from_release
    from paper_digest.core import UserError
    broken = tmp_path / "Instruct"
    shutil.copytree(home[1]["instruct"], broken)
    change(broken)
    with pytest.raises(UserError, match=says):
        from_release(home[1]["backbone"], home[1]["pretrained"], str(broken))


def _edit(folder, change):
    from safetensors.torch import load_file, save_file
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


def test_mmeb_rows_of_a_shuffled_file_give_the_same(home, tmp_path):
    "Precision does not depend on the order of rows, and candidates may repeat between rows."
    from paper_digest.abc.tasks import load_mmeb, precision_at_1
    from paper_digest.abc.store import from_release
    model = from_release(**home[1])
    rows = [{"qry_text": "<|image_1|>\nRepresent the image: what is in the centre ?", "qry_img_path": f"{n}.jpg", "tgt_text": [f"word {n}", "word 99", "a red circle"],
             "tgt_img_path": ["", "", ""]} for n in range(6)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    random.Random(0).shuffle(rows)
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    a, b = (precision_at_1(model, load_mmeb(tmp_path / f, home[0] / "images")) for f in ("a.json", "b.jsonl"))
    assert a["value"] == b["value"] and a["n"] == 6


def test_a_real_mteb_task(home, tmp_path):
    "mteb itself, on a retrieval task of our own pictures; nothing is downloaded."
    mteb = pytest.importorskip("mteb")
    from datasets import Dataset
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.task_metadata import TaskMetadata
    from PIL import Image
    from paper_digest.abc.store import from_release
    from paper_digest.abc.tasks import MTEBAdapter

    class Scenes(mteb.abstasks.AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="DrawnScenes", description="Drawn scenes", reference=None, dataset={"path": "none", "revision": "1"}, type="Any2AnyRetrieval",
            category="it2t", modalities=["text", "image"], eval_splits=["test"], eval_langs=["eng-Latn"], main_score="ndcg_at_10", date=None,
            domains=None, task_subtypes=None, license=None, annotations_creators=None, dialect=None, sample_creation=None, bibtex_citation=None)

        def load_data(self, **kwargs):
            images = [Image.open(home[0] / "images" / f"{n}.jpg") for n in range(6)]
            queries = Dataset.from_list([{"id": f"q{n}", "text": "look at the centre", "image": i} for n, i in enumerate(images)])
            corpus = Dataset.from_list([{"id": f"d{n}", "text": f"answer {n}", "title": ""} for n in range(6)])
            self.dataset = {"default": {"test": RetrievalSplitData(queries=queries, corpus=corpus, top_ranked=None,
                                                                   relevant_docs={f"q{n}": {f"d{n}": 1} for n in range(6)})}}
            self.data_loaded = True

    found = mteb.evaluate(MTEBAdapter(from_release(**home[1]), "tiny"), Scenes(), cache=None)
    assert 0 <= found.task_results[0].get_score() <= 1
