"Mined negatives in small: the arms differ in their wrong captions alone, and the test in nothing that training saw."
import json

import numpy as np
import pytest

from paper_digest import recipes, runs


@pytest.fixture(scope="module")
def drawn():
    "A small study and its scenes."
    from paper_digest.abc.negatives import Crowds, NegativesSize
    size = NegativesSize(families=30, family=8, test=60, asked=30, hidden=24, layers=1, heads=2, pool=40)
    return size, Crowds.draw(size, 5)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    "The recipe at smoke tier, through the runner, its seeds in processes of their own."
    folder, patch = tmp_path_factory.mktemp("runs"), pytest.MonkeyPatch()
    patch.setenv("PAPER_DIGEST_RUNS", str(folder))
    record, folder, _ = runs.run_recipe(recipes.get_recipe("abc/negatives"), "smoke", {"jobs": 2})
    patch.undo()
    assert record["status"] == "done", f"{record['reason']}\n{(folder / 'worker.log').read_text()[-2000:]}"
    return record, folder


def test_no_test_scene_is_in_training(drawn):
    _, data = drawn
    assert len(data.test) == 60
    assert not {frozenset(s.things) for s in data.test} & {frozenset(s.things) for s in data.scenes}


def test_true_captions_are_found_by_words_and_by_numbers(drawn):
    from paper_digest.abc.crowd import hard_pool, say, true_of
    _, data = drawn
    said = [s.named for s in data.scenes]
    table = true_of(data.test[:20], [said])
    for s, row in zip(data.test, table):
        shown = set(say(s.things).split(" and "))
        assert row.tolist() == [set(say(c).split(" and ")) <= shown for c in said]
    for s in data.test[:20]:
        pool = [say(c) for c in hard_pool(s)]
        assert len(pool) == 26 and say(s.named) not in pool
        assert all(sum(a != b for a, b in zip(c.split(), say(s.named).split())) == 1 for c in pool)


def test_a_true_caption_costs_nothing_and_a_wrong_one_does(drawn):
    "Vectors that know the truth exactly: full marks with the mask, although true captions score as high as the own one."
    from paper_digest.abc.crowd_scores import crowd_scores
    from paper_digest.abc.world import LARGE, caption
    _, data = drawn
    words = {caption(LARGE, t): i for i, t in enumerate(LARGE.things)}
    scene_of = {id(p): s for p, s in zip(data.test_pixels, data.test)}

    class Knowing:
        "Stands where a model is expected: one number for each object."
        def __init__(self, blind=None):
            self.blind = blind

        def encode_image(self, pixels, **options):
            return np.array([[float(t in scene_of[id(p)].things and t != self.blind) for t in range(96)] for p in pixels])

        def encode_text(self, texts, **options):
            return np.array([np.bincount([words[w] for w in text.split(" and ")], minlength=96) for text in texts], float)

    assert set(crowd_scores(Knowing(), data.test, data.test_pixels).values()) == {100.0}
    assert crowd_scores(Knowing(data.test[0].named[0]), data.test, data.test_pixels)["hard pool"] < 100


@pytest.mark.parametrize("name", ["random", "mined", "mined, top ranks", "mined, no bound", "mined, twice as many"])
def test_every_arm_sees_as_many_candidates_and_never_the_own_caption(drawn, name):
    from paper_digest.abc.crowd import say
    from paper_digest.abc.negatives import ARMS, arm_negatives
    size, data = drawn
    captions = [say(s.named) for s in data.scenes]
    rng = np.random.default_rng(0)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    unique = sorted(set(captions))
    texts = dict(zip(unique, unit(rng.normal(size=(len(unique), 16)))))
    images = unit(np.stack([texts[c] for c in captions]) + .1 * rng.normal(size=(len(captions), 16)))
    images[0] *= -1  # an image whose own caption is the worst of all: nothing is below its bound
    given = arm_negatives(ARMS[name], captions, images, texts, size, 0)
    assert {len(row) for row in given} == {size.k * ARMS[name].times}
    assert not any(own in row for own, row in zip(captions, given))
    assert given == arm_negatives(ARMS[name], captions, images, texts, size, 0)


def test_the_record_holds_every_arm_bound_and_claim(record):
    record, folder = record
    from paper_digest.abc.negatives import ARMS, BOUNDS
    rows = record["metrics"]
    of = lambda table: [r for r in rows if r["table"] == table]
    assert {r["model"] for r in of("table3_negatives")} == {"miner", *ARMS} - {"none", "mined", "mined, twice as many"} | {f"ABC negatives={k}" for k in (0, 3, 6)}
    assert {r["metric"] for r in of("table3_negatives")} == {"i2t R@1", "t2i R@1", "hard pool", "joint pool"}
    assert len(of("false negatives")) == 2 * len(BOUNDS)
    assert len(of("figure5")) == 1 + len(ARMS)
    assert all(r["seeds"] == [11, 12] and r["ci_low"] <= r["value"] <= r["ci_high"] for r in rows)
    assert {c["id"] for c in record["claims"]} == {"abc.negatives.gain", "abc.negatives.over_random", "abc.negatives.six", "abc.negatives.temperature"}
    assert sorted(f.stem for f in (folder / "figures").iterdir()) == ["differences", "false_negatives", "temperature"]


def test_the_notebook_says_how_many_candidates_each_arm_saw(record):
    _, folder = record
    cells = json.loads((folder / "notebook.ipynb").read_text())["cells"]
    shown = "".join(str(o) for c in cells if c["cell_type"] == "code" for o in c["outputs"])
    assert "candidates an image" in shown and "miner right in its batch" in shown
