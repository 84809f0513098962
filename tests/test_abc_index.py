"ABC at the command line: pictures in every state, indexes of other models, and a clear line for each."
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(sys.executable).parent / "paper-digest"


def digest(*words):
    return subprocess.run([PROGRAM, "abc", *map(str, words)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Two models, a folder of pictures in every state, and its index."
    from PIL import Image
    from paper_digest.abc.store import from_backbone
    from paper_digest.abc.tiny import tiny_checkpoint
    from paper_digest.abc.world import SMALL, draw, scenes
    home = tmp_path_factory.mktemp("abc")
    model = from_backbone(str(tiny_checkpoint(home / "qwen")))
    model.save_pretrained(home / "model")
    from_backbone(str(tiny_checkpoint(home / "qwen2", seed=1))).save_pretrained(home / "other")
    pictures = home / "pictures"
    pictures.mkdir()
    for i, s in enumerate(scenes(SMALL, 4, 0)):
        draw(s).save(pictures / f"{i}.png")
    Image.new("CMYK", (40, 40), (0, 200, 0, 0)).save(pictures / "print.jpg")
    Image.new("RGBA", (40, 40), (0, 200, 0, 90)).save(pictures / "alpha.png")
    Image.fromarray(np.full((40, 40), 40000, np.uint16)).save(pictures / "deep.png")
    Image.new("RGB", (1, 1)).save(pictures / "dot.png")
    Image.new("RGB", (900, 4)).save(pictures / "line.png")
    (pictures / "broken.png").write_bytes((pictures / "0.png").read_bytes()[:60])
    (pictures / "text.jpg").write_text("not a picture")
    (pictures / ".hidden.png").write_text("not looked at")
    return home


def test_index_and_search(home):
    made = digest("index", home / "pictures", "--model", home / "model", "--out", home / "a.index", "--device", "cpu")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("7 of 11 pictures")
    lines = [line for line in made.stderr.splitlines() if ".png" in line or ".jpg" in line]
    assert sorted(Path(line.split(":")[0]).name for line in lines) == ["broken.png", "dot.png", "line.png", "text.jpg"]
    found = digest("search", home / "a.index", "--image", home / "pictures/2.png", "-k", "3", "--device", "cpu")
    assert found.returncode == 0 and found.stdout.splitlines()[0] == "1.0000  2.png", found.stderr
    both = digest("search", home / "a.index", "--image", home / "pictures/2.png", "--text", "look at the centre", "--device", "cpu")
    assert both.returncode == 0 and len(both.stdout.splitlines()) == 7
    other = digest("search", home / "a.index", "--text", "a red circle", "--model", home / "other", "--device", "cpu")
    assert other.returncode == 2 and "filled by another model" in other.stderr and len(other.stderr.strip().splitlines()) == 1, other.stderr


@pytest.mark.parametrize("words, says", [
    (["index", "{home}/nowhere", "--model", "{home}/model", "--out", "{home}/b.index"], "is not a folder"),
    (["index", "{home}/model", "--model", "{home}/model", "--out", "{home}/b.index"], "holds no image"),
    (["index", "{home}/pictures", "--model", "{home}/qwen", "--out", "{home}/b.index"], "not a saved ABC model"),
    (["index", "{home}/pictures", "--model", "{home}/model", "--out", "{home}/no/b.index"], "a folder that exists"),
    (["search", "{home}/none.index", "--text", "a red circle"], "no such index"),
    (["search", "{home}/pictures/0.png", "--text", "a red circle"], "not an index of this program"),
    (["search", "{home}/none.index"], "nothing to look for"),
    (["search", "{home}/none.index", "--text", " "], "text is empty"),
    (["search", "{home}/none.index", "--image", "{home}/none.png"], "no such image file"),
    (["search", "{home}/none.index", "--text", "x", "-k", "0"], "-k"),
])
def test_bad_input_is_one_line_and_status_2(home, words, says):
    r = digest(*[w.format(home=home) for w in words])
    assert r.returncode == 2, (r.stdout, r.stderr)
    assert says in r.stderr and len(r.stderr.strip().splitlines()) == 1 and "Traceback" not in r.stderr, r.stderr
    assert not (home / "b.index").exists()


@pytest.mark.parametrize("words", [[], ["index"], ["search"]])
def test_help(words):
    r = digest(*words, "--help")
    assert r.returncode == 0 and "Usage:" in r.stdout


def test_an_index_is_never_half_written(tmp_path, monkeypatch):
    "A failure in the middle of writing leaves the old index and nothing else."
    import os
    from paper_digest.abc.index import FaissIndex
    from paper_digest.core import UserError
    vectors = np.eye(4, dtype=np.float32)
    index = FaissIndex(4, "a").add(vectors[:3], list("abc"))
    file = index.save(tmp_path / "x.index")
    old = file.read_bytes()
    index.add(vectors[3:], ["d"])

    def full(descriptor):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        index.save(file)
    assert file.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["x.index"]


@pytest.mark.parametrize("vectors, says", [
    (np.array([[1, np.nan], [0, 1]]), "NaN"), (np.array([[2., 0]]), "not of length one"), (np.zeros((0, 2)), "need a table"),
    (np.eye(3), "3 numbers where 2")])
def test_vectors_that_cannot_be_indexed(vectors, says):
    from paper_digest.abc.index import FaissIndex
    from paper_digest.core import UserError
    with pytest.raises(UserError, match=says):
        FaissIndex(2).add(vectors, [str(i) for i in range(len(vectors))])
