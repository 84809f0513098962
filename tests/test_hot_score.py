"Scoring of HoT responses: hand-worked values of every rule, the published cells, and what faulty data do."
import csv
import hashlib
import io
import math
import os
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest import data
from paper_digest.core import UserError
from paper_digest.hot import claims, replay
from paper_digest.hot.letter_rules import _warn_no_question
from paper_digest.hot.number_rules import after_brace, candidates
from paper_digest.hot.official import points
from paper_digest.hot.score import score
from paper_digest.hot.stated import score_stated, stated
from paper_digest.hot.strict import extract, matches, read_numbers
from paper_digest.hot.tasks import MODELS, TASKS, load_run, load_task, parse_gold, recorded_runs, task

AQUA = "How many flowers?\n# Answer option: ['A)2000', 'B) 4000', 'C)8 km', 'D)16000', 'E)None of these']"
BBH = "Which bird is second?\nOptions:\n(A) The owl is second\n(B) The crow is second\n(C) The quail is second\n(R) The hen is second"
here = pytest.mark.usefixtures("recordings")


# --- hand-worked values ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("response, gold, official, strict", [
    ("The answer is {18}.", "#### 18", True, True),
    ("The answer is {18.0}.", 18, True, True),
    ("The answer is {$1,800.00}.", "#### 1,800", True, True),
    ("The answer is {18 eggs}.", 18, True, True),
    ("The answer is {9 * 2 = 18}.", 18, True, True),
    ("The answer is {-3}.", "#### -3", True, True),
    ("The answer is {19}.", 18, False, False),
    ("First {18}, no, the answer is {19}.", 18, False, False),     # the last braces
    ("The answer is 18.", 18, True, False),                        # no braces
    ("She has 18 eggs\nso 20 in all", 18, False, False),           # without a cue a line is not searched
    ("There is 18\nso 20 in all", 18, True, False),                # with one it is, wherever it stands
    ("The answer is {18", 18, True, False),                        # never closed
    ("The answer is {}.", 18, False, False),
    ("{", 18, False, False),
    ("", 18, False, False),
    (None, 18, False, False),
    (float("nan"), 18, False, False),
    ("Die Lösung ist {१८}", 18, True, True),                       # digits of another script are numbers to Python
    (r"\[ \boxed{18} \]", 18, True, True),
    (r"\boxed{\text{18}}", 18, True, True),
    (r"So \frac{1}{2} of 36.", 2, True, False),                    # the 2 of a fraction is no answer
    ("The answer is {<fact2>18</fact2>}.", 18, True, True),
])
def test_math(response, gold, official, strict):
    assert score("GSM8K", response, gold) is official
    assert score("GSM8K", response, gold, "strict") is strict


@pytest.mark.parametrize("response, gold, official, strict", [
    ("{13}", "13", True, True),
    ("{12}", "13", True, False),        # one less
    ("{14}", "13", False, False),       # one more
    ("{0.13}", "13", True, False),      # dollars for cents
    ("{1300}", "13", True, False),
    ("It costs 130 dollars", "13", True, False),   # digits inside other digits
    ("{12, 36}", ["36", "12"], True, True),        # official: any candidate; strict: both, in any order
    ("{36}", ["36", "12"], True, False),
    ("{12}", ["36", "12"], False, False),
])
def test_asdiv(response, gold, official, strict):
    assert score("ASDiv", response, gold) is official
    assert score("ASDiv", response, gold, "strict") is strict


@pytest.mark.parametrize("response, gold, official, strict", [
    ("So the answer is {D}.", "D", True, True),
    ("So the answer is {D) 16000}.", "D", True, True),
    ("So the answer is {16000}.", "D", True, True),
    ("So the answer is {4000}.", "B", False, True),       # the official text of B begins with a blank
    ("So the answer is { 4000}.", "B", True, True),
    ("So the answer is {d}.", "D", False, True),          # official wants a capital
    ("Dividing both, so none fits.", "D", True, False),
    ("{A or D}", "D", True, False),
    ("{A or D}", "A", True, False),
])
def test_aqua(response, gold, official, strict):
    assert score("AQUA", response, gold, question=AQUA) is official
    assert score("AQUA", response, gold, "strict", question=AQUA) is strict


@pytest.mark.parametrize("response, gold, official, strict", [
    ("{true}", True, True, True),
    ("{No}", False, True, True),
    ("{ no }", False, False, True),               # official does not strip: text, so True
    ("{likely}", True, True, False),
    ("{likely}", False, False, False),
    ("{}", False, True, False),                   # empty is False
    ("{no} ... {yes}", False, True, False),       # official reads the first, strict the last braces
    ("I cannot tell.", True, True, False),
    ("I cannot tell.", False, False, False),
    ("[false]", False, False, False),
    ("There is no proof, yes, but the answer is no", False, True, False),
    ("There is no proof, yes, but the answer is no", True, True, False),
    ("It is true. But no one knows.", True, True, False),    # " no " hides " true.", then the default is True
    ("", True, True, False),
    ("", False, False, False),
])
def test_bool(response, gold, official, strict):
    assert score("StrategyQA", response, gold) is official
    assert score("StrategyQA", response, gold, "strict") is strict


@pytest.mark.parametrize("response, official, strict", [
    ("The answer is {05/01/2021}.", True, True),
    ("Tomorrow is 05/01/2021. The answer is {05/02/2021}.", True, False),
    ("The answer is {5/1/2021}.", False, False),
    ("{05/01/2021 or so}", True, False),
    ("May 1st", False, False),
])
def test_date(response, official, strict):
    assert score("Date", response, "#### 05/01/2021") is official
    assert score("Date", response, "05/01/2021", "strict") is strict


@pytest.mark.parametrize("response, gold, official, strict", [
    ("{2}", [3.0, 2.0], True, True),
    ("{15.4 million}", [15.4], True, True),
    ("{2 and 3}", [3.0, 2.0], True, False),    # both is not one of them
    ("{4}", [3.0, 2.0], False, False),
])
def test_drop(response, gold, official, strict):
    assert score("DROP Break", response, gold) is official
    assert score("DROP Break", response, gold, "strict") is strict


@pytest.mark.parametrize("response, gold, official, strict", [
    ("Answer: {C}", "C", True, True),
    ("Answer: {R}", "R", True, True),
    ("Answer: C", "C", True, False),
    ("{(C) The quail is second}", "C", True, True),
    ("{The quail is second}", "C", True, True),
    ("{cannot say}", "A", True, False),                                         # an a
    ("Thus (C) it is, as (said above)", "A", True, False),                      # an a in the last parenthesis
    ("Therefore the answer is The owl is second", "C", True, False),            # the text of any option
    ("Taking all of this together one must say B", "B", False, False),          # the scan starts at the a of Taking
    ("If this is so it is ours to say: B is", "B", False, False),
    ("Our own hunt is on: C it is", "C", True, False),                          # no a-g before it
])
def test_bbh(response, gold, official, strict):
    assert score("BBH Colored Objects", response, gold, question=BBH) is official
    assert score("logical_deduction_seven_objects", response, gold, "strict", question=BBH) is strict


def test_points_of_a_scan_can_exceed_one():
    assert points("BBH Colored Objects", "Our own two: C] is it, or C] of two", "C", BBH) == 2
    assert score("BBH Colored Objects", "Our own two: C] is it, or C] of two", "C", question=BBH) is True


def test_pieces():
    assert after_brace("a {b} {c} d") == "c"
    assert after_brace("a} b") == "a"
    assert candidates("the result is 5") == [5.0, 5.0]
    assert candidates("x = 3") == [3.0, 3.0]
    assert candidates("it is b") == [" b", "b "]
    assert read_numbers("1,400") == 1400 and read_numbers("1,4") == (1, 4) and read_numbers("2 + 2") is None


def test_names_and_errors():
    for t in TASKS.values():
        assert task(t.name) is task(t.label) is task(t.label.upper()) is t
    with pytest.raises(UserError, match="choose one of GSM8K"):
        score("GSM9K", "{1}", 1)
    with pytest.raises(UserError, match="official or strict"):
        score("GSM8K", "{1}", 1, "lenient")
    for wrong in ("eighteen", None, float("nan"), float("inf"), ""):
        with pytest.raises(UserError, match="no gold answer"):
            score("GSM8K", "{1}", wrong)


def test_missing_question_is_said_once():
    _warn_no_question.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert not score("AQUA", "{16000}", "D") and not score("AQUA", "{16000}", "D") and score("AQUA", "{D}", "D")
    assert [str(w.message)[:4] for w in caught] == ["AQuA"]
    assert extract("AQUA", "{16000}") is None and extract("AQUA", "{16000}", AQUA) == "D"


def test_stated():
    assert stated("GSM8K", "Therefore, they had 74 loaves left.") == 74
    assert stated("GSM8K", "Therefore, they had 74 loaves left. The answer is {75}.") == 75     # braces first
    assert stated("AQUA", "So the answer is D)(zy - 2x)/(z - 2).", AQUA) == "D"
    assert stated("BBH Seven Objects", "Therefore, the answer is (C).", BBH) == "C"
    assert stated("StrategyQA", "[false]") is False
    assert stated("StrategyQA", "This cannot be answered from the text.") is None
    assert score_stated("ASDiv", "Kane's age is 6 and Nick's age is 5.", ["5", "6"])


# --- properties --------------------------------------------------------------------------------------------------

GOLDS = {"math": 18.0, "asdiv": (5.0, 6.0), "aqua": "D", "bool": True, "date": "05/01/2021", "drop": (3.0, 2.0), "bbh": "C"}
pieces = st.sampled_from(["{", "}", "\\boxed{", "\\frac{", "(", ")", "Answer: ", "the answer is ", "18", "1,800", "-.5", "3/0", "D)", "C",
                          "yes,", " no ", "true", "05/01/2021", "<fact1>", "</fact1>", "$", "\n", ". ", "=", "e5", "²", "١٨", "\u202e", "𝟙", "nan", "inf"])
texts = st.one_of(st.text(), st.lists(st.one_of(pieces, st.text(max_size=3)), max_size=25).map("".join))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(TASKS.values())), st.one_of(texts, st.none()), st.sampled_from([AQUA, BBH, "", None]))
def test_any_text_is_scored(t, response, question):
    gold = GOLDS[t.rule]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert points(t, response, gold, question) >= 0
        strict = score(t, response, gold, "strict", question)
    assert isinstance(strict, bool)
    answer = extract(t, response, question)
    if strict:
        assert answer is not None
    if answer is not None:
        assert stated(t, response, question) == answer or answer != answer
    score_stated(t, response, gold, question)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="{}"), max_size=60), st.integers(-10**6, 10**6))
def test_a_number_in_the_last_braces_is_read(before, value):
    response = f"{before} . The answer is {{{value:,}}}."
    assert extract("GSM8K", response) == value
    assert score("GSM8K", response, value) and score("GSM8K", response, value, "strict")
    assert not score("GSM8K", response, value + 1) and not score("GSM8K", response, value + 1, "strict")


@settings(max_examples=200, deadline=None)
@given(texts)
def test_strict_numbers_match_themselves(response):
    answer = extract("ASDiv", response)
    if answer is not None and all(math.isfinite(v) for v in (answer if isinstance(answer, tuple) else (answer,))):
        assert matches("ASDiv", answer, answer)


# --- the recorded responses --------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def frame(recordings):
    return replay.score_runs()


@here
def test_all_published_cells(frame):
    cells = replay.beside_published(replay.cells(frame)).query("scoring == 'official'")
    main = cells[cells["table"].isin(claims.MAIN_TABLES)]
    assert len(frame) == 92_103 and len(main) == 88 and len(cells) == 108
    far = cells[~(cells["difference"].abs() <= 0.0051)]     # NaN, an unpublished cell, is far too
    assert far.empty, far[["model", "variant", "dataset", "value", "published"]]
    assert cells["n"].between(200, 2290).all()


@here
def test_subsample_is_paired_and_seeded():
    runs = [(task("AQUA"), mode, m) for mode in ("cot", "hot") for m in list(MODELS)[:2]]
    small, again, other = (replay.score_runs(60, seed, runs) for seed in (1, 1, 2))
    assert small.equals(again) and not small.equals(other)
    assert set(small.groupby(["model", "mode"]).size()) <= {59, 60}     # one run lacks a question
    ids = small[small["model"] == "Gemini-1.5-Pro"].groupby("mode")["id"].apply(set)
    assert ids["cot"] == ids["hot"]
    assert (small.query("strict == 1")["answered"]).all() and (small.query("stated == 1")["states"]).all()


@here
def test_gains(frame):
    gain = replay.gains(frame, resamples=500).set_index(["model", "dataset", "scoring"])
    assert gain.loc[("Gemini-1.5-Flash", "AQUA", "official"), "gain"] == pytest.approx(14.64, abs=.005)
    assert gain.loc[("Llama-3.1-70B", "StrategyQA", "official"), "gain"] == pytest.approx(15.07, abs=.005)
    assert (gain["ci_low"] <= gain["gain"] + .05).all() and (gain["gain"] <= gain["ci_high"] + .05).all()
    means = claims.mean_gains(frame, resamples=500).query("dataset == '' and scoring == 'official'").set_index("table")
    same = claims.published_gains().set_index("table")
    # one lost response and cells printed to two decimals
    assert (means["gain"] - same["same_cells"]).abs().max() < .01
    assert list(means["cells"]) == [24, 12, 8]


@here
def test_controls(frame):
    letters = claims.constant_letters().set_index(["model", "variant"])
    assert letters.loc[("Gemini-1.5-Flash", "CoT"), "highest"] < 27 and letters.loc[("Gemini-1.5-Flash", "HoT"), "lowest"] > 84
    shares = claims.default_shares(frame).set_index(["model", "variant"])["by_default"]
    assert shares[("Gemini-1.5-Pro", "CoT")] < 1 and shares[("Llama-3.1-70B", "HoT")] > 30


# --- the way from a file to a cell -------------------------------------------------------------------------------

FILES = ("hot_tasks/SVAMP/test.jsonl", "hot_responses/SVAMP/cot/gemini-1.5-pro-002.csv")


@pytest.fixture
def mirror(recordings, tmp_path, monkeypatch):
    "A writable copy of one run with its own registry: mirror(file, content) replaces a file in both."
    original = {f: data.read(f.split("/")[0], f) for f in FILES}
    monkeypatch.setenv("PAPER_DIGEST_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("PAPER_DIGEST_REGISTRY", str(tmp_path / "registry.csv"))
    stamp = iter(range(1, 100))

    def put(file=None, content=b"", register=True):
        if file:
            original[file] = content
        rows = []
        for name, body in original.items():
            target = tmp_path / "mirror" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
            rows.append([name.split("/")[0], name, hashlib.sha256(body).hexdigest(), len(body), 1, "", "", "", "", ""])
        if register:
            path = tmp_path / "registry.csv"
            with open(path, "w", newline="", encoding="utf-8") as f:
                csv.writer(f).writerows([["dataset", "file", "sha256", "bytes", "rows", "licence", "repo", "commit", "path", "note"], *rows])
            os.utime(path, (0, next(stamp)))  # the registry is cached by its time
    put()
    return put


def svamp():
    run = load_run("SVAMP", "cot", "Gemini-1.5-Pro")
    return replay.cells(replay.score_run("SVAMP", "cot", "Gemini-1.5-Pro", run)).set_index("scoring")["value"]


def rows_of(run_file):
    return list(csv.reader(io.StringIO(data.read("hot_responses", run_file).decode("utf-8"), newline="")))


def as_csv(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode("utf-8")


@here
def test_one_changed_answer_changes_the_cell(mirror):
    before = svamp()
    rows = rows_of(FILES[1])
    gold = dict(zip(load_task("SVAMP")["id"], load_task("SVAMP")["gold"]))
    k = next(i for i, r in enumerate(rows) if i and score("SVAMP", r[2], gold[r[0]], "strict"))
    rows[k][2] = rows[k][2][:rows[k][2].rindex("{")] + "{987654}."
    mirror(FILES[1], as_csv(rows))
    after = svamp()
    assert before["official"] == pytest.approx(94.7)
    assert (before - after).round(6).tolist() == [0.1, 0.1, 0.1]


@here
def test_a_change_without_a_new_checksum_is_refused(mirror):
    mirror(FILES[1], as_csv(rows_of(FILES[1])[:-1]), register=False)
    with pytest.raises(data.DataError, match="sha256 expected"):
        svamp()


@here
def test_faulty_files(mirror):
    good = rows_of(FILES[1])
    for rows, message in [([["id", "question", "text"], *good[1:]], "column answer missing"), (good[:1], "holds no record"),
                          ([*good, good[5]], "appear more than once"),
                          ([good[0], ["x1", "q", "{1}"]], "none of its 1 ids has a gold answer")]:
        mirror(FILES[1], as_csv(rows))
        with pytest.raises(data.DataError, match=message):
            svamp()
    mirror(FILES[1], b"")
    with pytest.raises(data.DataError):
        svamp()
    mirror(FILES[1], as_csv([*good, ["x1", "q", "{1}"]]))
    with pytest.warns(UserWarning, match="1 of 1001 rows have no gold answer"):
        assert svamp()["official"] == pytest.approx(94.7)


@here
def test_faulty_golds(mirror):
    good = data.read("hot_tasks", FILES[0])
    lines = good.splitlines()
    for content, message in [(b"\n".join([*lines, lines[0]]), "appear more than once"),
                             (good.replace(b'"answer"', b'"gold"'), "column answer missing"),
                             (good.replace(b"#### 51", b"#### fifty-one", 1), "no gold answer of this task")]:
        mirror(FILES[0], content)
        with pytest.raises(UserError, match=message):
            svamp()


@here
def test_int_and_str_ids_are_the_same(mirror):
    mirror(FILES[0], data.read("hot_tasks", FILES[0]).replace(b'{"id": 7,', b'{"id": "7",'))
    assert svamp()["official"] == pytest.approx(94.7)


@here
def test_registry_lists_108_runs_and_all_golds_parse():
    assert len(recorded_runs()) == 108
    for t in TASKS.values():
        golds = load_task(t)
        assert golds["gold"].map(lambda g: parse_gold(t, g) == g).all()     # parsing twice changes nothing
        if t.rule in ("aqua", "bbh"):
            assert golds["gold"].str.fullmatch("[A-R]").all()
