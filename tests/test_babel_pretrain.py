"Pretraining of Babel: killed and taken up again, the same data for every arm, jobs under accelerate, and no test item in training."
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import need

ROOT = Path(__file__).resolve().parents[1]
BASE = "dict(languages=('en', 'zh', 'sw'), text=60_000, vocab=400, layers=6, hidden=16, ffn=32, batch=8, passages=3, passage=100)"
TRAIN = f"""
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from paper_digest.babel.bases import Design, train_base
print(train_base(Design(**{BASE}, steps=int(sys.argv[2]), growth=()), 1, Path(sys.argv[1])).folder)
"""


@pytest.fixture(scope="module")
def design():
    need("multilingual")
    from paper_digest.babel.bases import Design
    return Design(**eval(BASE), steps=8, growth=(4,))


def start(work, steps):
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(work), str(steps)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_base_goes_on_to_the_same_weights(tmp_path):
    need("multilingual")
    from safetensors.torch import load_file
    whole = start(tmp_path / "whole", 80)
    killed = start(tmp_path / "killed", 80)
    begun = time.time()
    while not list((tmp_path / "killed").glob("base-*/training/checkpoint-*/trainer_state.json")) and killed.poll() is None and time.time() - begun < 60:
        time.sleep(0.01)
    assert killed.poll() is None, f"it was done before it could be killed: {killed.communicate()[1][-500:]}"
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    again = start(tmp_path / "killed", 80)
    folders = []
    for child in (whole, again):
        out, err = child.communicate(timeout=90)
        assert child.returncode == 0, err[-1500:]
        folders.append(Path(out.strip()))
    first, second = (load_file(f / "step-80/model.safetensors") for f in folders)
    assert first.keys() == second.keys() and all(first[k].equal(second[k]) for k in first)
    assert not (folders[1] / "training").exists() and json.loads((folders[1] / "told.json").read_text())["steps"] == 80


def test_every_arm_reads_the_same_rows(design, tmp_path):
    from paper_digest.babel.arms import ARMS, EQUAL_FLOPS, PLAIN, Continued, run_arm
    plan = Continued(stage1=6, stage2=4, new_layers=1, visits=(0, 10))
    found = {a: run_arm(design, plan, 3, a, tmp_path) for a in (PLAIN, EQUAL_FLOPS, "copy", "output zero", "all zero")}
    other = run_arm(design, plan, 4, PLAIN, tmp_path)
    rows = {a: r["stats"]["rows"] for a, r in found.items()}
    assert len({rows[a] for a in ARMS if a in rows and a != EQUAL_FLOPS}) == 1 and other["stats"]["rows"] != rows[PLAIN]
    assert found[EQUAL_FLOPS]["stats"]["steps"] > 10 == found[PLAIN]["stats"]["steps"]
    start = {a: r["history"][0]["bits"] for a, r in found.items()}
    assert start[PLAIN] == start["output zero"] == start["all zero"] != start["copy"]
    assert found["copy"]["base_cached"] and found["copy"]["parameters"] > found[PLAIN]["parameters"]


def test_a_job_runs_under_accelerate(tmp_path):
    import torch
    from paper_digest.babel.extend import extend_checkpoint
    from paper_digest.babel.init import make_init
    from paper_digest.babel.jobs import launch_job, write_job
    from paper_digest.babel.tokens import token_blocks, train_bpe
    from paper_digest.core import UserError
    from paper_digest.models import load_causal_lm, save_causal_lm, tiny_qwen2
    from paper_digest.train import TrainSettings
    text = ["mbweha mwepesi wa kahawia anaruka juu ya mbwa mvivu " * 60]
    tok = train_bpe(text, 300)
    save_causal_lm(tiny_qwen2(len(tok), 32, 4), tok, tmp_path / "base")
    extend_checkpoint(tmp_path / "base", tmp_path / "grown", "babel_like:1", make_init("zero_out"))
    config = tmp_path / "one.yaml"
    config.write_text("compute_environment: LOCAL_MACHINE\ndistributed_type: 'NO'\nnum_processes: 1\nnum_machines: 1\nmachine_rank: 0\n"
                      "use_cpu: true\nmixed_precision: 'no'\nmain_training_function: main\n")
    rows = token_blocks(text, tok, 8)
    settings = TrainSettings(learning_rate=1e-2, max_steps=3, batch_size=4)
    far = launch_job(write_job(tmp_path / "far", tmp_path / "grown", rows, settings, tmp_path / "by-launch"), str(config))
    here = launch_job(write_job(tmp_path / "here", tmp_path / "grown", rows, settings, tmp_path / "by-hand"))
    assert (far["steps"], far["tokens"]) == (here["steps"], here["tokens"]) == (3, 3 * 4 * 8)
    ids = torch.from_numpy(rows[:4].astype("int64"))
    with torch.no_grad():
        a, b, before = (load_causal_lm(tmp_path / n)[0](ids).logits for n in ("by-launch", "by-hand", "grown"))
    assert (a - b).abs().max() < 0.01 * (a - before).abs().max()
    assert json.loads((tmp_path / "by-launch/extension.json").read_text())["plan"] == json.loads((tmp_path / "grown/extension.json").read_text())["plan"]
    with pytest.raises(UserError, match="already stands"):
        write_job(tmp_path / "far", tmp_path / "grown", rows, settings, tmp_path / "by-launch")


def test_jobs_run_in_worker_processes():
    from paper_digest.babel.bases import in_workers
    assert sorted(in_workers(divmod, [(7, 2), (9, 4), (5, 5)], 2)) == [(1, 0), (2, 1), (3, 1)]
    with pytest.raises(ZeroDivisionError):
        list(in_workers(divmod, [(1, 0)], 1))


@pytest.mark.parametrize("code", ["sw", "th", "zh", "jv"])
def test_no_test_item_in_training(code):
    need("multilingual")
    from paper_digest.babel.mixes import split_documents
    from paper_digest.babel.overlap import hashed_items, overlap, test_items
    from paper_digest.babel.rules import Document
    part, items = split_documents(code, 150_000), test_items(code)
    tests = hashed_items(code, items)
    planted = max((i for own in items.values() for i in own), key=len)
    assert overlap(tests, Document("x#0", code, f"{part.train[0].text}\n{planted}", "x"))
    assert not any(overlap(tests, d) for d in part.train)
    assert not {d.id for d in part.train} & {d.id for d in part.held_out}
    assert not {line for d in part.held_out for line in d.text.splitlines() if len(line) > 20} & {
        line for d in part.train for line in d.text.splitlines()}
