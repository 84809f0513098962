"The command line as a person meets it: exit codes, one-line errors, speed, from any folder."
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(sys.executable).parent / "paper-digest"


def digest(*words, **kw):
    return subprocess.run([PROGRAM, *map(str, words)], capture_output=True, text=True, **kw)


@pytest.mark.parametrize("words", [["--help"], ["list"]])
def test_answers_within_a_second(words, tmp_path):
    times = []
    for _ in range(3):
        begun = time.time()
        assert digest(*words, cwd=tmp_path).returncode == 0
        times.append(time.time() - begun)
    assert min(times) <= 1.0, times


@pytest.mark.parametrize("words", [[], ["run"], ["reproduce"], ["table"], ["claims"], ["report"], ["data"], ["data", "pull"],
                                   ["data", "list"], ["data", "verify"], ["hot"], ["hot", "parse"], ["hot", "ask"], ["self-rewarding"],
                                   ["self-rewarding", "pairs"], ["list"]])
def test_help_everywhere(words, tmp_path):
    r = digest(*words, "--help", cwd=tmp_path)
    assert r.returncode == 0 and "Usage:" in r.stdout


@pytest.mark.parametrize("words, says", [
    (["run", "hot/mian"], "did you mean hot/main"),
    (["run", "llama/main"], "no recipe"),
    (["run", "hot/main", "--tier", "gpu"], "it has smoke, tiny"),
    (["run", "hot/main", "-p", "item", "3"], "did you mean items"),
    (["run", "hot/main", "-p", "items", "[1"], "cannot read a value"),
    (["table", "hot/mian"], "did you mean"),
    (["table", "hot/main", "--format", "xml"], "xml"),
    (["claims", "--paper", "llama"], "choose one of"),
    (["list", "--paper", "llama"], "choose one of"),
    (["reproduce", "--jobs", "0"], "--jobs"),
    (["reproduce", "--paper", "abc", "--launcher", "moon"], "moon"),
    (["reproduce", "--address", "10.0.0.1:6379"], "--address needs --launcher ray"),
    (["reproduce", "--launcher", "ray", "--jobs", "2"], "--jobs is of the local launcher"),
    (["reproduce", "--launcher", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at 127.0.0.1:1"),
    (["reproduce", "--seeds", "0"], "--seeds"),
    (["data", "pull", "nothing"], "unknown data set"),
    (["data", "verify", "nothing"], "unknown data set"),
    (["report", "--out", "no/such/folder/r.html"], "is not a folder"),
    (["hot", "parse", "no_such_file.csv"], "no_such_file.csv"),
    (["self-rewarding", "pairs", "--model", "m", "--problems", "none.jsonl", "--out", "o.jsonl"], "cannot read none.jsonl"),
    (["nonsense"], "No such command"),
    (["run"], "Missing argument"),
])
def test_bad_usage_is_one_line_and_status_2(words, says, tmp_path):
    r = digest(*words, cwd=tmp_path)
    assert r.returncode == 2, (r.stdout, r.stderr)
    assert says in r.stderr and len(r.stderr.strip().splitlines()) == 1 and "Traceback" not in r.stderr, r.stderr


def test_list_json_has_what_a_program_needs(tmp_path):
    rows = json.loads(digest("list", "--json", cwd=tmp_path).stdout)
    main = next(r for r in rows if r["recipe"] == "hot/main")
    assert main["headline"] and main["tiers"]["tiny"]["minutes"] > 0 and "hot_responses" in main["data"]
    assert set(main) >= {"recipe", "reproduces", "tiers", "data", "data_missing"}


def test_module_is_the_program(tmp_path):
    r = subprocess.run([sys.executable, "-m", "paper_digest.cli", "list"], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 0 and "hot/main" in r.stdout


def test_outside_a_checkout_it_says_so(tmp_path):
    r = digest("list", cwd=tmp_path, env={**os.environ, "PAPER_DIGEST_ROOT": str(tmp_path)})
    assert r.returncode == 2 and "is not a paper_digest checkout" in r.stderr


def test_hot_parse_from_standard_input(tmp_path):
    line = json.dumps({"question": "Ann has 3 pens and buys 2. How many?", "response":
                       "Reformatted Question: Ann has <fact1>3 pens</fact1> and buys <fact2>2</fact2>. How many?\n\n"
                       "Answer: <fact1>3</fact1> + <fact2>2</fact2> = 5. The answer is {5}."})
    r = digest("hot", "parse", "-", "--jsonl", tmp_path / "out.jsonl", "--html", tmp_path / "out.html", cwd=tmp_path, input=line + "\n")
    assert r.returncode == 0, r.stderr
    assert "1 responses" in r.stdout
    parsed = json.loads((tmp_path / "out.jsonl").read_text())
    assert parsed["final_answer"] == "5" and len(parsed["facts"]) == 4
    assert "<fact1>" not in (tmp_path / "out.html").read_text().split("<script", 1)[0]


def test_table_without_a_run_shows_what_the_paper_prints(tmp_path):
    env = {**os.environ, "PAPER_DIGEST_RUNS": str(tmp_path / "runs")}
    rows = json.loads(digest("table", "hot/main", "--format", "json", cwd=tmp_path, env=env).stdout)
    assert sum(r["table"] == "arithmetic" for r in rows) >= 88
    for format in ("md", "csv", "html"):
        assert "93.93" in digest("table", "hot/main", "--format", format, cwd=tmp_path, env=env).stdout


def test_claims_json(tmp_path):
    rows = json.loads(digest("claims", "--format", "json", cwd=tmp_path).stdout)
    assert rows and {"id", "claim", "published", "measured", "ci_low", "ci_high", "verdict", "evidence"} <= set(rows[0])
    assert {r["verdict"] for r in rows} <= {"reproduced", "not reproduced", "inconclusive", "not run"}
    assert not [r for r in rows if r["verdict"] == "reproduced" and (r["ci_low"] is None or r["ci_low"] <= 0 <= r["ci_high"])]


def test_report_is_one_file_that_loads_nothing(tmp_path):
    r = digest("report", "--out", "r.html", cwd=tmp_path)
    assert r.returncode == 0, r.stderr
    page = (tmp_path / "r.html").read_text()
    assert "src=\"http" not in page and "<link" not in page and "<script" not in page and "StrategyQA" in page
