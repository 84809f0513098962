"Sampling, judging and searching with real (tiny) models: equal at any batch, resumed after a kill, clear when something is wrong."
import json
import os
import resource
import shutil
import signal
import string
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest.core import UserError
from paper_digest.decode import draw, row_keys, uniforms
from paper_digest.generate import Completion, Prompt, Sampling, TransformersBackend
from paper_digest.models import load_causal_lm, save_causal_lm, tiny_qwen2, word_tokenizer
from paper_digest.self_rewarding.judge import JudgeItem, PairwiseJudge, PointwiseJudge
from paper_digest.self_rewarding.other_judges import CorruptedJudge, RandomJudge
from paper_digest.self_rewarding.search import StepSearch
from paper_digest.self_rewarding.turns import ORDERS, scores
from paper_digest.self_rewarding.steps import PaperFormat, Problem
from paper_digest.self_rewarding.trees import read_trees, step_pairs
from paper_digest.self_rewarding.view import TreeView, as_html
from paper_digest.self_rewarding.world import World, draw_problems
from paper_digest.self_rewarding.world_text import TinyFormat, judge_prompt, world_tokenizer

ROOT = Path(__file__).resolve().parents[1]
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"
WORLD = World(k=3)
PROBLEMS = draw_problems(WORLD, "train", 12, 0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny():
    "A model of the tiny world with random weights, and its tokenizer."
    tokenizer = world_tokenizer(WORLD)
    model = tiny_qwen2(len(tokenizer), hidden=32, seed=3)
    model.lm_head.weight.data *= 0.3
    return model, tokenizer


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    "A checkpoint on disk that knows letters and has a chat template."
    tokenizer = word_tokenizer(list(string.printable), CHAT)
    model = tiny_qwen2(len(tokenizer), hidden=16, positions=2048, seed=1)
    model.lm_head.weight.data *= 0.1
    return save_causal_lm(model, tokenizer, tmp_path_factory.mktemp("letters") / "model")


def search(backend, **options):
    judge = PointwiseJudge(backend, template=judge_prompt, min_mass=0)
    return StepSearch(backend, judge, TinyFormat(), **{"w": 4, "temperature": 1.0, "max_iter": 4, "seed": 7} | options)


def told(trees):
    "What trees say, to the last digit."
    return [json.dumps(t.to_dict()) for t in trees]


# sampling


@settings(max_examples=12, deadline=None, database=None)
@given(batch=st.integers(1, 60), at_once=st.integers(1, 12), order=st.permutations(range(12)), few=st.integers(1, 12))
def test_trees_depend_on_nothing_but_seed_and_problem(tiny, batch, at_once, order, few):
    whole = search(TransformersBackend(*tiny, "tiny", 256)).run(PROBLEMS)
    asked = [PROBLEMS[i] for i in order[:few]]
    found = search(TransformersBackend(*tiny, "tiny", batch), at_once=at_once).run(asked)
    assert told(found) == told([whole[i] for i in order[:few]])


def test_another_seed_gives_other_trees(tiny):
    backend = TransformersBackend(*tiny, "tiny")
    assert told(search(backend).run(PROBLEMS)) != told(search(backend, seed=8).run(PROBLEMS))


def plain_loop(model, tokenizer, prompt, index, how):
    "One completion, the whole text read anew for every token, stop texts searched in the decoded text."
    ids, keys = tokenizer(prompt.text, return_tensors="pt")["input_ids"], row_keys(how.seed, [(prompt.id, index)])
    start = ids.shape[1]
    for t in range(how.max_tokens):
        with torch.no_grad():
            logits = model(ids).logits[:, -1]
        token = draw(logits, uniforms(keys, t), how.temperature, how.top_p)
        ids = torch.cat([ids, token[None]], 1)
        text = tokenizer.decode(ids[0, start:])
        found = [text.index(s) for s in how.stop if s in text]
        if token == tokenizer.eos_token_id or found:
            return text[:min(found)] if found else text.removesuffix(tokenizer.eos_token)
    return text


@pytest.mark.parametrize("temperature, top_p", [(0.0, 1.0), (1.0, 1.0), (0.7, 0.8)])
def test_completions_equal_those_of_a_plain_loop(letters, temperature, top_p):
    model, tokenizer = load_causal_lm(letters)
    how = Sampling(3, temperature, top_p, 24, ("ab", "Z", "x\ny"), 5)
    prompts = [Prompt(f"p{i}", string.ascii_letters[i:2 * i + 1]) for i in range(9)]
    found = TransformersBackend(model, tokenizer, "letters").generate(prompts, how)
    assert [c.text for c in found] == [plain_loop(model, tokenizer, p, k, how) for p in prompts for k in range(3)]
    assert {c.finish for c in found} <= {"stop", "length"}


def test_a_stop_text_over_several_tokens_ends_a_row(letters):
    model, tokenizer = load_causal_lm(letters)
    free = TransformersBackend(model, tokenizer, "letters").generate([Prompt("a", "abc")], Sampling(1, 1.0, 1.0, 40, (), 2))[0]
    pair = free.text[20:22]
    cut = TransformersBackend(model, tokenizer, "letters").generate([Prompt("a", "abc")], Sampling(1, 1.0, 1.0, 40, (pair,), 2))[0]
    assert (cut.text, cut.stop, cut.finish) == (free.text[:free.text.index(pair)], pair, "stop")
    assert cut.tokens == len(cut.text) + 2


def test_prompt_and_step_join_at_a_token_border(tiny):
    tokenizer = tiny[1]
    rows = step_pairs(search(TransformersBackend(*tiny, "tiny")).run(PROBLEMS))
    assert rows
    for row in rows:
        for side in ("chosen", "rejected"):
            parts = tokenizer(row["prompt"])["input_ids"] + tokenizer(row[side])["input_ids"]
            assert tokenizer(row["prompt"] + row[side])["input_ids"] == parts
            assert tokenizer.eos_token_id not in parts, "no end-of-text token belongs to a step"


def test_damaged_weights_are_no_silent_nonsense(tiny):
    model = tiny_qwen2(len(tiny[1]), hidden=32)
    model.lm_head.weight.data.fill_(float("nan"))
    backend = TransformersBackend(model, tiny[1], "nan")
    with pytest.raises(UserError, match="not numbers"):
        backend.generate([Prompt("a", "1 + 2")], Sampling(2, 1.0, max_tokens=5))
    with pytest.raises(UserError, match="not numbers"):
        search(backend).judge.compare([JudgeItem(PROBLEMS[0], (), ("1 + 2 = 3", "1 + 2 = 4"))])


# judging


matrix = st.integers(2, 6).flatmap(lambda n: st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=n, max_size=n), min_size=n, max_size=n))


@settings(max_examples=100, deadline=None, database=None)
@given(matrix, st.sampled_from(ORDERS), st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_candidates_places(rows, order, random):
    o = np.array(rows)
    np.fill_diagonal(o, np.nan)
    s = scores(o, order)
    assert (s >= 0).all() and (s <= len(o) - 1).all()
    if order != "single":  # which of two is shown first follows from their places
        places = random.sample(range(len(o)), len(o))
        np.testing.assert_allclose(scores(o[np.ix_(places, places)], order), s[places])
    else:
        np.testing.assert_allclose(s.sum(), len(o) * (len(o) - 1) / 2)


@settings(max_examples=40, deadline=None, database=None)
@given(st.floats(0, 1), st.integers(0, 99))
def test_a_corrupted_judge_reverses_whole_pairs(p, seed):
    item = JudgeItem(PROBLEMS[0], (), tuple("abcd"))
    o, = RandomJudge(seed).compare([item])
    c, = CorruptedJudge(RandomJudge(seed), p, seed + 1).compare([item])
    for i in range(4):
        for j in range(i):
            assert (c[i, j], c[j, i]) in {(o[i, j], o[j, i]), (o[j, i], o[i, j])}
    assert p not in (0, 1) or np.array_equal(c, o if p == 0 else o.T, equal_nan=True)


class Says:
    "A backend that writes what it is told to, and counts."
    name = "says"

    def __init__(self, verdict):
        self.verdict, self.asked = verdict, 0

    def generate(self, prompts, sampling=Sampling()):
        self.asked += len(prompts) * sampling.n
        out = []
        for p in prompts:
            for k in range(sampling.n):
                judged = "Assistant A's" in p.text
                u = uniforms(row_keys(sampling.seed, [(p.id, k)]), 0)[0]
                text = self.verdict if judged else f" step {int(9 * u)} \\boxed{{{int(9 * u)}}}"
                out.append(Completion(p.id, text, self.name, "stop", k, 3))
        return out


def test_a_judge_without_verdicts_ends_the_search_and_keeps_what_is_finished(tmp_path):
    backend, out = Says("[[A]]"), tmp_path / "trees.jsonl"
    asked = [Problem(str(i), f"problem {i}") for i in range(12)]
    run = lambda: StepSearch(backend, PairwiseJudge(backend, retries=0), PaperFormat(), at_once=2, pair_order="single").run(asked, out)

    def fade(done, total):
        if done == 4:
            backend.verdict = "I cannot say."

    with pytest.raises(UserError, match=r"no verdict \(\[\[A\]\] or \[\[B\]\]\)"):
        StepSearch(backend, PairwiseJudge(backend, retries=0), PaperFormat(), at_once=2, pair_order="single").run(asked, out, fade)
    kept = read_trees(out)
    assert len(kept) >= 4 and step_pairs(kept)
    backend.verdict = "[[A]]"
    assert run()[:len(kept)] == kept


def test_roll_back_drops_the_step_and_its_pair(tmp_path):
    "Worked by hand: step 1 is paired, step 2 is tied twice, each time taking step 1 away, then both are decided."
    class Script:
        name, calls, turn = "script", 0, 0

        def generate(self, prompts, sampling=Sampling()):
            self.turn += 1
            return [Completion(prompts[0].id, f" t{self.turn}c{k}" + " \\boxed{1}" * (self.turn == 6), "script", "stop", k, 1, "\nStep"
                               if self.turn < 6 else "") for k in range(sampling.n)]

        def compare(self, items):
            o = np.full((3, 3), 0.0 if self.turn in (2, 4) else np.nan)
            if self.turn not in (2, 4):
                o[0], o[1], o[2] = [np.nan, 1, 1], [0, np.nan, 1], [0, 0, np.nan]
            np.fill_diagonal(o, np.nan)
            return [o]

    script = Script()
    tree, = StepSearch(script, script, PaperFormat(), w=3).run([Problem("a", "?")], tmp_path / "t.jsonl")
    assert [(n.depth, n.outcome, n.accepted, n.dropped, n.kept) for n in tree.nodes] == [
        (1, "pair", True, True, False), (2, "tied", False, False, False), (1, "pair", True, True, False),
        (2, "tied", False, False, False), (1, "pair", True, False, True), (2, "pair", True, False, True)]
    assert tree.steps == ["t5c0", "t6c0 \\boxed{1}"] and tree.status == "finished"
    assert [(r["chosen"], r["rejected"]) for r in step_pairs([tree])] == [(" t5c0", " t5c2"), (" t6c0 \\boxed{1}", " t6c2 \\boxed{1}")]
    assert read_trees(tmp_path / "t.jsonl") == [tree]


# the command


def command(model, problems, out, *more):
    return ["self-rewarding", "pairs", "--model", str(model), "--problems", str(problems), "--out", str(out), "--judge", "pointwise",
            "--max-tokens", "5", "--width", "3", "--max-iter", "3", "--device", "cpu", "--no-rollback", "--batch-size", "6", *map(str, more)]


def call(capsys, *words):
    "Exit status, and what stands on both streams."
    from paper_digest.cli import main
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


def write(path, rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


@pytest.fixture
def problems(tmp_path):
    return write(tmp_path / "problems.jsonl", [{"id": i, "problem": f"{i} + 4 = ?"} for i in range(4)])


def test_pairs_for_a_users_own_model(letters, problems, tmp_path, capsys):
    status, said, _ = call(capsys, *command(letters, problems, tmp_path / "pairs.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert status == 0 and f"{len(rows)} pairs from 4 problems" in said
    assert rows[0]["prompt"].startswith("<user>Solve the problem") and "<assistant>Step 1:" in rows[0]["prompt"]
    assert set(rows[0]) == {"id", "iteration", "depth", "prompt", "prefix", "chosen", "rejected", "score_chosen", "score_rejected", "w",
                            "n_distinct", "judge_calls", "swap_agree"}
    status, _, _ = call(capsys, *command(letters, problems, tmp_path / "bare.jsonl", "--no-chat"))
    assert status == 0 and "<user>" not in (tmp_path / "bare.jsonl").read_text()


@pytest.mark.parametrize("rows, says", [
    ([{"id": 1, "problem": "a"}, {"id": 2}], "line 2: no problem"),
    ([{"problem": "a"}], "line 1: no id"),
    ([{"id": 1, "problem": "a"}, {"id": "1", "problem": "b"}], "line 2: id '1' stands in line 1 already"),
    (["{"], "line 1: not JSON"),
    (["[]"], "line 1: no id and no problem"),
    ([], "holds no problem"),
    ([{"id": 1, "problem": "?" * 4000}], "more than the 2048 positions"),
])
def test_a_bad_problem_file_is_one_line(letters, tmp_path, capsys, rows, says):
    status, _, err = call(capsys, *command(letters, write(tmp_path / "p.jsonl", rows), tmp_path / "out.jsonl"))
    assert status == 2 and says in err and len(err.strip().splitlines()) == 1, err


def test_a_bad_model_is_one_line(letters, problems, tmp_path, capsys):
    bare, empty, bert = tmp_path / "bare", tmp_path / "empty", tmp_path / "bert"
    shutil.copytree(letters, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings_ = json.loads((bare / "tokenizer_config.json").read_text())
    settings_.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings_))
    empty.mkdir()
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}')
    for model, says in ((bare, "--no-chat"), (empty, "no config.json"), (bert, "not a causal language model"), (tmp_path / "none", "no checkpoint folder")):
        status, _, err = call(capsys, *command(model, problems, tmp_path / "out.jsonl"))
        assert status == 2 and says in err and len(err.strip().splitlines()) == 1, err


def test_bad_options_and_places_are_one_line(letters, problems, tmp_path, capsys):
    (tmp_path / "mine.jsonl").write_text("precious")
    for out, more, says in (("mine.jsonl", (), "no search to go on with"), ("no/out.jsonl", (), "is not a folder"),
                            ("problems.jsonl", (), "three different files"), ("o.jsonl", ("--width", 1), "--width"),
                            ("o.jsonl", ("--judge", "coin"), "--judge"), ("o.jsonl", ("--top-p", 0), "top_p"),
                            ("o.jsonl", ("--device", "cuda:9"), "cuda")):
        status, _, err = call(capsys, *command(letters, problems, tmp_path / out, *more))
        assert status == 2 and says in err and len(err.strip().splitlines()) == 1, err
    assert (tmp_path / "mine.jsonl").read_text() == "precious"


def test_a_model_that_never_says_a_or_b(letters, problems, tmp_path, capsys):
    status, _, err = call(capsys, *command(letters, problems, tmp_path / "out.jsonl", "--judge", "pairwise", "--judge-tokens", 6))
    assert status == 2 and "the judge gave no verdict ([[A]] or [[B]])" in err and len(err.strip().splitlines()) == 1, err


def test_candidates_all_alike_for_ever(letters, problems, tmp_path, capsys):
    status, said, err = call(capsys, *command(letters, problems, tmp_path / "out.jsonl", "--temperature", 0))
    assert status == 1 and "0 pairs from 4 problems (0 finished, 4 unfinished at the turn limit)" in said
    assert "no pair in 12 turns of 4 problems: in 12 all candidates were alike" in err and len(err.strip().splitlines()) == 1, err
    assert (tmp_path / "out.jsonl").read_text() == ""


def start(words, **kw):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "paper_digest.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=environment, **kw)


def test_killed_it_goes_on_and_ends_with_the_same_pairs(letters, tmp_path, capsys):
    many = write(tmp_path / "many.jsonl", [{"id": i, "problem": f"{i} + 4 = ?"} for i in range(80)])
    assert call(capsys, *command(letters, many, tmp_path / "whole.jsonl"))[0] == 0
    child = start(command(letters, many, tmp_path / "killed.jsonl"))
    trees, end = tmp_path / "killed.trees.jsonl", time.time() + 120
    while time.time() < end and child.poll() is None and not (trees.exists() and trees.read_bytes().count(b"\n") > 4):
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    kept = read_trees(trees)
    assert 4 <= len(kept) < 80 and not (tmp_path / "killed.jsonl").exists()
    with open(trees, "ab") as f:
        f.write(b'{"problem": {"id": "79", "te')  # a line it was writing
    status, _, err = call(capsys, *command(letters, many, tmp_path / "killed.jsonl", "--seed", 1))
    assert status == 2 and "other settings (seed 0, now 1)" in err
    assert call(capsys, *command(letters, many, tmp_path / "killed.jsonl"))[0] == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert read_trees(trees)[:len(kept)] == kept


def test_a_full_disk_is_one_line_and_what_is_finished_stays(letters, tmp_path, capsys):
    many = write(tmp_path / "many.jsonl", [{"id": i, "problem": f"{i} + 4 = ?"} for i in range(12)])
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    child = start(command(letters, many, tmp_path / "full.jsonl"), preexec_fn=limit)
    _, err = child.communicate(timeout=300)
    assert child.returncode == 2 and "cannot write" in err and "File too large" in err and len(err.strip().splitlines()) == 1, err
    kept = read_trees(tmp_path / "full.trees.jsonl")
    assert 1 <= len(kept) < 12 and f"{len(kept)} finished problems are kept" in err
    assert call(capsys, *command(letters, many, tmp_path / "full.jsonl"))[0] == 0
    assert call(capsys, *command(letters, many, tmp_path / "whole.jsonl"))[0] == 0
    assert (tmp_path / "full.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


# the view


def test_the_tree_view_in_a_browser(tiny, browser, artifacts):
    trees = search(TransformersBackend(*tiny, "tiny"), rollback=True).run(PROBLEMS)
    tree = max(trees, key=lambda t: (len(t.nodes), t.rollbacks))
    nasty = replace(tree, problem=Problem("<b>1</b>", "</style><script>document.title='pwned'</script> \u202e 1 + 2"))
    assert repr(TreeView(nasty)).startswith("<b>1</b>: </style>")
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": 900, "height": 700}, color_scheme=scheme)
        page.set_content(f"<!doctype html><html><head><title>tree</title></head><body>{as_html(nasty)}</body></html>")
        assert page.title() == "tree" and page.locator("script").count() == 0
        assert page.locator(".pdtree .turn").count() == len(tree.nodes)
        assert page.locator(".pdtree tr").count() == sum(len(n.candidates) for n in tree.nodes)
        assert page.locator(".pdtree tr.chosen").count() == sum(n.outcome == "pair" for n in tree.nodes)
        ground = page.locator(".pdtree").evaluate("e => getComputedStyle(e).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(26, 28, 31)")
        box = page.locator(".pdtree").evaluate("e => e.scrollWidth - e.clientWidth")
        assert box == 0, "the view is wider than its frame"
        page.screenshot(path=artifacts / f"search_tree_{scheme}.png", full_page=True)
        page.close()
