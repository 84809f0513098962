"Grading, benchmarks, sets and reports across modules: what hangs is killed, what is wrong is said in one line, real data stays what it was."
import json
import os
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest import answers
from paper_digest.answers import GRADERS, Worker, grade_answers
from paper_digest.core import UserError
from paper_digest.exact_answers import exact_equal
from paper_digest.generate import Completion, Sampling, TransformersBackend
from paper_digest.qwen_answers import qwen_answer, qwen_gold, strip_answer
from paper_digest.qwen_equal import qwen_equal
from paper_digest.self_rewarding import benchmarks, sets
from paper_digest.self_rewarding.evaluate import JudgePair, judge_report, pass_at_k
from paper_digest.self_rewarding.judge import PairwiseJudge, PointwiseJudge
from paper_digest.self_rewarding.other_judges import RandomJudge
from paper_digest.self_rewarding.steps import PaperFormat, Problem

from conftest import need


@pytest.fixture(scope="session")
def math():
    "The mathematics data sets are on this machine."
    need("math")


# graders

@settings(max_examples=60, deadline=None)
@given(st.integers(-10**9, 10**9), st.integers(1, 10**4))
def test_every_rule_accepts_a_number_written_differently(top, below):
    for gold, written in ((str(top), f"{top:,}"), (str(top), rf"${top}$."), (f"{top}/{below}", rf"\frac{{{top}}}{{{below}}}")):
        assert exact_equal(written, gold) and qwen_equal(strip_answer(written), strip_answer(gold)), (gold, written)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_no_text_breaks_the_text_rules(text):
    for response in (text, rf"\boxed{{{text}", rf"\boxed{{{text}}}", "The answer is " + text, "#### " + text):
        answers.find_answer(response)
        assert isinstance(qwen_answer(response), str) and isinstance(qwen_gold(response), str)
        assert not exact_equal(text, text + "1") or not text.strip()


def test_the_rules_disagree_where_they_are_known_to():
    gold_response = {("0.5", r"\boxed{50}"): (False, True, False), ("51", r"\boxed{76 - 25}"): (False, True, True),
                     ("1/3", r"\boxed{0.33333}"): (False, True, False), ("9", r"\boxed{7} no \boxed{9}"): (True, True, True),
                     ("12", r"\boxed{12\text{ m}^2}"): (False, False, True)}
    golds, responses = zip(*gold_response)
    for i, grader in enumerate(GRADERS[:3]):
        assert [v.right for v in grade_answers(responses, golds, grader)] == [r[i] for r in gold_response.values()], grader


def test_a_hanging_comparison_is_one_timeout_and_leaves_nothing_behind():
    with Worker(seconds=1.0) as worker:
        assert worker.ask("qwen", "2", "1+1").right
        first, began = worker.process, time.time()
        assert worker.ask("qwen", "1", "7**7**7**7").outcome == "timeout"
        assert time.time() - began < 10 and first.poll() is not None
        assert worker.ask("math_verify", "2", r"\boxed{\frac{4}{2}}").right
        second = worker.process
    assert second.poll() is not None


def test_a_worker_that_dies_is_an_error_and_is_replaced():
    with Worker(seconds=20.0) as worker:
        assert worker.ask("qwen", "2", "1+1").right
        os.kill(worker.process.pid, 9)
        worker.process.wait()
        assert worker.ask("qwen", "2", "1+1").right and worker.started == 2


def test_huge_answers_are_refused_before_anything_parses_them():
    began = time.time()
    tower = r"\boxed{9^{9^{9^{9}}}}"
    assert [v.outcome for g in ("qwen", "math_verify") for v in grade_answers([tower], ["1"], g)] == ["too large"] * 2
    assert time.time() - began < 5


# benchmarks

def test_gold_answers_grade_as_themselves(math):
    for name in benchmarks.BENCHMARKS:
        items = benchmarks.load_benchmark(name, 80, seed=3)
        boxed = [rf"So \boxed{{{i.gold}}}" for i in items]
        for grader in ("exact", "qwen"):
            assert all(v.right for v in grade_answers(boxed, [i.gold for i in items], grader)), (name, grader)


def test_labelled_solutions_are_graded_as_labelled(math):
    found = benchmarks.load_solutions(150, seed=1)
    graded = grade_answers([s.text for s in found], [s.gold for s in found], "exact")
    assert [v.right for v in graded] == [s.right for s in found]


def test_traces_have_one_wrong_step_at_most_and_it_is_the_last_known(math):
    for task in benchmarks.MISTAKE_TASKS:
        for t in benchmarks.load_mistakes(task):
            verdicts = [ok for *_, ok in t.cases]
            assert verdicts.count(False) == (t.mistake is not None) and all(verdicts[:-1])


@pytest.mark.parametrize("text, message", [
    ("", "holds no row"), ('{"id": 1}\n', "row 1: no 'problem', 'answer'; it has id"), ("[1]\n", "expected objects"),
    ('{"id": 1, "problem": "?", "answer": 2}\n' * 2, "row 2: the id '1' is that of row 1"), ("{nonsense\n", "line 1: not JSON")])
def test_a_faulty_file_is_one_clear_line(tmp_path, text, message):
    file = tmp_path / "mine.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)) as err:
        benchmarks.read_items(file)
    assert "\n" not in str(err.value) and str(file) in str(err.value)


# judges

def pairs(n):
    return [JudgePair(Problem(f"p{i}", f"{i} + 1"), (), f"{i} + 1 = {i + 1}", f"{i} + 1 = {i + 3}") for i in range(n)]


def test_a_coin_is_right_and_consistent_half_of_the_time():
    report = judge_report(RandomJudge(seed=5), pairs(2000))
    for share in (report.accuracy, report.swap_consistency, report.first_wins):
        assert 45 < share.value < 55
    assert report.no_verdict.value == 0 and len(report.right) == 2000


class Tells:
    "Writes an explanation that ends in the letter of the smaller sum, or in nothing."
    name = "tells"

    def __init__(self, silent=False):
        self.silent = silent

    def generate(self, prompts, sampling=Sampling()):
        said = []
        for p in prompts:
            a, b = map(int, re.findall(r"Next Reasoning Step\]\n\d+ \+ 1 = (\d+)", p.text))
            said += [Completion(p.id, "Hm." if self.silent else f"{a} and {b}. [[{'A' if a < b else 'B'}]]", self.name, "stop", i)
                     for i in range(sampling.n)]
        return said


def test_a_judge_that_writes_is_reported_like_one_that_weighs():
    report = judge_report(PairwiseJudge(Tells()), pairs(30))
    assert (report.accuracy.value, report.swap_consistency.value, report.calls) == (100, 100, 60)
    with pytest.raises(UserError, match="the judge gave no verdict"):
        judge_report(PairwiseJudge(Tells(silent=True)), pairs(30))


def test_pass_at_k_equals_drawing_all_subsets():
    from itertools import combinations
    right = [True, False, False, True, False, False]
    for k in range(1, 7):
        subsets = [any(c) for c in combinations(right, k)]
        assert pass_at_k([right], k)[0] == pytest.approx(np.mean(subsets))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    "An untrained Qwen2 over single characters, with a chat template, on disk."
    from paper_digest.models import load_causal_lm, save_causal_lm, tiny_qwen2, word_tokenizer
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    tok = word_tokenizer([chr(c) for c in range(32, 127)] + ["\n"], template)
    folder = save_causal_lm(tiny_qwen2(len(tok), 16, 1, 2, positions=4096, seed=1), tok, tmp_path_factory.mktemp("ck") / "M1")
    return load_causal_lm(str(folder)), folder


def test_real_traces_reach_a_chat_checkpoint(math, checkpoint):
    (model, tok), _ = checkpoint
    backend = TransformersBackend(model, tok, "tiny", batch_size=8, chat=True)
    from paper_digest.self_rewarding.judging import trace_verdicts
    traces = [t for t in benchmarks.load_mistakes("multistep_arithmetic", 6) if t.mistake is not None]
    found = trace_verdicts(PointwiseJudge(backend, min_mass=0.0), traces)
    assert len(found) == len(traces) and all(0 <= x <= 1 for x in found)
    forks = benchmarks.fork_pairs(benchmarks.load_solutions(8))[:4]
    assert judge_report(PairwiseJudge(backend, "logits", min_mass=0.0), forks).accuracy.n == len(forks)


def test_the_paper_tier_takes_checkpoints_or_says_how_to_get_them(math, checkpoint):
    from types import SimpleNamespace

    from paper_digest.records import SkipRecipe
    from paper_digest.self_rewarding import reports
    p = SimpleNamespace(tier="paper", device="cpu", chat=True, seed=0, models=[])
    with pytest.raises(SkipRecipe, match="run self_rewarding/main --tier paper"):
        list(reports.members(p))
    p.models = [str(checkpoint[1])]
    member, = reports.members(p)
    items = reports.test_items(member, ["GSM8k"], 2)["GSM8k"]
    stats = reports.step_rows(member.__class__(**{**vars(member), "max_tokens": 12}), items)
    assert stats.n == 2 and stats.step_num >= 1


# sets

def test_a_prm_over_a_checkpoint_builds_eft_candidates(checkpoint):
    (model, tok), _ = checkpoint
    backend = TransformersBackend(model, tok, "tiny", batch_size=8)
    prm = PointwiseJudge(backend, min_mass=0.0)
    trees = sets.propose(backend, [Problem("a", "1 + 1"), Problem("b", "2 + 3")], PaperFormat(max_tokens=4), prm, w=3, temperature=1.5, max_iter=2)
    found, report = sets.layer_pairs(trees, prm)
    assert report.kept == len(found) and all(p.q_best > p.q_worst for p in found)
    wanted = len(found)
    rows, report = sets.eft_set(found, lambda cases: ["[[A]]" if i % 2 == 0 else "[[B]]" for i in range(len(cases))])
    assert len(rows) == 2 * wanted and {r["verdict"] for r in rows} == {"A", "B"}
    assert json.loads(json.dumps(rows)) == rows and all(set(r) == {"prompt", "completion"} for r in sets.trl_rows(rows))


def test_the_swap_filter_drops_a_judge_with_position_bias():
    pairs_ = [sets.ScoredPair(Problem(str(i), f"{i} + 1"), (), "good", "bad", 0.9, 0.1) for i in range(50)]
    rows, report = sets.eft_set(pairs_, lambda cases: ["The first one. [[A]]"] * len(cases))
    assert rows == [] and report.lost == {"changes with the order": 50} and report.kept == 0
