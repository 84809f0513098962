"The page of the human study in a browser: arms, clock, log; and what the log says."
import json

import pytest

from paper_digest.core import UserError
from paper_digest.hot.checks import check
from paper_digest.hot.judged import read_log, read_study, study_table
from paper_digest.hot.study import StudyItem, practice_items, write_study
from paper_digest.hot.tags import parse

GOOD = "Reformatted Question: A box has <fact1>{n} pens</fact1>. How many?\nAnswer: It has <fact1>{n} pens</fact1>. The answer is {{{a}}}."
ITEMS = [StudyItem(f"item-{n}", parse(GOOD.format(n=n, a=n if n % 2 else n + 1)), bool(n % 2)) for n in range(10, 18)]


@pytest.fixture
def page(browser, tmp_path):
    "Opens the study; nothing may reach a network or fail."
    file = write_study(ITEMS, tmp_path / "study.html", each=4, limit=5)
    tab, faults = browser.new_page(viewport={"width": 1000, "height": 640}), []
    tab.on("pageerror", lambda e: faults.append(str(e)))
    tab.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    tab.on("request", lambda r: faults.append(r.url) if not r.url.startswith(("file:", "blob:")) else None)

    def begin(arm):
        tab.goto(f"file://{file}?arm={arm}")
        tab.fill("#name", "P <7>")
        tab.click("text=Begin")
        return tab

    yield begin
    assert not faults
    tab.close()


def practise(tab):
    "Answer the practice items, the second one wrong."
    for i, key in enumerate("cci"):
        tab.keyboard.press(key)
        tab.click("#next")
        assert tab.inner_text("#told").startswith(("Yes", "No", "No")[i])
        tab.click("#next")


def save(tab, tmp_path):
    with tab.expect_download() as d:
        tab.click("#save")
    d.value.save_as(tmp_path / "log.json")
    return tmp_path / "log.json"


@pytest.mark.parametrize("arm", ["HoT", "CoT"])
def test_a_person_works_through_the_page(page, arm, tmp_path, artifacts):
    tab = page(arm)
    assert tab.locator("mark.f").count() == (6 if arm == "HoT" else 0) and "Time left: 0:0" in tab.inner_text("#left")
    tab.screenshot(path=artifacts / f"hot-study-{arm}.png")
    practise_keys = "cii"
    for key in practise_keys[:3]:
        tab.keyboard.press(key)
        tab.click("#next")
        tab.click("#next")
    tab.keyboard.press("c")
    tab.keyboard.press("i")  # changed before Next
    tab.click("#next")
    tab.click("#yes")
    tab.get_by_text("Answer 3 of 4").wait_for()  # time runs out with a choice
    tab.get_by_text("Answer 4 of 4").wait_for()  # and without one
    tab.keyboard.press("c")
    tab.click("#next")
    log = read_log(save(tab, tmp_path))
    assert (log["name"], log["arm"], log["limit"]) == ("P <7>", arm, 5)
    main = [a for a in log["answers"] if not a["practice"]]
    assert [(a["choice"], a["timed_out"]) for a in main] == [
        ("incorrect", False), ("correct", True), (None, True), ("correct", False)]
    assert main[1]["seconds"] == 5 and main[0]["seconds"] < 5
    right = {i.id: i.right for i in ITEMS}
    assert sorted(right[a["id"]] for a in main) == [False, False, True, True]
    frame, dropped = read_study([tmp_path / "log.json"], [*ITEMS, *practice_items()])
    assert len(frame) == 3 and sum(dropped.values()) == 0 and frame.seconds.max() == 120  # as the published rules count it
    assert set(study_table(frame, resamples=50).variant) == {arm}


def test_too_little_right_in_practice_is_left_out(page, tmp_path):
    tab = page("HoT")
    practise(tab)
    for _ in range(4):
        tab.keyboard.press("c")
        tab.click("#next")
    frame, dropped = read_study([save(tab, tmp_path)], [*ITEMS, *practice_items()])
    assert frame.empty and dropped["practice"] == 1


def test_hostile_answers_stay_text(browser, tmp_path):
    bad = '</template><script>window.pwned=1</script><img src=x onerror=window.pwned=1> <fact1>"\'>x</fact1>'
    items = [StudyItem(f"i{n}", parse(f"Reformatted Question: {bad}\n\nAnswer: {bad} {{1}}"), bool(n)) for n in range(2)]
    tab = browser.new_page()
    tab.goto(f"file://{write_study(items, tmp_path / 's.html', each=2, practice=[])}?arm=HoT")
    tab.fill("#name", "x")
    tab.click("text=Begin")
    assert "<script>window.pwned=1</script>" in tab.inner_text("#spot") and tab.evaluate("window.pwned") is None
    tab.close()


def test_checks_take_any_text():
    for text in ("= = =", "1 = ", "(((1+2 = 3", "9^9^9^9 = 1", "1/0 = 2", "0.1.2 = 3", "5 % = 0.05", "x = y", "-=-", "1,2,3 = 6", "²=4"):
        check(parse(f"Answer: {text}. {{1}}", "What is 1?"))
    with pytest.raises(UserError, match="compare an answer with its question"):
        check(parse("Answer: 1"))
    assert json.dumps([vars(f) for f in check(parse("Answer: 7 {8}", "Why 1?"))])
