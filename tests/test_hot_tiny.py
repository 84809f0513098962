"The tiny study and fine-tuning from end to end, and the tables that ask a model, against a real server."
import json
import random
import re
import threading

import pytest
import servers
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest import recipes, runs
from paper_digest.cli import main
from paper_digest.core import UserError
from paper_digest.hot import sft_data, tiny, world
from paper_digest.hot.study import pool_items, practice_items, write_study
from paper_digest.hot.tags import parse
from paper_digest.tables import join

SIZES = st.tuples(st.integers(2, 4), st.integers(0, 5), st.integers(0, 10**6))


@settings(max_examples=200, deadline=None)
@given(SIZES, st.sampled_from(list(tiny.ARMS)))
def test_every_target_of_every_arm_is_read_as_it_was_meant(size, arm):
    rng = random.Random(size[2])
    story = world.draw_story(rng, *size[:2])
    text = tiny.target(story, arm, rng)
    ids = tiny.tokenizer().encode(tiny.asks(story) + text)
    assert tiny.tokenizer().unk_token_id not in ids and tiny.tokenizer().decode(ids) == tiny.asks(story) + text
    row = tiny.grade(story, text, 1)
    tagged_question, tagged_answer = arm in ("tags_in_question", "hot", "mismatched"), arm in ("tags_in_answer", "hot", "mismatched")
    assert row["right"] == 1 and row["copied"] == int(arm != "cot")
    assert row["question_hits"] == (len(story.bought) if tagged_question else 0)
    assert row["answer_said"] == (len(story.bought) if tagged_answer else 0)
    assert row["answer_hits"] == (len(story.bought) if tagged_answer and arm != "mismatched" else 0)  # there no number is where it belongs
    assert arm == "mismatched" or tiny.target(story, arm, random.Random(1)) == text


def test_no_test_problem_is_trained_on():
    size = tiny.TinySize(examples=300, test=100)
    asked = {tiny.asks(s) for found in tiny.exam(size).values() for s in found}
    trained = {tiny.tokenizer().decode([i for i, l in zip(r["input_ids"], r["labels"]) if l == -100])
               for arm, budget in (("cot", "equal tokens"), ("hot", "equal tokens")) for r in tiny.arm_rows(size, 11, arm, budget)}
    assert len(asked) == 300 and len(trained) > 300 and not asked & trained


SPANS = st.lists(st.sampled_from(["3", "hats", "Hats,", "and", "4 caps", "the", "red", "box."]), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(SPANS, st.lists(st.tuples(st.integers(1, 4), SPANS), max_size=6))
def test_localized_tags_point_at_their_words(asked, tagged):
    question = " ".join(asked)
    answer = "Answer: " + " so ".join(f"<fact{i}>{' '.join(words)}</fact{i}>" for i, words in tagged)
    said = sft_data.localized(question, answer)
    assert re.sub(r" x1=\d+ x2=\d+", "", said) == answer  # nothing but places was added
    clean = [w.strip(".,").lower() for w in question.split()]
    taken = {}
    for id, x1, x2, text in re.findall(r"<fact(\d+) x1=(\d+) x2=(\d+)>(.*?)</fact\1>", said):
        assert clean[int(x1):int(x2) + 1] == [w.strip(".,").lower() for w in text.split()]
        assert all(taken.setdefault(i, id) == id for i in range(int(x1), int(x2) + 1))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return servers.learn_answers(tmp_path_factory.mktemp("checkpoint"), steps=60)


@pytest.fixture(scope="module")
def url(checkpoint):
    "Address of `transformers serve`, the real thing, with a tiny checkpoint."
    from transformers.utils.import_utils import is_serve_available
    if not is_serve_available():
        pytest.skip("`transformers serve` lacks its packages; pip install fastapi uvicorn openai")
    with servers.transformers_serve(checkpoint) as address:
        yield address


ASKED = {"components": ({}, 5 * 11, {"components"}), "mismatched": ({}, 5 * 2, {"mismatched_tags"}),
         "reasoning": ({}, 3 * 2, {"reasoning_models"}),
         "repeated": ({"samples": 2}, 11 * 3 * 2, {"five_run_average", "advanced_prompting"}), "selfcheck": ({}, 3 * 2 * 5, {"selfcheck"})}


def in_jupyter(name, given):
    "A recipe's cells one after the other in this process, as somebody in JupyterLab runs them, with other parameters; its record."
    cells = json.loads((recipes.get_recipe(f"hot/{name}").notebook).read_text())["cells"]
    found = {}
    for cell in (c for c in cells if c["cell_type"] == "code"):
        exec("".join(cell["source"]), found)
        if "parameters" in cell["metadata"].get("tags", []):
            found |= given
    return found["record"]


@pytest.mark.parametrize("name", ASKED)
def test_a_table_that_asks_a_model_fills_from_a_real_server(recordings, url, checkpoint, name, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    more, requests, tables = ASKED[name]
    record = in_jupyter(name, {"url": url, "model": checkpoint, "label": "Gemini-1.5-Flash", "items": 1, "shots": 1, "max_tokens": 6, **more})
    assert record["status"] == "done"
    assert len((tmp_path / f"answers/hot-{name}.jsonl").read_text().splitlines()) == requests
    assert {m["table"] for m in record["metrics"]} <= tables and (record["metrics"] or name == "selfcheck")
    rows = join(recipes.get_recipe(f"hot/{name}"), record)
    filled = rows[(rows.printed != "") & rows.measured.notna()]
    assert len(filled) or name in ("reasoning", "selfcheck")  # measured figures stand beside the published ones of that name
    assert set(filled.verdict) <= {"inconclusive", "not reproduced", "reproduced"}


class Talking(servers.Protocol):
    "Says sentences; as a judge, finds fault with every second one."
    seen, lock = 0, threading.Lock()

    def reply(self, body, text):
        with self.lock:
            type(self).seen += 1
            turn = self.seen
        if "supported by the context" in text:
            return ("Yes", "No")[turn % 2], "stop", 1
        if text.endswith("Issues:"):
            return ("no issue", "- logical_error: no\n- contradiction: yes")[turn % 2], "stop", 5
        return f"Reformatted Question: How many hats and caps are there?\nAnswer: There are 3 hats. So there are {turn % 3} caps. The answer is {{3}}.", "stop", 9


def test_selfcheck_with_the_model_as_its_judge(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    with servers.serving(Talking) as (address, _):
        record = in_jupyter("selfcheck", {"url": address, "model": "m", "items": 2, "judge": "model", "shots": 1})
    assert len(record["metrics"]) == 6 and all(0 <= m["value"] <= 100 and m["n"] == 2 for m in record["metrics"])


def test_a_judge_reads_answers_of_both_modes(recordings, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    with servers.serving(Talking) as (address, _):
        record = in_jupyter("llm_judge", {"url": address, "model": "m", "items": 2, "shots": 1})
    flawed, issues = ([m["value"] for m in record["metrics"] if m["metric"] == name]
                      for name in ("questions with issues (of 200)", "issues found"))
    assert len(flawed) == 10 and set(flawed) <= {0, 100, 200} and any(flawed)  # of two answers, counted as of 200
    assert issues == [2 * f for f in flawed]


def test_the_human_study_from_page_to_table(tmp_path, monkeypatch):
    from conftest import need
    need("hot_judge_pool")
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path / "runs"))
    study = write_study(pool_items(), tmp_path / "study.html", 4).read_text()
    name = json.loads(study.split('id="set">')[1].split("</script>")[0])["study"]
    right = {i.id: i.right for i in [*practice_items(), *pool_items()]}
    (tmp_path / "logs").mkdir()
    for k, arm in enumerate(("HoT", "CoT", "HoT", "CoT")):
        chosen = [*[i.id for i in practice_items()], *[i for i in right if i.startswith("pool")][4 * k:4 * k + 4]]
        answers = [{"id": i, "practice": i.startswith("practice"), "choice": ("correct" if right[i] == (n != 5) else "incorrect"),
                    "seconds": 20.0 + k, "timed_out": False} for n, i in enumerate(chosen)]
        (tmp_path / f"logs/{k}.json").write_text(json.dumps({"study": name, "name": f"P{k}", "arm": arm, "started": "2026-01-01T00:00:00Z", "answers": answers}))
    record = in_jupyter("human_study", {"logs": str(tmp_path / "logs")})
    seconds = {m["variant"]: m["value"] for m in record["metrics"] if m["metric"] == "avg time s/question"}
    assert seconds["HoT"] == 21 and seconds["CoT"] == 22
    assert [m["value"] for m in record["metrics"] if m["metric"] == "total responses"] == [16]


@pytest.fixture(scope="module")
def tuned(checkpoint, tmp_path_factory):
    "Adapters of both variants on a saved Qwen2 chat checkpoint, from a file of highlighted answers."
    from dataclasses import replace
    from paper_digest.hot import finetune
    folder = tmp_path_factory.mktemp("tuned")
    rows = sft_data.read_sft(sft_data.write_sft(finetune.world_rows(8), folder / "HoT.jsonl"))
    for variant in sft_data.VARIANTS:
        done = finetune.finetune(str(checkpoint), rows, variant, folder / variant, replace(finetune.PUBLISHED, epochs=2, accumulate=1))
        assert done["rows"] == 8 and done["too_long"] == 0 and 0 < done["trained"] < 0.5 * done["parameters"]
    return folder


def shell(*args):
    "Exit status of `paper-digest ARGS`, in this process."
    with pytest.raises(SystemExit) as done:
        main(list(args))
    return done.value.code or 0


@pytest.mark.parametrize("variant", sft_data.VARIANTS)
def test_adapters_answer_through_hot_ask(tuned, checkpoint, variant, capsys):
    from safetensors.numpy import load_file
    trained = load_file(tuned / variant / "adapter_model.safetensors")
    assert trained and all(".lora_" in name for name in trained) and any(v.any() for n, v in trained.items() if "lora_B" in n)
    assert json.loads((tuned / variant / "adapter_config.json").read_text())["base_model_name_or_path"] == str(checkpoint)
    command = ["hot", "ask", "The pen costs 3. Ann buys the pen. How much does Ann pay?", "--local", str(tuned / variant),
               "--mode", "finetuned", "--max-tokens", "12", "--format", "json"]
    assert shell(*command, "--no-chat") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["question"].startswith("The pen costs 3.") and found["tokens"] == 12
    assert shell(*command) == 2  # the checkpoint has a chat template, and this mode must not use it
    assert "add --no-chat" in capsys.readouterr().err


def test_fine_tuning_without_data_is_skipped_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path))
    record, _, _ = runs.run_recipe(recipes.get_recipe("hot/finetune"), "tiny")
    assert record["status"] == "skipped" and "paper-digest run hot/finetune --tier paper -p data HoT.jsonl" in record["reason"]


def test_a_file_that_is_no_training_data_is_one_clear_line(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"question": "q", "answer": "<fact1>a</fact1>", "gt": 1, "dataset_name": "d"}\n{"question": 3}\n')
    with pytest.raises(UserError, match="x.jsonl, line 2: it needs the fields question, answer, gt, dataset_name; answer, gt, dataset_name missing"):
        sft_data.read_sft(tmp_path / "x.jsonl")
