"Corpus cleaning from the command line: all in, all accounted for, one line for bad input, the same on datatrove."
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from paper_digest import data
from paper_digest.core import UserError

PROGRAM = Path(sys.executable).parent / "paper-digest"
HUNDRED = "The weather was fine in the morning, so the children walked to the river with their teacher and counted the boats. "
FILES = {"kept.jsonl", "dropped.jsonl", "funnel.csv", "funnel.png"}


def clean(*words, **kw):
    return subprocess.run([PROGRAM, "babel", "clean", *map(str, words)], capture_output=True, text=True, **kw)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def here():
    if lost := data.missing(["multilingual"]):
        pytest.skip(f"{len(lost)} data files are missing: run `paper-digest data pull multilingual`")


@pytest.fixture(scope="module")
def corpus(here, tmp_path_factory):
    "Two files in four languages: good documents, and one for each step to drop."
    thai, test = data.load("multilingual", "sib200/th/train.tsv")["text"], data.load("multilingual", "sib200/th/test.tsv")["text"]
    prose, other = " ".join(thai[10:14]), " ".join(thai[:4])
    german = "Das Wetter war am Morgen schön, und die Kinder gingen mit ihrer Lehrerin zum Fluss, um die Boote zu zählen. "
    keywords = ", ".join(sorted(set(" ".join(data.load("multilingual", "sib200/en/train.tsv")["text"][:40]).split()), key=len)[-60:])
    rows = [("kept", "en", HUNDRED), ("again", "en", HUNDRED.upper()), ("short", "en", "Too short, this one is."), ("german", "en", german * 2),
            ("thai", "th", prose), ("test", "th", other[:200] + test[5] + other[200:400]), ("keywords", "en", keywords),
            ("near", "th", prose[:-2]), ("half", "en", "\n".join([*data.load("multilingual", "sib200/en/train.tsv")["text"][50:54], *data.load("multilingual", "sib200/de/train.tsv")["text"][60:63]])),
            ("burmese", "my", " ".join(data.load("multilingual", "sib200/my/train.tsv")["text"][:3]))]
    folder = tmp_path_factory.mktemp("corpus")
    for name, part in (("a.jsonl", rows[:5]), ("b.jsonl", rows[5:])):
        (folder / name).write_text("".join(json.dumps({"id": i, "language": c, "text": t}) + "\n" for i, c, t in part), encoding="utf-8")
    return [folder / "a.jsonl", folder / "b.jsonl"]


@pytest.fixture(scope="module")
def cleaned(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "clean"
    before = [f.read_bytes() for f in corpus]
    r = clean(*corpus, "--out", out)
    assert r.returncode == 0, r.stderr
    assert [f.read_bytes() for f in corpus] == before and {f.name for f in out.iterdir()} == FILES
    return out


def test_files_in_and_out(cleaned):
    kept = {d["id"]: d for d in lines(cleaned / "kept.jsonl")}
    assert set(kept) == {"kept", "thai", "keywords", "half", "burmese"}
    assert {d["id"]: d["step"] for d in lines(cleaned / "dropped.jsonl")} == {
        "again": "exact", "short": "rules", "german": "language", "test": "overlap", "near": "near"}
    assert "de" in kept["half"]["mixed"] and "mixed" not in kept["kept"]       # flagged and kept
    assert (cleaned / "funnel.png").stat().st_size > 2000 and "kept_share" in (cleaned / "funnel.csv").read_text()


def test_the_quality_step_is_optional(corpus, tmp_path):
    from paper_digest.babel.quality import dealt, damaged, fit, with_limits, write_quality
    rows = damaged({"en": dealt("en", "train", 20)}, ["keywords", "menu"])
    model = fit([t for _, _, t in rows], [not kind for _, kind, _ in rows])
    write_quality(with_limits(model, {c: dealt("en", "limits", 20) for c in ("en", "th", "my")}), tmp_path / "own.npz")
    r = clean(*corpus, "--out", tmp_path / "out", "--quality", tmp_path / "own.npz", "--no-tests")
    assert r.returncode == 0, r.stderr
    dropped = {d["id"]: d["step"] for d in lines(tmp_path / "out/dropped.jsonl")}
    assert dropped["keywords"] == "quality" and "overlap" not in dropped.values()
    (tmp_path / "other.npz").write_bytes(b"something else")
    r = clean(*corpus, "--out", tmp_path / "more", "--quality", tmp_path / "other.npz")
    assert r.returncode == 2 and "not a quality classifier" in r.stderr and len(r.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name, content, words, says", [
    ("a.jsonl", b'{"text": "caf\xe9", "language": "fr"}', [], "not UTF-8 at byte 13"),
    ("a.jsonl", b'{"text": "x", "language": "xx"}', [], "unknown language 'xx'"),
    ("a.jsonl", b'{"text": "x"}', [], "give --language"), ("a.jsonl", b'{"text": ', [], "not a JSON object"),
    ("a.jsonl", b"\n", [], "no document"), ("a.txt", b"eins\n", [], "--language sw"),
    ("a.txt", b"eins\n", ["--language", "ger"], "unknown language 'ger'"), ("a.pdf", b"x", [], "give a .jsonl file"),
], ids=lambda x: x if isinstance(x, str) else None)
def test_one_line_for_every_fault(name, content, words, says, tmp_path):
    (tmp_path / name).write_bytes(content)
    r = clean(tmp_path / name, "--out", tmp_path / "out", *words)
    assert r.returncode == 2 and says in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == content


def test_a_full_disk_leaves_nothing(corpus, tmp_path):
    before = [f.read_bytes() for f in corpus]

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    r = clean(*corpus, "--out", tmp_path / "out", preexec_fn=limit)
    assert r.returncode == 2 and "nothing of it is left, the sources are untouched" in r.stderr, r.stderr
    assert len(r.stderr.strip().splitlines()) == 1 and list(tmp_path.iterdir()) == [] and [f.read_bytes() for f in corpus] == before


def test_a_killed_run_is_begun_anew(corpus, cleaned, tmp_path):
    "Killed while it writes: only the folder of the other name is left, and the next run does not mind it."
    stop = ("import os, signal, sys\nfrom pathlib import Path\nfrom paper_digest.babel import clean\nwrite = clean.write_atomic\n"
            "def once(path, text):\n    write(path, text)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
            "clean.write_atomic = once\nclean.clean_files([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]))")
    r = subprocess.run([sys.executable, "-c", stop, tmp_path / "out", *corpus], capture_output=True, text=True)
    assert r.returncode == -signal.SIGKILL and [p.name for p in tmp_path.iterdir()] == [".out.part"], r.stderr
    r = clean(*corpus, "--out", tmp_path / "out")
    assert r.returncode == 0 and [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/kept.jsonl").read_bytes() == (cleaned / "kept.jsonl").read_bytes()
    r = clean(*corpus, "--out", tmp_path / "out")
    assert r.returncode == 2 and "is not overwritten" in r.stderr


def same(one, other):
    return [n for n in FILES - {"funnel.png"} if (one / n).read_bytes() != (other / n).read_bytes()] == []


def test_datatrove_gives_the_same_files(corpus, cleaned, tmp_path):
    pytest.importorskip("datatrove")
    r = clean(*corpus, "--out", tmp_path / "out", "--datatrove", "local")
    assert r.returncode == 0 and r.stderr == "", r.stderr
    assert same(tmp_path / "out", cleaned) and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_datatrove_goes_on_after_an_interruption(corpus, cleaned, tmp_path):
    "Stopped after the first stage: its task is not run again."
    pytest.importorskip("datatrove")
    from paper_digest.babel import blocks
    settings = {"executor": "local", "workers": 1}
    blocks.executors([p.resolve() for p in corpus], tmp_path / "out", tmp_path / "work", settings)[0].run()
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "work/verdicts").rglob("*.jsonl")}
    for stage in blocks.executors([p.resolve() for p in corpus], tmp_path / "out", tmp_path / "work", settings):
        stage.run()
    assert written and {p: p.stat().st_mtime_ns for p in (tmp_path / "work/verdicts").rglob("*.jsonl")} == written
    assert same(tmp_path / "out", cleaned)


def test_bad_input_on_datatrove_is_one_line(tmp_path):
    pytest.importorskip("datatrove")
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9", "language": "fr"}')
    r = clean(tmp_path / "a.jsonl", "--out", tmp_path / "out", "--datatrove", "local")
    assert r.returncode == 2 and "not UTF-8 at byte 13" in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr
    assert not (tmp_path / "out").exists()


def test_slurm_jobs_run_what_they_are_given(corpus, cleaned, tmp_path, monkeypatch):
    "The launch scripts and the pickled stages are real; the scheduler is a shell script that runs each task of an array in turn."
    pytest.importorskip("datatrove")
    from paper_digest.babel import blocks
    place = tmp_path / "bin"
    place.mkdir()
    (place / "sbatch").write_text("#!/bin/bash\nscript=${!#}\necho \"$@\" >> " + f"{tmp_path}/asked\n"
                                  "last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' $script)\n"
                                  "for i in $(seq 0 $last); do SLURM_ARRAY_TASK_ID=$i SLURM_NODELIST=here bash $script >> " + f"{tmp_path}/log 2>&1 || exit 1; done\n"
                                  "echo Submitted batch job $RANDOM\n")
    (place / "scontrol").write_text("#!/bin/bash\necho here\n")
    for f in place.iterdir():
        f.chmod(f.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{place}:{PROGRAM.parent}:{os.environ['PATH']}")
    (tmp_path / "slurm.yaml").write_text("executor: slurm\ntime: '00:10:00'\npartition: cpu\nwith_srun: false\ntasks_per_job: 25\n")
    assert blocks.clean_distributed(corpus, tmp_path / "out", launch=str(tmp_path / "slurm.yaml")) is None
    assert same(tmp_path / "out", cleaned), (tmp_path / "log").read_text()[-1500:]
    assert (tmp_path / "asked").read_text().count("afterok") >= 2      # the stages wait for each other


@pytest.mark.skipif("PAPER_DIGEST_RAY" not in os.environ, reason="starts a Ray cluster, which may take minutes: set PAPER_DIGEST_RAY=1")
def test_ray_gives_the_same_files(corpus, cleaned, tmp_path):
    pytest.importorskip("datatrove")
    pytest.importorskip("ray")
    (tmp_path / "ray.yaml").write_text("executor: ray\nmem_per_cpu_gb: 0.2\ntasks_per_job: 25\n")
    run = ("import sys, ray\nfrom pathlib import Path\nfrom paper_digest.babel.blocks import clean_distributed\n"
           "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"
           "clean_distributed([Path(p) for p in sys.argv[3:]], Path(sys.argv[1]), launch=sys.argv[2])")
    r = subprocess.run([sys.executable, "-c", run, tmp_path / "out", tmp_path / "ray.yaml", *corpus], capture_output=True, text=True, timeout=240)
    assert r.returncode == 0, r.stderr[-1500:]
    assert same(tmp_path / "out", cleaned)


def test_without_datatrove_one_line_says_how_to_get_it(corpus, tmp_path):
    (tmp_path / "datatrove").mkdir()
    (tmp_path / "datatrove/__init__.py").write_text("raise ImportError('not here')")
    r = clean(corpus[0], "--out", tmp_path / "out", "--datatrove", "local", env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"})
    assert r.returncode == 2 and "pip install -e '.[corpus]'" in r.stderr and len(r.stderr.strip().splitlines()) == 1, r.stderr


def test_a_judge_behind_a_server(here):
    "A real model that never learnt to judge: its answers cannot be read, and that is said."
    import threading
    from servers import Local, serving
    from paper_digest.babel.judge import fit_judged, judge
    from paper_digest.babel.rules import Document
    from paper_digest.generate import TransformersBackend
    from paper_digest.models import tiny_qwen2, word_tokenizer
    from paper_digest.served import Endpoint, ServedBackend
    words = word_tokenizer(sorted({*HUNDRED, *"abcdefghijklmnopqrstuvwxyz:0123456789\n "}))
    backend = TransformersBackend(tiny_qwen2(len(words), positions=2048), words, "toy")
    with serving(Local, backend=backend, lock=threading.Lock()) as (url, _):
        judged = judge(ServedBackend(Endpoint(url, "toy")), [Document("1", "en", HUNDRED), Document("2", "en", HUNDRED[::-1])])
    assert [j.document.id for j in judged] == ["1", "2"] and all(j.scores is None for j in judged)
    with pytest.raises(UserError, match="none of 2 answers of the judge could be read"):
        fit_judged(judged)
