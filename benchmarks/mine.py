"""Mining hard negatives with `paper_digest.abc`, beside sentence-transformers' `mine_hard_negatives` in the same run.

    python benchmarks/mine.py                    100,000 captions x 256 numbers, 10,000 images
    python benchmarks/mine.py --corpus 20000     smaller
    python benchmarks/mine.py --no-peer          ours only

Like with like: both sides get the same unit vectors and the same rule (negatives at least 5 % below the positive, the 100 best
of them), both search with a flat faiss index, and the pools are compared image by image. Vectors are clustered twice, topics and
near-duplicates within a topic, so that the rule has something to remove; the first line says how much. The peer runs in a virtual
environment of its own, which sees the packages of this one; its encoding step is handed the vectors, and its time includes the
data set it makes. Times are processor seconds of one process with
one thread, so other work on the machine hardly counts; wall-clock seconds stand beside them. The inverted file is shown for what
it costs in pools: with thousands of queries at once it pays only where a flat search of millions does not fit into time or memory.
"""
import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np  # noqa: E402, after the number of threads

PEER = "sentence-transformers==6.2.0"
POOL, DEPTH = 100, 600  # the peer searches a fixed depth; ours goes deeper only where it must
PEER_CODE = r'''
import json, sys, time
import numpy as np, torch
from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives
folder, pool, depth = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
queries, corpus, own = (np.load(f"{folder}/{n}.npy") for n in ("queries", "corpus", "own"))

class Given:
    "Stands where a model is expected and hands over the vectors."
    device = torch.device("cpu")
    def encode_document(self, texts, **kw): return corpus[[int(t) for t in texts]]
    def encode_query(self, texts, **kw): return queries[[int(t[1:]) for t in texts]]
    def get_embedding_dimension(self): return corpus.shape[1]
    def similarity_pairwise(self, a, b): return (torch.as_tensor(a) * torch.as_tensor(b)).sum(1)

data = Dataset.from_dict({"query": [f"q{i}" for i in range(len(queries))], "text": [str(i) for i in own]})
begin, wall = time.process_time(), time.perf_counter()
mined = mine_hard_negatives(data, Given(), corpus=[str(i) for i in range(len(corpus))], range_max=depth, relative_margin=0.05,
                            num_negatives=pool, sampling_strategy="top", use_faiss=True, output_format="labeled-list",
                            include_positives=False, verbose=False)
seconds, wall = time.process_time() - begin, time.perf_counter() - wall
rows = [[int(t) for t, l in zip(texts, labels) if l == 0] for texts, labels in zip(mined["text"], mined["labels"])]
json.dump({"seconds": seconds, "wall": wall, "queries": [int(q[1:]) for q in mined["query"]], "pools": rows}, open(f"{folder}/peer.json", "w"))
'''


def vectors(corpus, queries, width, seed=0):
    "Unit vectors in topics of about fifty with near-duplicates of about ten, and queries near some of them."
    rng = np.random.default_rng(seed)
    centres, kinds = (rng.normal(size=(corpus // n, width)).astype(np.float32) for n in (50, 10))
    kinds = centres[rng.integers(len(centres), size=len(kinds))] + .7 * kinds
    texts = kinds[rng.integers(len(kinds), size=corpus)] + .3 * rng.normal(size=(corpus, width)).astype(np.float32)
    own = rng.choice(corpus, queries, replace=False)
    images = texts[own] + .5 * rng.normal(size=(queries, width)).astype(np.float32)
    return *(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)), own


def peer_python():
    "Interpreter of the peer's environment, made at the first run; exits with one line when it cannot be installed."
    from paper_digest.data import cache_dir
    home = cache_dir() / "peers" / f"{PEER.replace('==', '-')}-py{sys.version_info.minor}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        print(f"installing {PEER} into its own environment under the cache folder", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([sys.executable, "-m", "venv", str(home)], capture_output=True, text=True)
        if not done.returncode:  # torch, transformers and faiss of this environment serve the peer too
            site = next(home.glob("lib/python3*/site-packages"))
            (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"])
            done = subprocess.run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", PEER],
                                  capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            sys.exit(f"mine: {PEER} cannot be installed ({reason[0]}); --no-peer gives our figures alone")
        (home / "ready").touch()
    return python


def ours(images, texts, own, factory="Flat", nprobe=32):
    "Processor and wall-clock seconds, and pools, of our miner."
    from paper_digest.abc.mine import NegativeMiner
    miner = NegativeMiner(pool=POOL, k=7, factory=factory, nprobe=nprobe)
    begin, wall = time.process_time(), time.perf_counter()
    mined = miner.mine(images, texts, own)
    return time.process_time() - begin, time.perf_counter() - wall, [[int(i) for i in row if i >= 0] for row in mined.pools]


def shared(a, b):
    "Mean share of the first pools found in the second."
    return float(np.mean([len(set(x) & set(y)) / max(len(x), 1) for x, y in zip(a, b)]))


def main():
    "Run both sides on the same vectors."
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--corpus", type=int, default=100_000, help="captions (default 100000)")
    options.add_argument("--queries", type=int, default=10_000, help="images (default 10000)")
    options.add_argument("--width", type=int, default=256, help="numbers a vector (default 256)")
    options.add_argument("--no-peer", action="store_true", help="do not install or run the peer")
    chosen = options.parse_args()
    if chosen.queries > chosen.corpus or chosen.corpus < 2 * DEPTH:
        sys.exit(f"mine: need a corpus of at least {2 * DEPTH} and no more queries than captions")
    images, texts, own = vectors(chosen.corpus, chosen.queries, chosen.width)
    seconds, wall, pools = ours(images, texts, own)
    some = np.einsum("ij,ij->i", images[:200], texts[own[:200]])
    over = (images[:200] @ texts.T > .95 * some[:, None]).sum(1) - 1
    print(f"{chosen.queries:,} images, {chosen.corpus:,} captions, {chosen.width} numbers a vector, pools of {POOL} at least 5 % below the positive")
    print(f"  (which removes {over.mean():.1f} captions an image, at most {over.max()}, of the first 200 images):")
    print(f"  {'ours, flat':<35}{seconds:7.1f} s ({wall:.1f} s of the clock)   {np.mean([len(p) for p in pools]):.1f} a pool")
    parts = max(16, chosen.corpus // 400)
    other, clock, found = ours(images, texts, own, f"IVF{parts},Flat")
    print(f"  {f'ours, IVF{parts},Flat':<35}{other:7.1f} s ({clock:.1f} s of the clock)   {100 * shared(pools, found):.1f} % of the flat pools")
    if chosen.no_peer:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, array in (("queries", images), ("corpus", texts), ("own", own)):
            np.save(f"{folder}/{name}.npy", array)
        done = subprocess.run([str(peer_python()), "-W", "ignore", "-c", PEER_CODE, folder, str(POOL), str(DEPTH)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"mine: the peer failed: {done.stderr.strip().splitlines()[-1]}")
        peer = json.loads(Path(folder, "peer.json").read_text())
    theirs = dict(zip(peer["queries"], peer["pools"]))
    same = sum(set(theirs.get(i, [])) == set(pool) for i, pool in enumerate(pools))
    print(f"  {f'{PEER}, flat':<35}{peer['seconds']:7.1f} s ({peer['wall']:.1f} s of the clock)   {np.mean([len(p) for p in peer['pools']]):.1f} a pool")
    print(f"  same set for {same:,} of {len(pools):,} images, {100 * shared(pools, [theirs.get(i, []) for i in range(len(pools))]):.2f} % of all "
          f"entries; time ratio (theirs / ours, flat) {peer['seconds'] / seconds:.2f}")


if __name__ == "__main__":
    main()
