"Data faults: every damaged, missing or odd file is named in one line, and nothing half stays behind."
import csv
import gzip
import hashlib
import http.server
import shutil
import socket
import threading
from pathlib import Path

import pytest

from paper_digest import data
from paper_digest.data import DataError
from paper_digest.generate import Prompt, ReplayBackend

BODY = b"id,question,answer\n1,How many?,The answer is {3}.\n2,And now?,\n"
FIELDS = ["dataset", "file", "sha256", "bytes", "rows", "licence", "repo", "commit", "path", "note"]


class World:
    "A mirror folder, a cache and a registry of their own."

    def __init__(self, root, monkeypatch):
        self.mirror, self.cache, self.registry = root / "mirror", root / "cache", root / "registry.csv"
        self.rows, self.monkeypatch = [], monkeypatch
        for name, value in [("DATA", self.mirror), ("CACHE", self.cache), ("REGISTRY", self.registry)]:
            monkeypatch.setenv(f"PAPER_DIGEST_{name}", str(value))

    def register(self, file, content, note=""):
        self.rows.append(dict(dataset="toy", file=f"toy/{file}", sha256=hashlib.sha256(content).hexdigest(), bytes=len(content),
                              rows=1, licence="MIT", repo="o/r", commit="c", path=f"src/{file}", note=note))
        with open(self.registry, "w", newline="") as f:
            writer = csv.DictWriter(f, FIELDS)
            writer.writeheader()
            writer.writerows(self.rows)

    def store(self, file, content):
        path = self.mirror / "toy" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_DIGEST_SOURCE", "http://127.0.0.1:9/{path}")   # nothing listens on the discard port
    return World(tmp_path, monkeypatch)


def test_plain_and_gzip_read_the_same(world):
    world.register("a.csv", BODY)
    world.store("a.csv", BODY)
    plain = data.load("toy", "a.csv")
    (world.mirror / "toy/a.csv").unlink()
    world.store("a.csv.gz", gzip.compress(BODY))
    assert data.load("toy", "a.csv").equals(plain) and plain["answer"].tolist() == ["The answer is {3}.", ""]
    assert data.path("toy", "a.csv").read_bytes() == BODY and data.path("toy", "a.csv").suffix == ".csv"


@pytest.mark.parametrize("content, says", [
    pytest.param(gzip.compress(BODY)[:-12], "damaged gzip", id="cut off"),
    pytest.param(b"\x1f\x8b" + b"nonsense" * 9, "damaged gzip", id="a header and noise"),
    pytest.param(BODY, "damaged gzip", id="not a gzip"),
    pytest.param(b"", "damaged gzip|is empty", id="empty file"),
    pytest.param(gzip.compress(b""), "is empty", id="empty content"),
    pytest.param(gzip.compress(BODY[:40]), "has 40 of", id="half the content, well packed"),
    pytest.param(gzip.compress(BODY.replace(b"3", b"4")), "sha256 expected", id="one character changed"),
])
def test_damaged_files_are_named(world, content, says):
    world.register("a.csv", BODY)
    stored = world.store("a.csv.gz", content)
    with pytest.raises(DataError, match=says) as err:
        data.load("toy", "a.csv")
    assert str(stored) in str(err.value) and "\n" not in str(err.value)


def test_a_damaged_mirror_does_not_fall_through_to_the_cache(world):
    world.register("a.csv", BODY)
    (world.cache / "toy").mkdir(parents=True)
    (world.cache / "toy/a.csv").write_bytes(BODY)
    world.store("a.csv", b"damaged")
    with pytest.raises(DataError, match="sha256 expected"):
        data.load("toy", "a.csv")


def test_wrong_sha_names_expected_and_found(world):
    world.register("a.csv", BODY)
    world.store("a.csv", b"other")
    with pytest.raises(DataError) as err:
        data.read("toy", "a.csv")
    assert hashlib.sha256(BODY).hexdigest() in str(err.value) and hashlib.sha256(b"other").hexdigest() in str(err.value)


@pytest.mark.parametrize("name, content, says", [
    ("a.csv", b"id,answer\n", "holds no record"),
    ("a.csv", b"\xff\xfe\x00", "cannot be read as csv"),
    ("a.jsonl", b'{"id": 1}\n{"id": 2', "cannot be read as jsonl"),
    ("a.jsonl", b"\n\n", "holds no record"),
    ("a.json", b"[1, 2", "cannot be read as json"),
])
def test_unreadable_tables_are_named(world, name, content, says):
    world.register(name, content)
    world.store(name, content)
    with pytest.raises(DataError, match=says):
        data.load("toy", name)


def test_missing_column_and_repeated_id(world):
    world.register("a.csv", BODY)
    world.store("a.csv", BODY)
    table = data.load("toy", "a.csv")
    with pytest.raises(DataError, match="column gold missing; it has id, question, answer"):
        data.require_columns(table, ["id", "gold"], "a.csv")
    with pytest.raises(DataError, match="more than once, first \\['1'\\]"):
        ReplayBackend.from_frame(table.iloc[[0, 1, 0]], name="a.csv")


def test_int_and_text_ids_are_one_id(world):
    import pandas as pd
    replay = ReplayBackend.from_frame(pd.DataFrame({"id": [7, 8], "answer": ["a", "b"]}))
    assert [c.text for c in replay.generate([Prompt("8", ""), Prompt("7", "")])] == ["b", "a"]
    with pytest.raises(DataError, match="more than once"):
        ReplayBackend.from_frame(pd.DataFrame({"id": [7, "7"], "answer": ["a", "b"]}))


def test_ids_and_answers_stay_text(world):
    body = b"id,answer\n007,nan\n1e5,NA\n"
    world.register("a.csv", body)
    world.store("a.csv", body)
    assert data.load("toy", "a.csv").values.tolist() == [["007", "nan"], ["1e5", "NA"]]


# --- downloads, from a server on this machine


class Server(http.server.BaseHTTPRequestHandler):
    "Serves BODY whole, half, changed, or not at all, by the first part of the path."
    asked: list = []

    def do_GET(self):
        how = self.path.split("/")[1]
        self.asked.append(self.path)
        if how == "missing":
            return self.send_error(404)
        if how == "broken":
            return self.send_error(500)
        body = BODY.replace(b"3", b"4") if how == "changed" else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(body[:20] if how == "half" else body)

    def log_message(self, *args):
        return None


@pytest.fixture
def served(world):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    world.register("a.csv", BODY)
    Server.asked = []

    def how(kind):
        world.monkeypatch.setenv("PAPER_DIGEST_SOURCE", f"http://127.0.0.1:{server.server_port}/{kind}/{{repo}}/{{commit}}/{{path}}")
        return world
    yield how
    server.shutdown()


def test_download_once_then_from_the_cache(served):
    world = served("whole")
    assert [e.file for e in data.missing(["toy"])] == ["toy/a.csv"]
    assert data.pull(["toy"]) == 1 and data.missing(["toy"]) == []
    assert len(data.load("toy", "a.csv")) == 2 and data.pull(["toy"]) == 0
    assert Server.asked == ["/whole/o/r/c/src/a.csv"]
    assert (world.cache / "toy/a.csv").read_bytes() == BODY


@pytest.mark.parametrize("kind", ["half", "changed", "missing", "broken"])
def test_a_bad_download_leaves_nothing_and_says_what_to_do(served, kind):
    world = served(kind)
    with pytest.raises(DataError, match="not to be fetched from its source.*PAPER_DIGEST_DATA"):
        data.load("toy", "a.csv")
    assert [p for p in world.cache.rglob("*") if p.is_file()] == []
    served("whole")
    assert len(data.load("toy", "a.csv")) == 2        # the next try is not hindered by the last


def test_no_network_is_one_line(world):
    world.register("a.csv", BODY)
    with socket.socket() as s:                        # a port of ours that nothing listens on
        s.bind(("127.0.0.1", 0))
        world.monkeypatch.setenv("PAPER_DIGEST_SOURCE", f"http://127.0.0.1:{s.getsockname()[1]}/{{path}}")
        with pytest.raises(DataError, match="not on this machine") as err:
            data.pull(["toy"])
    assert "\n" not in str(err.value)


def test_derived_files_need_a_mirror(world):
    world.register("icons.zip", BODY, note="derived from the source files")
    with pytest.raises(DataError, match="cannot be downloaded; set PAPER_DIGEST_DATA"):
        data.load("toy", "icons.zip")


def test_verify_tells_ok_missing_damaged(world):
    for name in ("good.csv", "bad.csv", "gone.csv"):
        world.register(name, BODY)
    world.store("good.csv", BODY), world.store("bad.csv", b"x")
    assert {r["file"]: r["status"] for r in data.verify(["toy"])} == {
        "toy/good.csv": "ok", "toy/bad.csv": "damaged", "toy/gone.csv": "missing"}


def test_no_registry(world):
    with pytest.raises(DataError, match="no registry at"):
        data.registry()


def test_every_mirrored_file_is_the_registered_one(recordings):
    damaged = [r for r in data.verify(["hot_tasks", "hot_responses"]) if r["status"] != "ok"]
    assert damaged == []
