"""XCOPA by likelihood: `babel.likelihood` beside lm-evaluation-harness, the same scores and the time of both.

    python benchmarks/likelihood.py                8 languages, without examples and with 4, figures and ratios
    python benchmarks/likelihood.py --limit 500    all questions (40 of each language otherwise)
    python benchmarks/likelihood.py --no-peer      without lm-evaluation-harness

The model is a Qwen2 with random weights and a byte-level vocabulary, built here and saved to a temporary folder; both read
it from there, in float32 on one thread. The harness runs its own XCOPA tasks (its own prompt functions) on local copies of
the questions, in a process and an environment of its own that sees the same torch and transformers, without a network. It is
asked at its default batch size of 1 and at 32; the 4 examples are the first of the validation set for every question
(its sampler `first_n`). What is timed on both sides is the scoring alone, tokenization included: neither imports nor the loading of
model and data; in processor seconds of the process, which other work on the machine hardly touches. Best of --rounds that take
turns. Scores are compared choice by choice. Without examples only the question is shared, by its two choices, and on a
processor that is busy with arithmetic nothing can be saved beyond those tokens; with examples the cache carries most of a prompt.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = "lm-eval==0.4.13"
GOAL, AGREE = 3.0, 1e-3  # times faster; largest difference of a log-likelihood of some tens
LANGUAGES = ("id", "it", "sw", "ta", "th", "tr", "vi", "zh")


def build(folder):
    "A Qwen2 with random weights whose tokenizer was trained on the validation questions."
    from paper_digest.babel.tasks import xcopa
    from paper_digest.babel.tiny import byte_bpe
    from paper_digest.models import save_causal_lm, tiny_qwen2
    tokenizer = byte_bpe([text for c in LANGUAGES for q in xcopa(c, "val") for text in (q.context, *q.choices)], 4096)
    model = tiny_qwen2(len(tokenizer), hidden=192, layers=6, heads=6, positions=2048, eos_token_id=tokenizer.eos_token_id,
                       pad_token_id=tokenizer.pad_token_id, seed=0)
    save_causal_lm(model, tokenizer, folder)


def ours(model, tokenizer, shots, limit):
    "Processor seconds, and the log-likelihoods of both choices of every question by language."
    from paper_digest.babel.likelihood import Pair, loglikelihood
    from paper_digest.babel.tasks import with_examples, xcopa
    items = {c: with_examples(xcopa(c)[:limit], xcopa(c, "val"), shots) for c in LANGUAGES}
    pairs = [Pair(q.context, f" {choice}") for own in items.values() for q in own for choice in q.choices]
    begun = time.process_time()
    scored = iter(loglikelihood(model, tokenizer, pairs))
    seconds = time.process_time() - begun
    return seconds, {c: [[next(scored).logprob for _ in q.choices] for q in own] for c, own in items.items()}


PEER_CODE = """
import json, sys, time
import lm_eval, torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
torch.set_num_threads(1)
spec = json.loads(sys.argv[1])
lm = HFLM(pretrained=spec["model"], device="cpu", dtype="float32", batch_size=spec["batch"])
clock, plain = {}, lm.loglikelihood
def timed(requests, **kw):
    begun = time.process_time()
    found = plain(requests, **kw)
    clock["seconds"] = time.process_time() - begun
    return found
lm.loglikelihood = timed
done = lm_eval.simple_evaluate(model=lm, tasks=spec["tasks"], num_fewshot=spec["shots"], limit=spec["limit"], bootstrap_iters=0,
                               log_samples=True, task_manager=TaskManager(include_path=spec["folder"], include_defaults=False))
logs = {t[-2:]: [[float(r[0][0]) for r in s["resps"]] for s in sorted(rows, key=lambda s: s["doc_id"])] for t, rows in done["samples"].items()}
acc = {t[-2:]: r["acc,none"] for t, r in done["results"].items()}
json.dump({"seconds": clock["seconds"], "logs": logs, "acc": acc}, open(spec["out"], "w"))
"""


def peer_python():
    "The interpreter that has the harness; exits with one line where it cannot be installed."
    from paper_digest.data import cache_dir
    home = cache_dir() / "peers" / PEER.replace("==", "-")
    program = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"lm-evaluation-harness is not installed; putting {PEER} into an environment of its own under the cache folder", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        own = next(p for p in sys.path if p.endswith("site-packages"))  # torch and transformers are not installed twice
        done = subprocess.run([sys.executable, "-m", "venv", str(home)], capture_output=True, text=True)
        if done.returncode == 0:
            where = subprocess.run([str(program), "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True).stdout.strip()
            (Path(where) / "parent.pth").write_text(own + "\n")
            done = subprocess.run([str(program), "-m", "pip", "install", "-q", "--disable-pip-version-check", PEER], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            sys.exit(f"likelihood: {PEER} cannot be installed ({reason[0]}); with a package index run `pip install {PEER}` in an "
                     "environment and name its python with --peer-python, or leave it out with --no-peer")
        (home / "ready").touch()
    return program


def harness(python):
    "Folder of the harness under this interpreter; exits with one line where there is none."
    found = subprocess.run([str(python), "-c", "from importlib.util import find_spec; print(find_spec('lm_eval').submodule_search_locations[0])"],
                           capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"likelihood: {python} has no lm_eval; install it there with `{python} -m pip install {PEER}`")
    return Path(found.stdout.strip())


def tasks(folder, package):
    "The harness's own XCOPA tasks, pointed at local files."
    from paper_digest import data
    for code in LANGUAGES:
        files = {name: str(data.path("multilingual", f"xcopa/{split}.{code}.jsonl")) for name, split in (("validation", "val"), ("test", "test"))}
        task = {"include": str(package / f"tasks/xcopa/default_{code}.yaml"), "task": f"local_xcopa_{code}", "dataset_path": "json",
                "dataset_name": None, "dataset_kwargs": {"data_files": files}, "fewshot_split": "validation", "fewshot_config": {"sampler": "first_n"}}
        (folder / f"local_xcopa_{code}.yaml").write_text(json.dumps(task))  # JSON is YAML


def peer(python, folder, model, batch, shots, limit):
    "Processor seconds, log-likelihoods and accuracies of the harness."
    spec = {"model": str(model), "batch": batch, "tasks": [f"local_xcopa_{c}" for c in LANGUAGES], "shots": shots, "limit": limit,
            "folder": str(folder), "out": str(folder / "out.json")}
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache"),
               "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([str(python), "-c", PEER_CODE, json.dumps(spec)], capture_output=True, text=True, env=offline)
    if done.returncode:
        sys.exit(f"likelihood: the harness failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return json.loads((folder / "out.json").read_text())


def compare(mine, theirs, labels):
    "Largest difference of a log-likelihood, and whether every accuracy is the same."
    apart = max(abs(a - b) for c in LANGUAGES for x, y in zip(mine[c], theirs["logs"][c], strict=True) for a, b in zip(x, y, strict=True))
    right = {c: sum(x.index(max(x)) == n for x, n in zip(mine[c], labels[c])) / len(mine[c]) for c in LANGUAGES}
    return apart, all(abs(right[c] - theirs["acc"][c]) < 1e-9 for c in LANGUAGES), right


def main():
    "Run both and print."
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--limit", type=int, default=40, help="questions of each language")
    args.add_argument("--rounds", type=int, default=1)
    args.add_argument("--no-peer", action="store_true")
    args.add_argument("--peer-python", type=Path, help="an interpreter that has lm_eval; one is made otherwise")
    args = args.parse_args()
    python = None if args.no_peer else args.peer_python or peer_python()
    package = harness(python) if python else None
    import torch

    from paper_digest.babel.tasks import xcopa
    from paper_digest.models import count_parameters, load_causal_lm
    torch.set_num_threads(1)
    labels = {c: [q.label for q in xcopa(c)[:args.limit]] for c in LANGUAGES}
    good = True
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        build(folder / "model")
        model, tokenizer = load_causal_lm(str(folder / "model"))
        print(f"Qwen2 of {count_parameters(model) / 1e6:.1f} million parameters, vocabulary {len(tokenizer)}, {len(LANGUAGES)} languages x {args.limit} "
              "questions x 2 choices")
        if python:
            tasks(folder, package)
        for shots in (0, 4):
            mine, theirs = (float("inf"), None), {1: None, 32: None}
            for _ in range(args.rounds):
                mine = min(mine, ours(model, tokenizer, shots, args.limit), key=lambda r: r[0])
                for batch in theirs if python else ():
                    now = peer(python, folder, folder / "model", batch, shots, args.limit)
                    theirs[batch] = now if theirs[batch] is None or now["seconds"] < theirs[batch]["seconds"] else theirs[batch]
            print(f"{shots} examples: babel.likelihood {mine[0]:.2f} s")
            for batch, found in theirs.items() if python else ():
                apart, same, right = compare(mine[1], found, labels)
                ratio = found["seconds"] / mine[0]
                good &= apart < AGREE and same
                print(f"    {PEER} at batch size {batch}{' (its default)' if batch == 1 else ''}: {found['seconds']:.2f} s, {ratio:.1f} x; "
                      f"largest difference of a log-likelihood {apart:.1e}, accuracies {'the same' if same else 'DIFFERENT'}")
                if shots == 0 and batch == 1:
                    print("    accuracy:", ", ".join(f"{c} {100 * a:.1f}" for c, a in right.items()))
                print(f"    goal {GOAL:.0f} x: {'reached' if ratio >= GOAL else 'missed'}")
    if not python:
        print("without the peer there is nothing to compare with")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
