"Self-rewarding: the loop cannot ask an oracle, survives being killed anywhere, and runs on a chat checkpoint with text verdicts."
import errno
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from paper_digest import runs  # noqa: E402
from paper_digest.core import UserError, write_atomic  # noqa: E402
from paper_digest.models import load_causal_lm, save_causal_lm, tiny_qwen2, word_tokenizer  # noqa: E402
from paper_digest.recipes import get_recipe  # noqa: E402
from paper_digest.self_rewarding import rounds, world as tiny, world_text  # noqa: E402
from paper_digest.self_rewarding.config import RoundsConfig, SearchSettings  # noqa: E402
from paper_digest.self_rewarding.judge import pairwise_prompt  # noqa: E402
from paper_digest.self_rewarding.other_judges import solution_prompt  # noqa: E402
from paper_digest.self_rewarding.rounds import run_rounds  # noqa: E402
from paper_digest.self_rewarding.stages import write_problems  # noqa: E402
from paper_digest.self_rewarding.steps import PaperFormat, Problem  # noqa: E402
from paper_digest.train import TrainSettings, sft_row  # noqa: E402

torch.set_num_threads(1)
WORLD = tiny.World(seed=3)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    "A smoke-size run whose every stage takes a second or so."
    work = tmp_path_factory.mktemp("data")
    tok = world_text.world_tokenizer(WORLD)
    m0 = save_causal_lm(tiny_qwen2(len(tok), hidden=16, layers=1, heads=2), tok, work / "M0")
    rows = world_text.ift_rows(WORLD, tok, 200, 0) + world_text.judged_rows(WORLD, tok, 200, 0)
    sft = write_atomic(work / "sft.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    prompts = tuple(write_problems(work / f"p{r}.jsonl", tiny.draw_problems(WORLD, "train", 60, r, prefix=f"r{r}")) for r in (2, 3))
    return RoundsConfig(str(m0), prompts, str(sft), judge="pointwise", form="tiny", seed=3,
                        search=SearchSettings(temperature=1.0, top_p=1.0, ties="random", rollback=False, solution_tokens=24),
                        sft=TrainSettings(learning_rate=3e-3, max_steps=25, batch_size=64),
                        dpo=TrainSettings(learning_rate=3e-4, batch_size=16, beta=0.5))


def weights(folder):
    return list(load_causal_lm(str(folder))[0].parameters())


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return run_rounds(config, tmp_path_factory.mktemp("whole"))


def test_the_loop_never_asks_an_oracle(config, whole, tmp_path, monkeypatch):
    def poison(*args, **kwargs):
        raise AssertionError("the loop asked an oracle")
    for name in ("__init__", "right", "answer", "solution"):
        monkeypatch.setattr(tiny.Oracle, name, poison)
    monkeypatch.setattr(tiny.World, "result", poison)
    done = run_rounds(config, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(done.models[-1]), weights(whole.models[-1])))
    assert {k: v["pairs"] for k, v in done.stages.items() if "pairs" in v} == {k: v["pairs"] for k, v in whole.stages.items() if "pairs" in v}


def start(config, work, tmp_path):
    "A process of its own that runs all rounds."
    script = tmp_path / "go.py"
    script.write_text(f"""
from pathlib import Path
import torch; torch.set_num_threads(1)
from paper_digest.self_rewarding.config import RoundsConfig, SearchSettings
from paper_digest.self_rewarding.rounds import run_rounds
from paper_digest.train import TrainSettings
run_rounds({config!r}, Path({str(work)!r}), progress=lambda s: print(s, flush=True))
""")
    return subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_to_the_same_result(config, whole, tmp_path):
    work, kills, deadline = tmp_path / "work", [], time.time() + 500
    for victim in ("M1", "search M1", "train M2", "train M3"):
        assert time.time() < deadline
        process = start(config, work, tmp_path)
        for line in process.stdout:
            if line.strip() == victim:
                time.sleep(0.15)  # in the middle of the stage
                process.send_signal(signal.SIGKILL)
                break
        kills.append(process.wait())
    done = run_rounds(config, work)
    assert kills.count(-signal.SIGKILL) == 4, f"the run was not killed often enough: {kills}"
    assert all(torch.equal(a, b) for a, b in zip(weights(done.models[-1]), weights(whole.models[-1])))
    assert (done.folder / "pairs-3.jsonl").read_bytes() == (whole.folder / "pairs-3.jsonl").read_bytes()


def test_a_full_disk_is_one_line_and_keeps_what_is_there(config, tmp_path, monkeypatch):
    first = run_rounds(replace(config, prompts=config.prompts[:1]), tmp_path)
    before = {p: p.read_bytes() for p in first.folder.glob("pairs-*.jsonl")}
    real = rounds.write_atomic

    def full(path, text):
        if path.name.startswith("pairs-3"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, text)
    monkeypatch.setattr(rounds, "write_atomic", full)
    with pytest.raises(UserError, match="the disk is full at stage search-3") as caught:
        run_rounds(config, tmp_path)
    assert "\n" not in str(caught.value)
    folder, = (p.parent for p in tmp_path.glob("step-*/pairs-2.jsonl") if p.parent != first.folder)
    assert before and all(p.read_bytes() == content for p, content in before.items()) and (folder / "M2").is_dir()
    monkeypatch.setattr(rounds, "write_atomic", real)
    assert len(run_rounds(config, tmp_path).models) == 3  # goes on once there is room


def test_what_is_no_causal_model_is_named(config, tmp_path):
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert/config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with pytest.raises(UserError, match="not a causal language model but BertModel"):
        run_rounds(replace(config, m0=str(tmp_path / "bert"), sft_rows=""), tmp_path / "work")


def test_a_checkpoint_without_a_chat_template_is_named(config, tmp_path):
    with pytest.raises(UserError, match="no chat template"):
        run_rounds(replace(config, chat=True), tmp_path)


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def chat_checkpoint(folder):
    "A tiny Qwen2 with a chat template that has learned to write steps and to end a comparison with a verdict, some of them right."
    p = Problem("x", "3 + 4")
    head, form = pairwise_prompt(p, [], "@1", "@2"), PaperFormat()
    pieces = [*head.replace("3 + 4", "\0").replace("@1", "\0").replace("@2", "\0").split("\0"), form.prompt(p, [])[0].split("3 + 4")[0],
              "\n\n", "\n", "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", " Better: ", "[[", "A", "B", "]]",
              "Step ", ":", " ", "+", "=", *map(str, range(10)), *(rf"\boxed{{{n}}}" for n in range(10)), "Step"]
    tok = word_tokenizer(list(dict.fromkeys(x for x in pieces if x)), TEMPLATE)
    rows, chat = [], lambda text: tok.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
    for a in range(5):
        for b in range(5):
            q, good, bad = Problem("x", f"{a} + {b}"), rf"{a} + {b} = {a + b} \boxed{{{a + b}}}", rf"{a} + {b} = {a} \boxed{{{a}}}"
            rows.append(sft_row(tok, chat(form.prompt(q, [])[0]), f"Step 1: {good if a < 3 else bad}"))
            for first, second, verdict in ((good, bad, "A"), (bad, good, "B")):
                rows.append(sft_row(tok, chat(pairwise_prompt(q, [], first, second)), f" Better: [[{verdict}]]"))
    assert not any(tok.unk_token_id in r["input_ids"] for r in rows)
    return save_causal_lm(tiny_qwen2(len(tok), hidden=32, layers=1, positions=1024), tok, folder), rows


@pytest.mark.timeout(600)
def test_the_published_models_code_path_on_a_tiny_chat_checkpoint(tmp_path):
    m0, rows = chat_checkpoint(tmp_path / "chat")
    sft = write_atomic(tmp_path / "sft.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    prompts = tuple(write_problems(tmp_path / f"p{r}.jsonl", [Problem(f"{r}-{a}-{b}", f"{a} + {b}") for a in range(5) for b in range(5)])
                    for r in (2, 3, 4))
    config = RoundsConfig(str(m0), prompts, str(sft), judge="pairwise", form="paper", chat=True,
                          search=SearchSettings(w=6, temperature=1.0, max_iter=4), batch_size=64,
                          sft=TrainSettings(learning_rate=5e-3, epochs=8, batch_size=25), dpo=TrainSettings(learning_rate=1e-4))
    done = run_rounds(config, tmp_path / "work")
    assert [p.name for p in done.models] == ["M1", "M2", "M3", "M4"]
    assert all(done.stages[f"search-{r}"]["pairs"] > 0 and done.stages[f"search-{r}"]["judge_calls"] > 0 for r in (2, 3, 4))
    pair = json.loads((done.folder / "pairs-2.jsonl").read_text().splitlines()[0])
    assert pair["prompt"].startswith("<|im_start|>user\n") and pair["prompt"].endswith("<|im_start|>assistant\nStep 1:")
    assert (done.folder / "trees-2.jsonl").is_file()


def published_data(folder):
    "The four files that the paper tier reads, and pieces of a vocabulary that covers them."
    sums = [(a, b) for a in range(5) for b in range(5)]
    step = lambda a, b, c: rf"{a} + {b} = {c} \boxed{{{c}}}"  # noqa: E731
    ift = [{"problem": f"{a} + {b}", "steps": [step(a, b, a + b if a < 3 else a)]} for a, b in sums]
    eft = [{"problem": f"{a} + {b}", "prefix": [], "step_a": step(a, b, x), "step_b": step(a, b, y), "explanation": "Look.", "verdict": v}
           for a, b in sums for x, y, v in ((a + b, a, "A"), (a, a + b, "B")) if x != y]
    eft += [{"problem": f"{a} + {b}", "solution": f"Step 1: {step(a, b, c)}", "explanation": "Look.", "score": s}
            for a, b in sums for c, s in ((a + b, 5), (a, 1))]
    problems = [{"id": f"{i}-{a}-{b}", "text": f"{a} + {b}", "answer": str(a + b)} for i in range(2) for a, b in sums]
    for name, rows in (("ift", ift * 4), ("eft", eft * 4), ("prompts", problems), ("test", problems[:25])):
        write_atomic(folder / f"{name}.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    heads = [PaperFormat().prompt(Problem("", "@1"), [])[0], pairwise_prompt(Problem("", "@1"), [], "@1", "@1"),
             solution_prompt(Problem("", "@1"), "@1")]
    return [*(piece for head in heads for piece in head.split("@1")), "Look.", "\nScore: ", " [[", "A", "B", "]]"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name, more, arms", [
    ("main", {"test_name": "GSM8k"}, {"PSRLM", "SRLM"}),
    ("controls", {}, {"PSRLM", "RFT", "answers"}),
    ("contrast", {}, {"pairs"}),
    ("how_good_must_the_judge_be", {"reversed_shares": [0.5]}, {"PSRLM", "reversed"}),
])
def test_the_paper_tier_on_a_tiny_chat_checkpoint(name, more, arms, tmp_path, monkeypatch):
    pieces = published_data(tmp_path)
    tok = word_tokenizer(list(dict.fromkeys(x for x in (
        *pieces, "\n\n", "\n", "<|im_start|>user\n", "<|im_end|>\n", "<|im_start|>assistant\n", "Step ", ":", " ", "+", "=",
        *map(str, range(10)), *(rf"\boxed{{{n}}}" for n in range(10)), "Step") if x)), TEMPLATE)
    m0 = save_causal_lm(tiny_qwen2(len(tok), hidden=32, layers=1, positions=4096), tok, tmp_path / "M0")
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(runs, "lacking", lambda recipe, tier: "")  # this tier wants a GPU and vLLM; the path is the same without
    files = {f"{file}_file": str(tmp_path / f"{file}.jsonl") for file in ("ift", "eft", "prompts", "test")}
    record, folder, _ = runs.run_recipe(get_recipe(f"self_rewarding/{name}"), "paper", {
        "model": str(m0), "device": "cpu", "backend": "transformers", "prompts": [10, 15, 20], "temperature": 1.0, "sft_lr": 5e-3,
        "sft_batch": 16, "dpo_lr": 1e-4, "dpo_batch": 8, **more, **files})
    assert record["status"] == "done", (record["reason"], (folder / "worker.log").read_text()[-1500:])
    found = {(m["model"].split()[-1], m["variant"]) for m in record["metrics"] if m["table"] == "table1"}
    assert found == {(arm, f"M{i}") for arm in arms for i in range(1, 5)}
