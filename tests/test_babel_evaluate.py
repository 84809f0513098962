"Benchmarks of Babel: likelihoods that agree with the plain computation, recipes that run, one line for bad input."
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest import data
from paper_digest.babel import likelihood
from paper_digest.babel.likelihood import loglikelihood
from paper_digest.babel.pairs import Pair, plain_loglikelihood
from paper_digest.babel.tasks import available, exams, sib200, with_examples, xcopa
from paper_digest.babel.tiny import byte_bpe
from paper_digest.core import UserError
from paper_digest.models import save_causal_lm, tiny_qwen2
from paper_digest.recipes import get_recipe
from paper_digest.runs import run_recipe

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["the cat sat on the mat", "แมวนั่งบนเสื่อ", "paka alikaa juu ya mkeka", "பூனை பாயில் அமர்ந்தது", "猫坐在垫子上"]


@pytest.fixture(scope="module", autouse=True)
def here():
    if lost := data.missing(["multilingual"]):
        pytest.skip(f"{len(lost)} data files are missing: run `paper-digest data pull multilingual`")


@pytest.fixture(scope="module")
def tiny():
    torch.set_num_threads(1)
    tokenizer = byte_bpe(TEXTS * 3, 400)
    return tiny_qwen2(len(tokenizer), hidden=32, layers=3, positions=4096, eos_token_id=0, seed=2), tokenizer


def agree(tiny, pairs, **how):
    fast, slow = loglikelihood(*tiny, pairs, **how), plain_loglikelihood(*tiny, pairs)
    assert [s.logprob for s in fast] == pytest.approx([s.logprob for s in slow], abs=1e-4)
    assert [(s.tokens, s.greedy) for s in fast] == [(s.tokens, s.greedy) for s in slow]


@given(st.lists(st.tuples(st.sampled_from(["", "the cat", "the cat ", *TEXTS, "the cat sat on the mat. " * 9]), st.sampled_from(TEXTS)), min_size=1, max_size=12),
       st.sampled_from([40, 300, 5000]))
@settings(max_examples=15, deadline=None)
def test_any_mixture_agrees_with_the_plain_computation(tiny, parts, tokens):
    agree(tiny, [Pair(c, t if c.endswith(" ") else f" {t}") for c, t in parts], batch_tokens=tokens)


@pytest.mark.parametrize("code", ["th", "ta"])
def test_examples_in_the_cache_change_nothing(tiny, code, monkeypatch):
    items = with_examples(xcopa(code)[:8], xcopa(code, "val"), 3)
    pairs = [Pair(q.context, f" {c}") for q in items for c in q.choices]
    agree(tiny, pairs)
    seen, plain = [], likelihood.score_rows
    monkeypatch.setattr(likelihood, "score_rows", lambda model, rows, prefix=None, shared=0: seen.append(shared) or plain(model, rows, prefix, shared))
    loglikelihood(*tiny, pairs)
    assert min(seen) > 50, "the shared examples were not taken from the cache"


def test_bfloat16_and_grouped_heads():
    from transformers import AutoModelForCausalLM, Qwen2Config
    tokenizer = byte_bpe(TEXTS * 3, 400)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Qwen2Config(vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                                         num_key_value_heads=1, max_position_embeddings=256, tie_word_embeddings=True)).eval()
    agree((model, tokenizer), [Pair("the cat", f" {t}") for t in TEXTS])
    half = [s.logprob for s in loglikelihood(model.to(torch.bfloat16), tokenizer, [Pair("the cat", f" {t}") for t in TEXTS])]
    assert half == pytest.approx([s.logprob for s in loglikelihood(model.float(), tokenizer, [Pair("the cat", f" {t}") for t in TEXTS])], rel=.02)


def test_a_window_shorter_than_the_text_is_refused(tiny):
    from transformers import AutoModelForCausalLM, MistralConfig
    model = AutoModelForCausalLM.from_config(MistralConfig(vocab_size=400, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                                                           num_key_value_heads=2, sliding_window=16, max_position_embeddings=256)).eval()
    with pytest.raises(UserError, match="attention window of 16"):
        loglikelihood(model, tiny[1], [Pair("the cat sat on the mat. " * 4, " the cat")])
    agree((model, tiny[1]), [Pair("the cat", " sat"), Pair("the cat", " mat")])


def test_no_test_text_is_trained_on():
    from paper_digest.babel.tiny import texts_of
    for code in ("sw", "th"):
        trained = "\n".join(texts_of(code, 10**9, 0))
        asked = [q.context.removesuffix("\nTopic:") for q in sib200(code)] + [json.loads(line)["premise"] for line in
                 data.read("multilingual", f"xcopa/test.{code}.jsonl").decode().splitlines()]
        assert not [t for t in asked if len(t) > 25 and t in trained]  # "it rains" may be anywhere


def test_every_label_is_among_its_choices():
    for items in [*(sib200(c, s) for c in available("sib200") for s in ("train", "test")), *(xcopa(c) for c in available("xcopa")),
                  *(exams(c) for c in available("exams"))]:
        assert items and all(0 <= i.label < len(i.choices) for i in items)


@pytest.fixture()
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_RUNS", str(tmp_path / "runs"))
    return tmp_path


def test_benchmarks_recipe_asks_a_named_checkpoint(tiny, runs):
    "The cells of the paper tier, on a checkpoint that is small."
    save_causal_lm(*tiny, runs / "model")
    record, _, _ = run_recipe(get_recipe("babel/benchmarks"), "smoke", {"checkpoints": [f"Babel-9B={runs}/model", f"Qwen2.5-7B={runs}/model"]})
    assert record["status"] == "done", record["reason"]
    rows = {(m["model"], m["dataset"], m["language"]): m for m in record["metrics"] if not m["variant"]}
    assert rows["Babel-9B", "XCOPA", "all"]["n"] == 20 and ("Qwen2.5-7B", "MGSM", "all") in rows
    claims = {c["id"]: c for c in record["claims"]}
    assert claims["babel.table4.xcopa"]["verdict"] == "inconclusive" and claims["babel.table4.xcopa"]["value"] == 0  # the same model twice
    assert claims["babel.table4.mean"]["verdict"] == "not run"


@pytest.mark.parametrize("id", ["babel/benchmarks", "babel/sft_mix"])
def test_paper_tier_is_skipped_with_a_reason(id, runs):
    record, _, _ = run_recipe(get_recipe(id), "paper")  # without a GPU, or with one and no checkpoint
    assert record["status"] == "skipped" and ("GPU" in record["reason"] or "-p checkpoint" in record["reason"])


def test_the_benchmark_says_how_to_get_its_peer(tmp_path):
    done = subprocess.run([sys.executable, ROOT / "benchmarks/likelihood.py", "--limit", "1", "--peer-python", sys.executable], capture_output=True, text=True)
    if done.returncode and "has no lm_eval" not in done.stderr:
        pytest.fail(done.stderr)
    assert done.returncode == 0 or "-m pip install lm-eval==" in done.stderr
