"Corpus cleaning from the command line: all in, all accounted for, one line for bad input."
import json
import subprocess
import sys
from pathlib import Path

import pytest

from paper_digest import data

PROGRAM = Path(sys.executable).parent / "paper-digest"
HUNDRED = "The weather was fine in the morning, so the children walked to the river with their teacher and counted the boats. "


def clean(*words, **kw):
    return subprocess.run([PROGRAM, "babel", "clean", *map(str, words)], capture_output=True, text=True, **kw)


@pytest.fixture(scope="module")
def here():
    if lost := data.missing(["multilingual"]):
        pytest.skip(f"{len(lost)} data files are missing: run `paper-digest data pull multilingual`")


def test_files_in_and_out(here, tmp_path):
    test = data.load("multilingual", "sib200/th/test.tsv")["text"]
    lines = data.load("multilingual", "sib200/th/train.tsv")["text"]
    prose, other = " ".join(lines[10:14]), " ".join(lines[:4])
    rows = [{"id": "kept", "language": "en", "text": HUNDRED}, {"id": "again", "language": "en", "text": HUNDRED.upper()},
            {"id": "short", "language": "en", "text": "Too short, this one is."}, {"id": "german", "language": "en",
             "text": "Das Wetter war am Morgen schön, und die Kinder gingen mit ihrer Lehrerin zum Fluss, um die Boote zu zählen. " * 2},
            {"id": "thai", "language": "th", "text": prose}, {"id": "test", "language": "th", "text": other[:200] + test[5] + other[200:400]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    r = clean(tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert r.returncode == 0, r.stderr
    kept = [json.loads(line)["id"] for line in (tmp_path / "out/kept.jsonl").read_text(encoding="utf-8").splitlines()]
    dropped = {d["id"]: d["step"] for d in map(json.loads, (tmp_path / "out/dropped.jsonl").read_text(encoding="utf-8").splitlines())}
    assert kept == ["kept", "thai"]
    assert dropped == {"again": "exact", "short": "rules", "german": "language", "test": "overlap"}
    assert (tmp_path / "out/funnel.png").stat().st_size > 2000 and "kept_share" in (tmp_path / "out/funnel.csv").read_text()


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
    assert not (tmp_path / "out").exists()
