"""What reading an answer while it is written costs, and whether it ever differs from reading it whole.

    python benchmarks/hot_stream.py               every recorded HoT answer, in random pieces (several minutes)
    python benchmarks/hot_stream.py --limit 50    first 50 answers of every run file

The peer is the batch parser in the same run: each answer is parsed once whole and read once in pieces of 1 to 40
characters, about what servers send. Times are processor seconds of one core; the ratio is what showing facts as they
close costs. Every answer is checked: the events add up to the batch parse, whatever the pieces. Exits with 1 if one differs.
"""
import argparse
import random
import sys
import time


def pieces(text, rng):
    "Text in pieces of 1 to 40 characters."
    at = 0
    while at < len(text):
        size = rng.randint(1, 40)
        yield text[at:at + size]
        at += size


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--limit", type=int, default=0, help="answers of each run file, 0 for all")
    p.add_argument("--seed", type=int, default=0, help="of the pieces")
    args = p.parse_args()
    from paper_digest import data
    from paper_digest.hot.streaming import StreamParser, standing
    from paper_digest.hot.tags import parse
    rng, answers, facts, late, differ, batch, streamed = random.Random(args.seed), 0, 0, 0, [], 0.0, 0.0
    key = lambda f: (f.part == "answer", f.start, f.end, str(f))
    files = [e.file for e in data.registry().values() if e.dataset == "hot_responses" and "/hot/" in e.file]
    for file in files:
        table = data.load("hot_responses", file)
        for row in (table.head(args.limit) if args.limit else table).itertuples():
            cuts, events, reader = list(pieces(row.answer, rng)), [], StreamParser(row.question)
            begun = time.process_time()
            whole = parse(row.answer, row.question)
            middle = time.process_time()
            for piece in cuts:
                events += reader.feed(piece)
            last, parsed = reader.close()
            batch, streamed = batch + middle - begun, streamed + time.process_time() - middle
            if parsed != whole or sorted(standing(events + last), key=key) != sorted(whole.facts, key=key):
                differ.append((file, row.id))
            answers, facts = answers + 1, facts + len(whole.facts)
            late += sum(e.kind == "fact" for e in last)
    print(f"{answers:,} answers, {facts:,} facts; {len(differ)} answers differ from the batch parse {differ[:3] or ''}")
    print(f"{100 * (1 - late / facts):.2f} % of the facts were reported when they closed, as they are in the end")
    print(f"in pieces: {1e3 * streamed / answers:.2f} ms an answer, {1e3 * streamed / facts:.2f} ms a fact")
    print(f"whole:     {1e3 * batch / answers:.2f} ms an answer; ratio {streamed / batch:.1f}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
