"`paper-digest hot ask` against real local servers: displays, batches, and what is left after a kill."
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import servers

from paper_digest.hot import ask
from paper_digest.served import Endpoint, ServedBackend

COMMAND = [sys.executable, "-m", "paper_digest.cli", "hot", "ask"]
QUESTION, ANSWER = next(iter(servers.QUESTIONS.items()))
CONCURRENCY = 8


def run(*args, **env):
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, env={**os.environ, **env})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return servers.learn_answers(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def model(checkpoint):
    "Address of a server with the checkpoint."
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from paper_digest.generate import TransformersBackend
    backend = TransformersBackend(AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint),
                                  "tiny", 8, chat=True)
    with servers.serving(servers.Local, backend=backend, lock=threading.Lock()) as (url, _):
        yield "--url", url, "--model", "tiny", "--task", "arithmetic", "--mode", "zero_shot", "--max-tokens", "90"


def test_a_highlighted_answer_in_a_terminal(model):
    r = run(QUESTION, *model, "--format", "ansi")
    assert r.returncode == 0, r.stderr
    assert "\x1b[38;5;16;48;5;153m12 seats\x1b[0m" in r.stdout and "\x1b[38;5;16;48;5;223;1m² \x1b[0m" in r.stdout
    assert "Final answer" in r.stdout and "2 facts in the answer: 2 copied" in r.stdout
    plain = run(QUESTION, *model)  # not a terminal
    assert "\x1b" not in plain.stdout and "[2: 3 buses] with [1: 12 seats]" in plain.stdout


def test_a_highlighted_answer_as_json(model):
    found = json.loads(run(QUESTION, *model, "--format", "json").stdout)
    assert found["response"] == ANSWER and found["final_answer"] == "36" and found["finish"] == "stop" and found["tokens"] > 50
    assert [(f["id"], f["text"], f["alignment"]) for f in found["facts"] if f["part"] == "answer"] == [
        (2, "3 buses", "exact"), (1, "12 seats", "exact")]


def test_a_highlighted_answer_as_a_page(model, tmp_path, browser, artifacts):
    r = run(QUESTION, *model, "--format", "html", "--out", tmp_path / "answer.html")
    assert r.returncode == 0 and r.stdout.strip() == str(tmp_path / "answer.html")
    page, faults = browser.new_page(viewport={"width": 1000, "height": 420}), []
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("request", lambda q: faults.append(q.url) if not q.url.startswith("file:") else None)
    page.goto(f"file://{tmp_path}/answer.html")
    assert page.locator("mark.f").all_inner_texts() and "3 buses" in page.inner_text(".a") and not faults
    page.screenshot(path=artifacts / "hot-ask.png")
    page.close()


def test_live_names_facts_as_they_close(model):
    r = run(QUESTION, *model, "--live")
    assert r.stderr.splitlines() == ["question 1: 12 seats", "question 2: 3 buses", "answer 2: 3 buses", "answer 1: 12 seats"]
    assert "Final answer: 36" in r.stdout


def test_a_local_checkpoint_answers_too(checkpoint):
    r = run(QUESTION, "--local", checkpoint, "--task", "arithmetic", "--mode", "zero_shot", "--max-tokens", 90, "--format", "json")
    assert r.returncode == 0, r.stderr
    assert json.loads(r.stdout.strip())["response"] == ANSWER


def test_from_python(model):
    parsed = ask(QUESTION, ServedBackend(Endpoint(model[1], "tiny")), task="arithmetic", mode="zero_shot")
    assert parsed.final_answer == "36" and not parsed.issues and "<mark" in parsed._repr_html_()


@pytest.mark.parametrize("args, why", [
    ([], "name the model"), (["q?", "--url", "http://127.0.0.1:9/v1"], "--url also needs --model"),
    (["q?", "--url", "127.0.0.1:9", "--model", "m"], "must look like http"), (["--local", "no/such/folder", "q?"], "no checkpoint"),
    (["q?", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--tries", "1"], "the connection failed"),
    (["q?", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--task", "riddles"], "no prompt for task"),
    (["q?", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--mode", "sot"], "unknown mode"),
    (["--batch", "no.csv", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--out", "o.jsonl"], "no.csv: no such file"),
    (["q?", "--url", "http://127.0.0.1:9/v1", "--model", "m", "--key-env", "sk-secret-12"], "not a key"),
])
def test_bad_usage_is_one_line(args, why):
    r = run(*args)
    assert r.returncode == 2 and why in r.stderr and len(r.stderr.strip().splitlines()) == 1 and "sk-secret" not in r.stderr


def asked(log):
    "Questions the server was asked, in order."
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def kept(file):
    "Whole lines of a resume file."
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize("kills", [1, 4])
def test_a_killed_batch_loses_nothing_and_asks_nothing_twice(tmp_path, kills):
    questions = [f"Box {i} holds {i} pens and {i % 7} caps. How many things are in it?" for i in range(200)]
    table, out, log = tmp_path / "in.jsonl", tmp_path / "out.jsonl", tmp_path / "asked.txt"
    table.write_text("".join(json.dumps({"id": f"q{i}", "question": q}) + "\n" for i, q in enumerate(questions)))
    answers = tmp_path / "out.jsonl.answers"
    with servers.serving(servers.Counting, log=log, seconds=0.05) as (url, _):
        args = ["--batch", table, "--out", out, "--url", url, "--model", "m", "--concurrency", CONCURRENCY]
        safe = []  # questions whose answers were on the disk at each kill
        for k in range(kills):
            r = subprocess.Popen([*COMMAND, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until = time.time() + 60
            while kept(answers) < (k + 1) * 40 and time.time() < until:
                time.sleep(0.005)
            r.send_signal(signal.SIGKILL)
            r.wait()
            time.sleep(0.3)  # the server finishes what it was asked
            safe.append((kept(answers), len(asked(log))))
            assert 40 <= kept(answers) < 200 and not out.exists()
        last = run(*args)
        assert last.returncode == 0, last.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["id"], r["question"]) for r in rows] == [(f"q{i}", q) for i, q in enumerate(questions)]
    assert all(r["final_answer"] == str(len(q)) for r, q in zip(rows, questions))
    seen = asked(log)
    assert set(seen) == set(questions)
    # only what was under way at a kill, and so never arrived, was asked again
    assert len(seen) - 200 <= kills * CONCURRENCY
    for n, (on_disk, before) in enumerate(safe):
        assert before - on_disk <= (n + 1) * CONCURRENCY
    assert len(seen) == 200 + sum(seen.count(q) - 1 for q in set(seen))
    assert f"{200 - safe[-1][0]} answers in" in last.stderr and f"{safe[-1][0]} reused" in last.stderr
    again, out_before = len(seen), out.read_text()
    with servers.serving(servers.Counting, log=log) as (url, _):  # another address, the same content
        r = run("--batch", table, "--out", out, "--url", url, "--model", "m", "--html", tmp_path / "page.html")
    assert r.returncode == 0 and len(asked(log)) == again and out.read_text() == out_before
    assert "200 responses" in r.stdout and (tmp_path / "page.html").stat().st_size > 50_000


def test_answers_on_the_disk_are_never_asked_for_again(tmp_path):
    "Kill at random moments; what the resume file held at the kill is not in the server's later log."
    questions = [f"Crate {i}: how many?" for i in range(60)]
    table, log, answers = tmp_path / "in.jsonl", tmp_path / "asked.txt", tmp_path / "o.jsonl.answers"
    table.write_text("".join(json.dumps({"question": q}) + "\n" for q in questions))
    with servers.serving(servers.Counting, log=log, seconds=0.03) as (url, _):
        args = ["--batch", table, "--out", tmp_path / "o.jsonl", "--url", url, "--model", "m", "--concurrency", 4]
        r = subprocess.Popen([*COMMAND, *map(str, args)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while kept(answers) < 17:
            time.sleep(0.001)
        r.kill()
        r.wait()
        time.sleep(0.2)
        with open(answers, "ab") as f:
            f.write(b'{"key": "half a li')  # and the machine stopped in the middle of a line
        before = len(asked(log))
        texts = [json.loads(line)["text"] for line in answers.read_bytes().splitlines()[:-1]]
        assert run(*args).returncode == 0
    later = set(asked(log)[before:])
    safe = {q for q in questions if any(t.startswith(f"Reformatted Question: {q}\n") for t in texts)}
    assert len(safe) >= 17 and not safe & later and safe | later == set(questions)
