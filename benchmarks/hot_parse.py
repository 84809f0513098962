"""Speed of `paper_digest.hot.parse` on the recorded answers, beside LangExtract's aligner in the same run.

    python benchmarks/hot_parse.py                 all recorded HoT answers, peer on 200 of them
    python benchmarks/hot_parse.py --limit 50      first 50 answers of every run file
    python benchmarks/hot_parse.py --no-peer       ours only

Like with like: both sides get the same 200 answers of Llama 3.1 70B to GSM8K, the same tagged phrases and the same
questions. The peer (LangExtract's `WordAligner`, defaults, in its own virtual environment) only aligns phrases that are
handed to it. Ours is timed twice: aligning the same phrases, and the whole of `parse`, which also finds the sections,
takes out the tags and lists the issues. Times are processor seconds of one core. Each side repeats its pass for about
three seconds and every answer counts with its fastest pass, so that other work on the machine does not decide; each of
our passes begins with its questions out of the caches.
"""
import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PEER = "langextract==1.7.1"
GOAL_RATE, GOAL_RATIO = 2000, 50
PASSES = 7
PEER_CODE = r'''
import json, sys, time
from langextract import data, resolver
items = json.load(open(sys.argv[1], encoding="utf-8"))
best, found = [float("inf")] * len(items), [0] * len(items)
for _ in range(int(sys.argv[2])):
    for i, (question, phrases) in enumerate(items):
        group = [data.Extraction(extraction_class="fact", extraction_text=p) for p in phrases]
        begin = time.process_time()
        result = resolver.WordAligner().align_extractions([group], question)
        best[i] = min(best[i], time.process_time() - begin)
        found[i] = sum(e.char_interval is not None for g in result for e in g)
print(json.dumps({"seconds": sum(best), "found": sum(found)}))
'''


def recorded(limit):
    "(file, question, response) of every recorded HoT answer."
    from paper_digest import data
    files = [e.file for e in data.registry().values() if e.dataset == "hot_responses" and "/hot/" in e.file]
    for file in files:
        table = data.load("hot_responses", file).head(limit) if limit else data.load("hot_responses", file)
        yield from ((file, q, a) for q, a in zip(table["question"], table["answer"]))


def ours_on_everything(rows):
    "Print answers a second over all of them, each timed on its own."
    from paper_digest.hot.align import source
    from paper_digest.hot.tags import parse
    source.cache_clear()
    times, pauses, begun = [], [0.0], [0.0]

    def pause(phase, info):
        "Python's garbage collector visits the cached questions now and then; that is time, but not one answer's."
        if phase == "start":
            begun[0] = time.process_time()
        else:
            pauses[0] += time.process_time() - begun[0]

    gc.callbacks.append(pause)
    whole = time.process_time()
    for _, question, response in rows:
        before, begin = pauses[0], time.process_time()
        parse(response, question)
        times.append(time.process_time() - begin - (pauses[0] - before))
    total = time.process_time() - whole
    gc.callbacks.remove(pause)
    times.sort()
    print(f"ours, parse and align: {len(rows):,} answers in {total:.1f} s = {len(rows) / total:,.0f} answers/s "
          f"(goal {GOAL_RATE:,})")
    print(f"  one answer: median {1e3 * statistics.median(times):.2f} ms, 99.9 % within "
          f"{1e3 * times[int(.999 * len(times))]:.1f} ms, longest {1e3 * times[-1]:.1f} ms")


def timed(work, items):
    "Seconds for `work(*item)` over all items, each at its fastest in some passes, and what the last pass returned."
    from paper_digest.hot import align, parts
    best, results = [float("inf")] * len(items), [None] * len(items)
    end = time.process_time() + 3  # about as long as the peer's passes take
    while time.process_time() < end:
        for cached in (align.source, parts._original, parts._word_counts):  # every pass meets its questions anew
            cached.cache_clear()
        for i, item in enumerate(items):
            begin = time.process_time()
            results[i] = work(*item)
            best[i] = min(best[i], time.process_time() - begin)
    return sum(best), results


def peer_python():
    "Interpreter of the peer's environment, made at the first run; exits with one line when it cannot be installed."
    from paper_digest.data import cache_dir
    home = cache_dir() / "peers" / PEER.replace("==", "-")
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if not (home / "ready").exists():
        print(f"installing {PEER} into its own environment under the cache folder", flush=True)
        home.mkdir(parents=True, exist_ok=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", PEER]
        for command in ([sys.executable, "-m", "venv", str(home)], pip):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                reason = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
                sys.exit(f"hot_parse: {PEER} cannot be installed ({reason[0]}); --no-peer gives our figures alone")
        (home / "ready").touch()
    return python


def beside_peer(rows):
    "Print both rates and their ratio on the same phrases."
    from paper_digest.hot.align import align, source
    from paper_digest.hot.tags import parse
    texts = [(q, [f.text for f in parse(response, q).facts if f.text.strip()]) for _, q, response in rows]
    items = [(q, phrases) for q, phrases in texts if phrases]
    n, phrases = len(items), sum(len(p) for _, p in items)
    aligned, places = timed(lambda question, phrases: [align(p, source(question)) for p in phrases], items)
    parsed, _ = timed(parse, [(response, question) for _, question, response in rows])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.json"
        file.write_text(json.dumps(items), encoding="utf-8")
        command = [str(peer_python()), "-c", PEER_CODE, str(file), str(PASSES)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"hot_parse: the peer failed: {done.stderr.strip().splitlines()[-1]}")
    peer = json.loads(done.stdout.splitlines()[-1])
    found = sum(p.start is not None for ps in places for p in ps)
    print(f"the same {n} answers of Llama 3.1 70B to GSM8K, {phrases:,} tagged phrases, answers/s:")
    print(f"  {PEER}, align only  {n / peer['seconds']:8,.0f}   {peer['found']:,} phrases found")
    print(f"  ours, align only                {n / aligned:8,.0f}   {found:,} phrases found   "
          f"ratio {peer['seconds'] / aligned:.0f} (goal {GOAL_RATIO})")
    print(f"  ours, whole parse               {len(rows) / parsed:8,.0f}   "
          f"ratio {peer['seconds'] / n * len(rows) / parsed:.0f}")


def main():
    "Run the measurements."
    from paper_digest.core import UserError
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--limit", type=int, default=0, help="answers per run file (default: all)")
    arguments.add_argument("--no-peer", action="store_true", help="do not install or run the peer")
    options = arguments.parse_args()
    try:
        rows = list(recorded(options.limit))
    except UserError as err:
        sys.exit(f"hot_parse: {err}")
    gc.collect()
    gc.freeze()  # the recordings themselves are not the parser's garbage
    if not options.no_peer:
        beside_peer([r for r in rows if "/GSM8K/" in r[0] and "70b" in r[0]][:200])
    ours_on_everything(rows)


if __name__ == "__main__":
    main()
