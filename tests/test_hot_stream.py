"Reading an answer in pieces gives what reading it whole gives, wherever it was cut."
import random
from functools import lru_cache

from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest.data import registry
from paper_digest.hot.streaming import StreamParser, standing
from paper_digest.hot.tags import parse
from paper_digest.hot.tasks import load_run, recorded_runs

BY = (lambda f: (f.part == "answer", f.start, f.end, str(f)))
QUESTION = "Sam has 3 hats and 4 caps. How many has he?"
# whatever may stand in a response, in any order
WORDS = st.sampled_from(["<fact1>", "</fact1>", "<fact2>", "</fact2>", "<fact3", "</", ">", "<", "</fact", "</fact 2>", "</FACT3>",
                         "Reformatted Question:", "Question:", "\n", "\n\n", "Answer:", "**Answer:**", "3 hats", "4 caps", "Sam has ",
                         "How many has he?", ". ", "{7}", "`", "$x$", "</fact2+3>", "\u2028", "é"])


def pieces(text, sizes):
    "Text in pieces of these sizes, the last one as long as need be."
    for size in sizes:
        yield text[:size]
        text = text[size:]
    yield text


def read(text, question, cuts):
    "Events while reading, then what `close` says."
    reader, events = StreamParser(question), []
    for piece in cuts:
        events += reader.feed(piece)
    return events, reader.close()


def check(text, question, sizes):
    "Any cutting gives the same events, and the events add up to the batch parse."
    events, (last, parsed) = read(text, question, [text])
    assert parsed == parse(text, question)
    assert sorted(standing(events + last), key=BY) == sorted(parsed.facts, key=BY)
    assert read(text, question, pieces(text, sizes)) == (events, (last, parsed))


@settings(max_examples=400, deadline=None)
@given(st.lists(WORDS, max_size=40).map("".join), st.lists(st.integers(0, 9), max_size=60), st.sampled_from([None, QUESTION]))
def test_any_text_in_any_pieces(text, sizes, question):
    check(text, question, sizes)


@lru_cache(maxsize=6)
def responses(n):
    return load_run(*recorded_runs()[n])


def test_recorded_responses_in_any_pieces(recordings):
    "Runs are drawn in turn, so that each is read from disk once."
    runs = [n for n, (_, mode, _) in enumerate(recorded_runs()) if mode == "hot"]
    for n in random.Random(0).sample(runs, 12):
        @settings(max_examples=25, deadline=None)
        @given(st.integers(0, len(responses(n)) - 1), st.lists(st.integers(0, 60), max_size=200))
        def one(i, sizes):
            row = responses(n).iloc[i]
            check(row.response, row.question, sizes)
        one()
    assert len(registry()) and len(runs) > 50


def test_letter_by_letter(recordings):
    run = responses(0)
    for row in run.head(40).itertuples():
        check(row.response, row.question, [1] * len(row.response))


def test_an_endless_answer_does_not_cost_its_square():
    import time
    unit = "<fact1>3 hats</fact1> and <fact2>4 caps</fact2>. "

    def spent(times):
        text, begun = f"Reformatted Question: {QUESTION}\n\nAnswer: " + unit * times, time.process_time()
        reader = StreamParser(QUESTION)
        for i in range(0, len(text), 50):
            reader.feed(text[i:i + 50])
        last, parsed = reader.close()
        assert len(parsed.facts) == 2 * times
        return time.process_time() - begun

    assert min(spent(2000) for _ in range(3)) < 10 * min(spent(500) for _ in range(3))  # the least: a full process collects garbage
