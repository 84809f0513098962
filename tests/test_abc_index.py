"ABC at the command line: pictures in every state, indexes of other models, and a clear line for each."
import os
import shutil
import signal
import subprocess
import sys
import time
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
    import torch
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
    for name, files in (("unreadable", ("broken.png", "text.jpg")), ("good", ("0.png", "1.png"))):
        (home / name).mkdir()
        for file in files:
            shutil.copy(pictures / file, home / name)
    with torch.no_grad():
        model.head.inner.weight[0, 0] = float("nan")
    model.save_pretrained(home / "nan")
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
    (["search", "{home}/none.index", "--image", "{home}/pictures/0.png", "--text", ""], "text is empty"),
    (["index", "{home}/good", "--model", "{home}/model", "--out", "{home}/good", "--device", "cpu"], "cannot write there"),
    (["search", "{home}/none.index", "--image", "{home}/none.png"], "no such image file"),
    (["search", "{home}/none.index", "--text", "x", "-k", "0"], "-k"),
])
def test_bad_input_is_one_line_and_status_2(home, words, says):
    r = digest(*[w.format(home=home) for w in words])
    assert r.returncode == 2, (r.stdout, r.stderr)
    assert says in r.stderr and len(r.stderr.strip().splitlines()) == 1 and "Traceback" not in r.stderr, r.stderr
    assert not (home / "b.index").exists()


@pytest.mark.parametrize("folder, model, device, says, complaints", [
    ("unreadable", "model", "cpu", "none of 2 image files can be read", 2), ("good", "nan", "cpu", "NaN", 0), ("good", "model", "cuda", "no CUDA GPU", 0)])
def test_folders_and_models_that_give_no_index(home, folder, model, device, says, complaints):
    import torch
    from paper_digest.abc.commands import make_index
    from paper_digest.core import UserError
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    told = []
    with pytest.raises(UserError, match=says) as err:
        make_index(home / folder, home / model, home / "b.index", device=device, complain=told.append)
    assert "\n" not in str(err.value) and len(told) == complaints and not list(home.glob("*b.index*"))


@pytest.mark.parametrize("words", [[], ["index"], ["search"]])
def test_help(words):
    r = digest(*words, "--help")
    assert r.returncode == 0 and "Usage:" in r.stdout


def states(home):
    "One picture in every state a file can have, as (name, how far its vector may be from the plain one's)."
    from PIL import Image, ImageOps
    plain = Image.open(home / "pictures/0.png").convert("RGB")
    folder = home / "states"
    folder.mkdir()
    plain.save(folder / "plain.png")
    exif = plain.getexif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    plain.rotate(90, expand=True).save(folder / "turned.tif", exif=exif)
    rgba = plain.convert("RGBA")
    rgba.putalpha(255)
    rgba.save(folder / "opaque.png")
    plain.convert("P", palette=Image.Palette.ADAPTIVE, colors=64).save(folder / "palette.gif")
    plain.convert("CMYK").save(folder / "print.tif")
    grey = ImageOps.grayscale(plain)
    grey.save(folder / "grey.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


def test_one_picture_in_every_state_is_one_picture(home):
    from paper_digest.abc.index import index_folder
    from paper_digest.abc.inputs import open_image
    from paper_digest.abc.store import from_pretrained
    folder, model = states(home), from_pretrained(home / "model")
    index = index_folder(model, folder)
    score = {h.id: h.score for h in index.search(model.encode_image([folder / "plain.png"]), 10)[0]}
    assert score["turned.tif"] == pytest.approx(1, abs=1e-5) and score["opaque.png"] == pytest.approx(1, abs=1e-5)
    assert score["palette.gif"] > .999 and score["print.tif"] > .999
    assert (np.asarray(open_image(folder / "deep.png")) == np.asarray(open_image(folder / "grey.png"))).all()
    assert len(index) == 7


def test_a_clear_picture_lies_on_white(tmp_path):
    from PIL import Image
    from paper_digest.abc.inputs import open_image
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (np.asarray(open_image(tmp_path / "clear.png")) == 255).all()


@pytest.mark.parametrize("things, says", [
    ([""], "an empty instruction or text"), ([{"text": "  "}], "an empty instruction or text"), ([{}], "has the keys image and text"),
    ([{"picture": 1}], "has the keys image and text"), ([3], "must be a PIL image or a path, got int"), ("a red circle", "takes a list")])
def test_things_that_cannot_be_embedded(home, things, says):
    from paper_digest.abc.store import from_pretrained
    from paper_digest.core import UserError
    with pytest.raises(UserError, match=says):
        from_pretrained(home / "model").encode(things)


def test_a_model_of_another_width(home, tmp_path):
    from paper_digest.abc.index import FaissIndex, find
    from paper_digest.abc.model import fingerprint
    from paper_digest.abc.store import from_backbone, from_pretrained
    from paper_digest.abc.tiny import tiny_checkpoint
    from paper_digest.core import UserError
    narrow, model = from_backbone(str(tiny_checkpoint(tmp_path / "narrow", hidden=48))), from_pretrained(home / "model")
    index = FaissIndex(96, fingerprint(model)).add(model.encode_text(["a red circle"]), ["a"])
    with pytest.raises(UserError, match="48 numbers where 96"):
        find(narrow, index, text="a red circle")
    with pytest.raises(UserError, match="filled by another model"):
        FaissIndex.load(index.save(tmp_path / "x.index"), fingerprint(narrow))
    with pytest.raises(UserError, match="NaN"):
        index.search(np.full((1, 96), np.nan, np.float32))


WRITER = """
import sys
import numpy as np
from paper_digest.abc.index import FaissIndex
v = np.random.default_rng(0).normal(size=(150_000, 64)).astype(np.float32)
v /= np.linalg.norm(v, axis=1, keepdims=True)
index = FaissIndex(64, "b").add(v, [str(i) for i in range(len(v))])
print("ready", flush=True)
while True:
    index.save(sys.argv[1])
"""


@pytest.mark.timeout(120)
def test_a_killed_writer_leaves_a_whole_index(tmp_path):
    "Killed while it writes, again and again: the file is the old index or the new one, and the next save clears what was left."
    from paper_digest.abc.index import FaissIndex
    file = FaissIndex(4, "a").add(np.eye(4, dtype=np.float32), list("abcd")).save(tmp_path / "x.index")
    caught = 0
    for wait in (0., .01):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "ready\n"
        while not list(tmp_path.glob(".x.index.*.part")):
            time.sleep(.001)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        caught += len(list(tmp_path.glob(".x.index.*.part")))
        assert len(FaissIndex.load(file)) in (4, 150_000)
    assert caught, "the writer was never caught in the middle"
    FaissIndex(4, "a").add(np.eye(4, dtype=np.float32), list("abcd")).save(file)
    assert [p.name for p in tmp_path.iterdir()] == ["x.index"]


@pytest.mark.parametrize("keep", [0, 10, 60, 200, -1])
def test_a_cut_index_is_named(tmp_path, keep):
    from paper_digest.abc.index import FaissIndex
    from paper_digest.core import UserError
    file = FaissIndex(64, "a").add(np.eye(64, dtype=np.float32), [str(i) for i in range(64)]).save(tmp_path / "x.index")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="not an index of this program, or damaged"):
        FaissIndex.load(file)


def test_an_index_is_never_half_written(tmp_path, monkeypatch):
    "A failure in the middle of writing leaves the old index and nothing else."
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
