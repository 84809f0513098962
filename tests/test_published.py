"The published numbers: complete, unambiguous, and printed means against their own columns."
from pathlib import Path

import pytest

from paper_digest.data import KEYS, PAPERS, published, registry
from paper_digest.printed_means import footnotes, printed_means

ROOT = Path(__file__).resolve().parents[1]
# printed means that their own table contradicts: (paper, table, model, variant) -> (printed, recomputed)
SLIPS = {
    ("hot", "qa", "GPT-4o", "CoT"): ("81.81", 81.71),
    ("hot", "reasoningtrap", "Gemini-1.5-Pro", "CoT"): ("40.5", 50.04),
    ("hot", "reasoningtrap", "mean over models", "HoT-CoT"): ("11.38", 8.995),
    ("babel", "table4", "Gemma2-9B", ""): ("59.5", 59.2),
}


@pytest.mark.parametrize("paper", PAPERS)
def test_rows_are_complete_and_unambiguous(paper):
    rows = published(paper)
    assert list(rows.columns) == [*KEYS, "value", "printed", "source"]
    assert (rows[["table", "metric", "printed", "source"]] != "").all().all()
    assert not rows.duplicated(KEYS).any(), rows[rows.duplicated(KEYS, keep=False)]


def test_printed_versus_recomputed():
    found = {}
    for paper in PAPERS:
        for _, row in printed_means(paper).query("not agrees").iterrows():
            found[paper, row["table"], row["model"], row["variant"]] = (row["printed"], row["recomputed"])
    assert found == SLIPS


def test_enough_means_were_checked():
    counts = {"self_rewarding": 19, "abc": 18, "hot": 74, "babel": 21}
    assert {p: len(printed_means(p)) for p in counts} == counts


def test_slips_are_footnotes_and_the_printed_value_stays():
    notes = footnotes("hot")
    key = ("reasoningtrap", "Gemini-1.5-Pro", "CoT", "Task Mean", "", "accuracy %")
    assert notes[key] == "printed 40.5; the mean of its 3 printed cells is 50.04"
    rows = published("hot")
    assert rows[(rows[KEYS] == key).all(axis=1)]["value"].item() == 40.5


def test_registry_rows_are_complete():
    for e in registry().values():
        assert len(e.sha256) == 64 and e.bytes > 0 and e.dataset and e.file and e.licence, e
        assert not Path(e.file).is_absolute() and ".." not in e.file
