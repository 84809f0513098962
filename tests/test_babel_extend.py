"Layer extension from the command line: whole on all layouts, one line for every fault, nothing half left behind."
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "paper-digest"
SHAPE = dict(vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64)


def save(folder, kind="qwen2", shard="100KB", **extra):
    "A random model, saved as bf16 in shards."
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{"model_type": kind, **SHAPE, **extra}))
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def digest(*words, **kw):
    return subprocess.run([PROGRAM, "babel", *map(str, words)], capture_output=True, text=True, **kw)


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    "About 70 MB in many shards: long enough to be interrupted."
    return save(tmp_path_factory.mktemp("large") / "model", shard="8MB", hidden_size=512, intermediate_size=2048, num_hidden_layers=8)


@pytest.mark.parametrize("kind, extra", [("llama", {}), ("qwen2", {"tie_word_embeddings": True}), ("qwen3", {"head_dim": 16}),
                                         ("mistral", {"shard": "1GB"})], ids=["llama", "qwen2-tied", "qwen3", "mistral-one-file"])
def test_extend_verify_remove(kind, extra, tmp_path):
    src = save(tmp_path / "base", kind, **extra)
    before = contents(src)
    r = digest("extend", src, tmp_path / "grown", "--preset", "babel_like:1", "--init", "zero_out", "--figure", tmp_path / "plan.png")
    assert r.returncode == 0 and "4 layers -> 5" in r.stdout and "+ layer 3" in r.stdout, r.stderr
    assert (tmp_path / "plan.png").stat().st_size > 2000
    from paper_digest.babel.verify import verify_extension
    result = verify_extension(src, tmp_path / "grown")
    assert result.passed and "largest difference 0," in str(result), str(result)
    r = digest("remove", tmp_path / "grown", tmp_path / "back")
    assert r.returncode == 0 and contents(tmp_path / "back") == before == contents(src), r.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "base", "grown", "plan.png"]


def test_verify_says_no_with_status_1(base, tmp_path):
    assert digest("extend", base, tmp_path / "grown", "--positions", "1").returncode == 0
    r = digest("verify", base, tmp_path / "grown")
    assert r.returncode == 0 and r.stdout.strip().endswith("\nverified"), r.stdout + r.stderr
    manifest = tmp_path / "grown/extension.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    r = digest("verify", base, tmp_path / "grown", "--bytes-only")
    assert r.returncode == 1 and "FAILED" in r.stdout and "not verified" in r.stdout


def test_dry_run_writes_nothing(base, tmp_path):
    r = digest("extend", base, tmp_path / "grown", "--preset", "append:2", "--dry-run")
    assert r.returncode == 0 and "KV cache" in r.stdout and "nothing written" in r.stdout and not list(tmp_path.iterdir())


def truncate(folder):
    file = sorted(folder.glob("*.safetensors"))[1]
    os.truncate(file, file.stat().st_size - 100)


def lose_a_shard(folder):
    sorted(folder.glob("*.safetensors"))[1].unlink()


def second_head(folder):
    "A tied model whose head is saved as well."
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))


def other_layout(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))


def no_weights(folder):
    for f in folder.glob("model*"):
        f.unlink()


def broken_index(folder):
    (folder / "model.safetensors.index.json").write_text("{")


@pytest.mark.parametrize("damage, words, says", [
    (truncate, [], "truncated"), (lose_a_shard, [], "which is not there"), (second_head, [], "lm_head.weight is saved as well"),
    (other_layout, [], "'gpt2' is not supported"), (no_weights, [], "holds neither"), (broken_index, [], "not an index"),
    (None, ["--positions", "4"], "numbered 0 to 3"), (None, ["--positions", "0", "--index-base", "1"], "numbered 1 to 4"),
    (None, ["--positions", "1,x"], "not a whole number"), (None, ["--preset", "babel_9b"], "this one has 4"),
    (None, ["--preset", "babel"], "unknown preset"), (None, ["--preset", "append:1", "--init", "random"], "unknown initialisation"),
    (None, ["--preset", "append:1", "--init", "copy", "--noise-std", "1"], "no effect on copy"),
    (None, ["--preset", "append:1", "--noise", "mean"], "unknown reading"), (None, [], "give either"),
    (None, ["--preset", "append:1", "--figure", "plan.xyz"], "no format"),
], ids=lambda x: x.__name__ if callable(x) else None)
def test_one_line_for_every_fault(damage, words, says, base, tmp_path):
    src = tmp_path / "base"
    shutil.copytree(base, src)
    if damage:
        damage(src)
        words = ["--preset", "babel_like:1"]
    before = contents(src)
    r = digest("extend", src, tmp_path / "grown", *words)
    assert r.returncode == 2 and says in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert contents(src) == before and [p.name for p in tmp_path.iterdir()] == ["base"]


def test_nothing_is_overwritten(base, tmp_path):
    (tmp_path / "here").mkdir()
    for words in (["extend", base, tmp_path / "here", "--preset", "append:1"], ["remove", base, tmp_path / "here"],
                  ["extend", base, base / "inside", "--preset", "append:1"], ["extend", tmp_path / "no", tmp_path / "x", "--preset", "append:1"]):
        r = digest(*words)
        assert r.returncode == 2 and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert list((tmp_path / "here").iterdir()) == []


def test_a_killed_run_goes_on(large, tmp_path):
    words = ["extend", str(large), str(tmp_path / "grown"), "--preset", "after:0,1,2,3,4,5,6,7"]
    before = contents(large)
    for wanted in (1, 12):  # killed twice: early, and among the shards with noise
        child = subprocess.Popen([PROGRAM, "babel", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        begun = time.time()
        while len(list((tmp_path / "grown.partial").glob("*.safetensors"))) < wanted and child.poll() is None and time.time() - begun < 60:
            time.sleep(0.002)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it was done before it could be killed"
        assert not (tmp_path / "grown").exists()
    r = digest(*words)
    assert r.returncode == 0 and "taken over from an interrupted run" in r.stdout, r.stderr
    assert digest("extend", large, tmp_path / "straight", *words[3:]).returncode == 0
    assert contents(tmp_path / "grown") == contents(tmp_path / "straight") and contents(large) == before
    assert not (tmp_path / "grown.partial").exists()


def test_two_runs_into_one_folder(large, tmp_path):
    words = ["extend", str(large), str(tmp_path / "grown"), "--preset", "after:0,1,2,3,4,5,6,7"]
    first = subprocess.Popen([PROGRAM, "babel", *words], stdout=subprocess.DEVNULL)
    while not (tmp_path / "grown.partial/job.json").is_file():
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGSTOP)  # held while it works
    r = digest(*words)
    os.kill(first.pid, signal.SIGCONT)
    assert r.returncode == 2 and "another run is writing" in r.stderr
    assert first.wait() == 0


def test_file_size_limit_leaves_nothing(large, tmp_path):
    before = contents(large)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
    r = digest("extend", large, tmp_path / "grown", "--preset", "append:1", preexec_fn=limit)
    assert r.returncode == 2 and "nothing of it is left" in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert list(tmp_path.iterdir()) == [] and contents(large) == before


def test_full_disk_leaves_nothing(large, tmp_path):
    "A real file system of 40 MB, where this user may mount one."
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = ('mount -t tmpfs -o size=40m tmpfs "$1" && python - "$2" "$1"/grown <<E\n'
              "import sys, os\nfrom paper_digest.babel import extend, write\nextend.check_room = lambda *a: None\n"  # as if it filled up later
              "from paper_digest.core import UserError\n"
              "try: extend.extend_checkpoint(sys.argv[1], sys.argv[2], 'append:1')\n"
              "except UserError as err: print(err, os.listdir(os.path.dirname(sys.argv[2])))\nE")
    r = subprocess.run(["unshare", "-rm", "bash", "-c", inside, "-", disk, large], capture_output=True, text=True)
    if "mount" in r.stderr or "unshare" in r.stderr:
        pytest.skip("no file system can be mounted here")
    assert "No space left on device" in r.stdout and r.stdout.strip().endswith("[]"), r.stdout + r.stderr


def test_room_is_looked_at_first(tmp_path):
    "A checkpoint with embeddings larger than the disk (the files are sparse and take no room)."
    src = save(tmp_path / "base", shard="40KB")  # small enough for the embeddings to stand alone
    index = json.loads((src / "model.safetensors.index.json").read_text())["weight_map"]
    rows = shutil.disk_usage(tmp_path).free // 128 + 1000
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        header = json.dumps({name: {"dtype": "BF16", "shape": [rows, 64], "data_offsets": [0, rows * 128]}}).encode()
        (src / index[name]).write_bytes(len(header).to_bytes(8, "little") + header)
        try:
            os.truncate(src / index[name], 8 + len(header) + rows * 128)
        except OSError:
            pytest.skip("this file system has no sparse files of that size")
    config = json.loads((src / "config.json").read_text())
    (src / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    r = digest("extend", src, tmp_path / "grown", "--preset", "append:1")
    assert r.returncode == 2 and "GB are free" in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["base"]
