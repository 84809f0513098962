"The runner under faults: crashes, kills, Ctrl-C, missing data, wrong parameters; and resuming after each."
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from toy import executed

from paper_digest import records, runs
from paper_digest.core import UserError
from paper_digest.recipes import get_recipe


def digest(*words, **kw):
    "Run the command line to its end."
    return subprocess.run([sys.executable, "-m", "paper_digest.cli", *map(str, words)], capture_output=True, text=True, **kw)


def start(*words):
    "Start the command line and leave it running; it hears Ctrl-C even where the tests run in the background and do not."
    return subprocess.Popen([sys.executable, "-m", "paper_digest.cli", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_for(condition, seconds=60):
    until = time.time() + seconds
    while not condition():
        assert time.time() < until, "did not happen in time"
        time.sleep(0.1)


def kernels(root):
    "Processes that work for a run under `root`."
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            env = open(f"/proc/{pid}/environ", "rb").read()
            state = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"PAPER_DIGEST_JOB={root}".encode() in env and state != "Z":
            found.append(int(pid))
    return found


def test_record_has_the_contracted_fields(repo):
    repo(a="")
    record, folder, reused = runs.run_recipe(get_recipe("hot/a"))
    assert record["status"] == "done" and not reused, record["reason"]
    assert list(record) == ["schema", "paper", "recipe", "tier", "status", "reason", "params", "seeds", "git_commit",
                            "versions", "device", "cores", "started", "seconds", "peak_rss_mb", "metrics", "claims"]
    assert set(record["metrics"][0]) == {"table", "model", "variant", "dataset", "language", "metric", "value", "n", "ci_low",
                                         "ci_high", "seeds", "scoring"}
    assert {"id", "claim", "paper_value", "value", "ci_low", "ci_high", "verdict", "evidence"} <= set(record["claims"][0])
    assert record["claims"][0]["verdict"] == "reproduced" and record["claims"][0]["paper_value"] == 1.6
    assert folder.name == f"tiny-{folder.name[-8:]}" and json.loads((folder / "record.json").read_text()) == record


def test_unchanged_is_reused_and_changed_is_not(repo):
    root = repo(a="")
    assert digest("run", "hot/a").returncode == 0
    assert "reused" in digest("run", "hot/a").stderr
    assert executed(root) == ["a"]
    assert digest("run", "hot/a", "--seed", 1).returncode == 0
    assert digest("run", "hot/a", "--force").returncode == 0
    assert executed(root) == ["a"] * 3
    source = root / "nbs/recipes/hot/a.ipynb"
    source.write_text(source.read_text().replace("a toy", "another toy"))
    assert digest("run", "hot/a").returncode == 0
    assert executed(root) == ["a"] * 4


@pytest.mark.parametrize("words, says", [
    (["-p", "second", "1"], "did you mean seconds?"),
    (["-p", "seconds", "fast"], "takes float such as 0.0, got 'fast'"),
    (["-p", "seconds"], "-p takes a NAME and a VALUE"),
    (["--tier", "huge"], "huge"),
    (["--tier", "paper"], "it has smoke, tiny, gpu"),
    (["--seed", "x"], "--seed"),
])
def test_bad_parameters_end_with_2_before_anything_starts(repo, words, says):
    root = repo(a="")
    r = digest("run", "hot/a", *words)
    assert r.returncode == 2 and says in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert executed(root) == [] and not (root / "runs").exists()


def test_a_failed_recipe_keeps_its_notebook_and_does_not_stop_the_others(repo):
    root = repo(a="raise ValueError('no luck')", b="", c="")
    r = digest("reproduce", "--jobs", 2)
    assert r.returncode == 1, r.stderr
    assert "hot/a tiny: failed: ValueError: no luck" in r.stdout
    assert sorted(executed(root)) == ["a", "b", "c"]
    folder = next((root / "runs/hot/a").iterdir())
    assert "no luck" in (folder / "notebook.ipynb").read_text()
    assert json.loads((folder / "record.json").read_text())["status"] == "failed"
    again = digest("reproduce")
    assert sorted(executed(root)) == ["a", "a", "b", "c"] and again.returncode == 1     # only the failed one runs again


def test_a_recipe_may_skip_itself(repo):
    repo(a="raise SkipRecipe('needs a kettle; run `fill kettle`')")
    r = digest("reproduce")
    assert r.returncode == 0 and "skipped: needs a kettle; run `fill kettle`" in r.stdout


def test_missing_data_skips_with_the_cure_and_still_shows_the_published_table(repo, monkeypatch, tmp_path):
    root = repo(data="hot_judge_pool", a="")
    monkeypatch.setenv("PAPER_DIGEST_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("PAPER_DIGEST_CACHE", str(tmp_path / "cache"))
    r = digest("reproduce")
    assert r.returncode == 0, r.stderr
    assert "skipped: 4 data files are not on this machine" in r.stdout and "paper-digest data pull hot_judge_pool" in r.stdout
    assert "1.6" in r.stdout and "not run" in r.stdout
    assert executed(root) == []


def test_gpu_tier_without_gpu_is_skipped_never_run_elsewhere(repo):
    import torch
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    root = repo(a="")
    r = digest("run", "hot/a", "--tier", "gpu")
    assert r.returncode == 0 and "skipped: tier gpu needs a CUDA GPU" in r.stderr and executed(root) == []


def test_a_lost_parameters_tag_is_found(repo):
    root = repo(a="")
    source = root / "nbs/recipes/hot/a.ipynb"
    source.write_text(source.read_text().replace('"parameters"', '"params"'))
    r = digest("run", "hot/a")
    assert r.returncode == 2 and "0 cells are tagged parameters" in r.stderr


def test_parameters_that_did_not_arrive_are_found(repo, monkeypatch, tmp_path):
    repo(a="")
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"id": "hot/a", "params": {"tier": "tiny", "seed": 5, "seconds": 0.0}}))
    monkeypatch.setenv("PAPER_DIGEST_JOB", str(job))
    with pytest.raises(UserError, match="did not take effect"):
        records.start_run("hot/a", tier="tiny", seed=0, seconds=0.0)


def test_kill_9_of_the_command_then_resume(repo):
    root = repo(a="", b="")
    p = start("reproduce", "--jobs", 1)
    wait_for(lambda: len(executed(root)) == 1)
    wait_for(lambda: any((root / "runs/hot/a").glob("*/record.json")))
    p.kill(), p.wait()
    # whatever was running ends with it, leaving no process and no half record
    wait_for(lambda: not kernels(root), 60)
    r = digest("reproduce")
    assert r.returncode == 0, r.stderr
    assert executed(root).count("a") == 1 and "hot/a tiny: unchanged, reused" in r.stdout


def test_kill_9_in_the_middle_of_a_recipe_then_resume(repo):
    root = repo(a="")
    p = start("run", "hot/a", "-p", "seconds", "30")
    wait_for(lambda: executed(root) == ["a"])
    p.kill(), p.wait()
    wait_for(lambda: not kernels(root), 60)
    folder = next((root / "runs/hot/a").iterdir())
    assert not (folder / "record.json").exists()
    r = digest("run", "hot/a", "-p", "seconds", "0.2")
    assert r.returncode == 0 and executed(root) == ["a", "a"]


def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(repo):
    root = repo(a="time.sleep(60)", b="")
    p = start("reproduce", "--jobs", 2)
    wait_for(lambda: sorted(executed(root)) == ["a", "b"] and any((root / "runs/hot/b").glob("*/record.json")))
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=90)
    assert p.returncode == 130 and "the same command goes on from there" in err
    wait_for(lambda: not kernels(root), 60)


def test_a_killed_worker_leaves_a_failed_record(repo):
    root = repo(a="import os, signal; os.kill(os.getppid(), signal.SIGKILL); time.sleep(5)")
    record, folder, _ = runs.run_recipe(get_recipe("hot/a"))
    assert record["status"] == "failed" and "ended with status -9" in record["reason"]


def test_two_commands_do_not_run_one_recipe_at_once(repo):
    root = repo(a="")
    p = start("run", "hot/a", "-p", "seconds", "20")
    wait_for(lambda: executed(root) == ["a"])
    r = digest("run", "hot/a", "-p", "seconds", "20")
    assert r.returncode == 2 and "another process is running" in r.stderr
    p.send_signal(signal.SIGINT), p.wait()


def test_a_notebook_without_finish_is_a_failure(repo):
    repo(a="raise SystemExit")
    record, _, _ = runs.run_recipe(get_recipe("hot/a"))
    assert record["status"] == "failed"


def test_yaml_faults_name_the_file(repo):
    root = repo(a="")
    yaml = root / "nbs/recipes/hot/a.yaml"
    good = yaml.read_text()
    for bad, says in [("title: x", "needs at least title and tiers"), (good + "colour: red\n", "unknown key colour"),
                      (good.replace("tiny:", "huge:"), "unknown tier 'huge'"),
                      (good.replace("dataset: arithmetic", "dataset: algebra"), "names 0 rows")]:
        yaml.write_text(bad)
        r = digest("claims")
        assert r.returncode == 2 and says in r.stderr, r.stderr
