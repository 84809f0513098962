"The HoT reader: a response is a stranger's text, and everybody must be able to read it."
import html
import json
import random
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paper_digest.hot import marks, pages, reader, tree
from paper_digest.hot.issues import IssueKind
from paper_digest.hot.looks import INK, LOOKS, contrast, palette
from paper_digest.hot.pages import Item, script_json, write_page
from paper_digest.hot.tags import parse

QUESTION = "Sam works 8 hours a day, five days a week, at $15 an hour. How much does Sam earn in a week?"
RESPONSE = ("Reformatted Question: Sam works <fact1>8 hours a day</fact1>, <fact2>five days a week</fact2>, at "
            "<fact3>$15 an hour</fact3>. How much does Sam earn in a week?\n\n"
            "Answer: Sam works <fact1>8 hours a day</fact1> on <fact2>5 days a week</fact2>, so 8 * 5 = 40 hours. At "
            "<fact3>the hourly wage</fact3> that is 40 * 15 = $600, before <fact7>income tax</fact7>. The answer is {600}.")
# each tries to run something (setting window.pwned or opening a dialog), to fetch something, or to break out of its place
ATTACKS = [
    "<script>window.pwned=1;alert(1)</script>",
    "</script><script>window.pwned=1</script>",
    "</SCRIPT ><img src=x onerror=window.pwned=1>",
    "<!--<script>", "--><svg/onload=window.pwned=1>", "]]><iframe src=javascript:alert(1)>",
    "<fact1 onmouseover=window.pwned=1 x1=2>2 pens</fact1>",
    "<fact1><img src='http://127.0.0.1:9/x.png' onerror='window.pwned=1'></fact1>",
    "<style>body{display:none}</style><link rel=stylesheet href=http://127.0.0.1:9/x.css>",
    "<a href='javascript:window.pwned=1' autofocus onfocus=window.pwned=1>click</a>",
    "<fact2>never closed <b><i><table><textarea><title><noscript><plaintext>",
    "\"><input autofocus onfocus=window.pwned=1>", "'+window.pwned=1+'", "{{constructor.constructor('window.pwned=1')()}}",
    "<fact3>pay \u202e001$\u202c</fact3> \u2066now\u2069 \u200b\ufeff\x00\x1b[31m \U000e0041\U000e0042",
    "\u2028window.pwned=1\u2029", "\ud800 lone", "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<base href=http://127.0.0.1:9/><form action=x><button>", "<math><mtext></mtext><script>window.pwned=1</script></math>",
]
OURS = {"article", "header", "div", "section", "p", "span", "b", "details", "summary", "ul", "li", "mark", "sup", "bdi", "style"}


def hostile(attack):
    "An attack in every place a response has."
    response = f"{attack}\nReformatted Question: <fact1>{attack}</fact1> {attack}\n\nAnswer: {attack} <fact1>{attack}</fact1>. The answer is {{{attack}}}."
    return Item(parse(response, f"{attack} what?"), attack, attack, attack, attack, False)


class Seen(HTMLParser):
    "Elements, attributes and text of a document, as a browser's tokenizer finds them."

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.attrs, self.scripts, self.texts, self._in, self._skip = [], set(), [], [], [], 0
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs |= {k for k, _ in attrs}
        self._in.append((tag, dict(attrs)))
        if dict(attrs).get("class") == "txt":
            self.texts.append("")
        if tag == "sup":
            self._skip += 1

    def handle_endtag(self, tag):
        if tag == "sup":
            self._skip -= 1
        while self._in and self._in.pop()[0] != tag:
            pass

    def handle_data(self, data):
        inside = [t for t, _ in self._in]
        if inside and inside[-1] == "script":
            self.scripts.append(data)
        elif self.texts and not self._skip and any(a.get("class") == "txt" for _, a in self._in):
            self.texts[-1] += data


# ---------------------------------------------------------------------------------------------------------- no browser

@pytest.mark.parametrize("side", [0, 1], ids=["light", "dark"])
def test_contrast_of_every_text_on_every_ground(side):
    c = {k: v[side] for k, v in palette().items()}
    for i in range(10):
        assert contrast(c["ink"], c[f"ground{i}"]) >= 7 and contrast(c["ink"], c[f"weave{i}"]) >= 4.5
        assert contrast(c["paper"], c[f"strong{i}"]) >= 4.5 and contrast(c[f"strong{i}"], c["paper"]) >= 4.5
    for text in ("ink", "soft", "right", "wrong", "warn"):
        for ground in ("paper", "desk"):
            assert contrast(c[text], c[ground]) >= 4.5, (text, ground)
    assert {"ink", "soft", "paper", "desk"} <= set(INK)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: ascii(a[:24]))
def test_attacks_stay_text_in_a_fragment(attack):
    item = hostile(attack)
    fragment = reader.to_html(item.parsed, item.title, item.gold, item.correct)
    seen = Seen(fragment)
    assert set(seen.tags) <= OURS and seen.attrs <= {"class", "dir", "title", "tabindex", "open", "aria-label"}
    assert not marks.UNSEEN.search(fragment)
    fragment.encode("utf-8")
    assert reader.to_text(item.parsed)


def test_the_text_shown_is_the_text(recordings):
    from paper_digest.data import load
    for file in ("StrategyQA/hot/llama_sambanova_8b.csv", "AQUA/hot/gemini-1.5-pro-002.csv", "drop_break/hot/llama_sambanova_405b.csv"):
        run = load("hot_responses", file)
        for q, a in list(zip(run.question, run.answer))[:150]:
            p = parse(a, q)
            want = [t for t in (p.question, p.question_text, p.answer_text) if t]
            assert Seen(reader.to_html(p, style=False)).texts[:len(want)] == [marks.plain(t.strip()) for t in want]


parts = st.one_of(st.sampled_from(["<fact1>", "</fact1>", "<fact2>", "</fact2>", "<fact30>", "</fact30>", "<fact>", "Answer:", "{", "}",
                                   "Reformatted Question:", "\n", " ", "<b>", "&amp;", *ATTACKS]), st.text(max_size=12))


@settings(max_examples=150, deadline=None)
@given(st.lists(parts, max_size=25).map("".join), st.one_of(st.none(), st.text(max_size=40)))
def test_any_text_can_be_shown(response, question):
    p = parse(response, question)
    fragment = reader.to_html(p, style=False)
    assert set(Seen(fragment).tags) <= OURS
    seen, rows = tree.view(p)
    assert json.loads(script_json([seen, rows])) == [seen, rows]
    shown = "".join(re.sub(r"<sup.*?</sup>|<[^>]*>", "", fragment))
    assert html.escape(marks.plain(p.answer_text.strip())) in shown
    assert reader.to_text(p)


def test_hundreds_of_nested_facts_stay_affordable():
    n = 1500
    deep = "".join(f"<fact{i}>" for i in range(n)) + "x" + "".join(f"</fact{i}>" for i in reversed(range(n)))
    assert len(reader.to_html(parse(f"Answer: {deep}"))) < 2_000_000


def test_states_of_a_fact():
    assert [marks.fact_state(f, marks.backed_ids(p)) for p in [parse(RESPONSE, QUESTION)] for f in p.facts if f.part == "answer"
            ][::3] == ["copied", "none"]
    added = parse("Reformatted Question: Can Sam, <fact1>a wizard</fact1>, fly?\n\nAnswer: Yes, <fact1>wizards</fact1> fly.", "Can Sam fly?")
    assert {marks.fact_state(f, marks.backed_ids(added)) for f in added.facts} == {"none"}     # a number that points to nothing
    assert "the model added it" in reader.to_html(added)


def test_notebook_representations():
    p = parse(RESPONSE, QUESTION)
    assert p._repr_html_() == p.to_html() == reader.to_html(p)
    assert "<script" not in p._repr_html_() and "http" not in p._repr_html_()
    assert "[7?: income tax]" in reader.to_text(p)


def test_page_holds_no_markup_of_a_response(tmp_path):
    page = write_page([hostile(a) for a in ATTACKS], tmp_path / "p.html", title=ATTACKS[1], about=ATTACKS[2]).read_text("utf-8")
    seen = Seen(page)
    assert len(seen.scripts) == 3 and seen.scripts[-1] == pages.SCRIPT
    assert not re.search(r"\bon\w+=|javascript:", "".join(f"<{t}" for t in seen.tags) + " ".join(seen.attrs))
    assert set(seen.tags) <= OURS | {"html", "head", "meta", "title", "body", "h1", "button", "label", "input", "select", "option", "nav",
                                     "main", "kbd", "footer", "noscript", "script"}
    assert [json.loads(s) for s in seen.scripts[:2]]


def test_page_is_whole_or_not_there(tmp_path):
    def items():
        yield Item(parse("Answer: {1}"))
        raise ValueError("stopped")
    with pytest.raises(ValueError):
        write_page(items(), tmp_path / "p.html")
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- in a browser

@pytest.fixture
def opened(browser, tmp_path):
    "Open items (or a ready HTML text) as a page from disk; fail on any dialog, request, error or set global."
    made = []

    def open_(items, width=1280, height=820, scheme="light", script=True, fragment=None, **kw):
        path = tmp_path / f"page{len(made)}.html"
        if fragment is None:
            write_page(items, path, **kw)
        else:
            path.write_text(f'<!doctype html><meta charset="utf-8"><body>{fragment}', encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=script)
        page = context.new_page()
        page.bad = []
        page.on("dialog", lambda d: (page.bad.append(f"dialog {d.message}"), d.dismiss()))
        page.on("request", lambda r: None if r.url.startswith(path.as_uri()) else page.bad.append(f"request {r.url}"))
        page.on("pageerror", lambda e: page.bad.append(f"error {e}"))
        page.on("console", lambda m: page.bad.append(f"console {m.text}") if m.type == "error" else None)
        page.goto(path.as_uri())
        made.append((context, page))
        return page

    yield open_
    for context, page in made:
        assert page.bad == []
        context.close()


def style(locator, name, pseudo=None):
    return locator.evaluate("(e, [n, p]) => getComputedStyle(e, p)[n]", [name, pseudo])


def example(n=12):
    "Responses of two tasks and three models, some wrong, one with an odd fact."
    items = [Item(parse(RESPONSE.replace("income tax", f"income tax {i}"), QUESTION), ("pay", "pens")[i % 2], f"model {i % 3}", str(i), "600",
                  (True, False, None)[i % 3]) for i in range(n - 2)]
    plain = "Reformatted Question: <fact1>2 pens</fact1> at <fact2>$3</fact2>?\n\nAnswer: <fact1>2</fact1> * <fact2>3</fact2> = {6}."
    return items + [Item(parse(plain, "2 pens at $3?"), "pens", "model 0", "plain", "6", True), Item(parse("I cannot say.", "Zebra?"), "pens", "model 1", "void")]


def test_attacks_do_nothing_in_a_page(opened):
    page = opened([hostile(a) for a in ATTACKS])
    for i in range(len(ATTACKS)):
        assert page.inner_text("#place") == f"{i + 1} of {len(ATTACKS)}"
        for details in page.query_selector_all("#view details:not([open]) > summary"):
            details.click()
        for mark in page.query_selector_all("#view .f[tabindex]"):
            mark.focus()
            mark.hover()
        page.click("#next") if i + 1 < len(ATTACKS) else None
    assert page.evaluate("window.pwned") is None
    assert page.eval_on_selector_all("script", "all => all.length") == 3
    assert not page.query_selector("#view :is(script, img, iframe, style, link, a, input, svg, form, table, textarea, base, meta)")
    assert page.is_visible("#view")


def test_policy_stops_what_would_be_injected(opened):
    page = opened(example())
    page.evaluate("""() => {
        const s = document.createElement("script"); s.textContent = "window.pwned = 1"; document.body.append(s);
        const d = document.createElement("div"); d.innerHTML = "<img src=x onerror='window.pwned=1'>"; document.body.append(d); }""")
    page.wait_for_timeout(200)
    assert page.evaluate("window.pwned") is None
    assert all("Content Security Policy" in m or "x" in m for m in page.bad) and page.bad
    page.bad.clear()


def test_attacks_do_nothing_in_a_notebook_fragment(opened):
    page = opened(None, fragment="".join(reader.to_html(hostile(a).parsed, a, a, True) for a in ATTACKS))
    assert page.evaluate("window.pwned") is None
    assert page.locator(".pdhot").count() == len(ATTACKS)
    assert not page.query_selector(".pdhot :is(script, img, iframe, link, a, input, svg, form)")


def test_script_and_python_build_the_same(opened, recordings):
    from paper_digest.data import load
    run = load("hot_responses", "StrategyQA/hot/llama_sambanova_8b.csv")
    items = [hostile(a) for a in ATTACKS if "\ud800" not in a and "\x00" not in a]
    items += [Item(parse(a, q), "StrategyQA", "8B", i) for i, q, a in list(zip(run.id, run.question, run.answer))[:40]]
    page = opened(items)
    for i, item in enumerate(items):
        made = page.locator("#view article").evaluate("e => e.outerHTML")
        want = page.evaluate("""text => { const d = new DOMParser().parseFromString(text, "text/html"); return d.body.firstElementChild.outerHTML }""",
                             reader.to_html(item.parsed, item.title, item.gold_text, item.correct, style=False))
        assert made == want, i
        page.keyboard.press("j")


@pytest.mark.parametrize("script", [True, False], ids=["page", "fragment without script"])
def test_hover_and_focus_light_both_sides(opened, artifacts, script):
    item = example()[0]
    page = opened([item]) if script else opened(None, script=False, fragment=reader.to_html(item.parsed))
    if script:
        page.click(".copy summary")
    clear = "rgba(0, 0, 0, 0)"

    def lit(selector):
        return style(page.locator(selector), "outlineColor") != clear

    places = [".q > .txt", ".copy .txt", ".a .txt"] if script else [".q > .txt", ".a .txt"]
    assert not any(lit(f"{p} .k1") for p in places)
    page.hover(".a .txt .k1")
    assert all(lit(f"{p} .k1") for p in places) and not any(lit(f"{p} .k0") for p in places)
    page.screenshot(path=artifacts / f"hot-reader-hover{'' if script else '-fragment'}.png")
    page.mouse.move(2, 2)
    assert not any(lit(f"{p} .k1") for p in places)
    page.focus(".q > .txt .k2")
    assert all(lit(f"{p} .k2") for p in places)
    if script:
        assert page.inner_text("#said").startswith("fact 3")
        page.focus(".a .txt .k3")
        assert "no source" in page.inner_text("#said")
    assert style(page.locator(".a .k3"), "borderTopStyle") == "dashed"           # no source: hollow and framed
    assert style(page.locator(".a .k3"), "backgroundImage") == "none"


def test_keyboard(opened):
    page = opened(example())
    page.keyboard.press("j")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#place") == "3 of 12" and page.url.endswith("#3")
    page.keyboard.press("k")
    assert page.inner_text("#place") == "2 of 12"
    page.focus("#next")
    page.keyboard.press("Tab")
    seen = []
    for _ in range(8):                                    # from the buttons through every fact of question and answer
        seen.append(page.evaluate("[document.activeElement.className, getComputedStyle(document.activeElement).outlineStyle]"))
        page.keyboard.press("Tab")
    facts = [s for s in seen if s[0].startswith("f ")]
    assert len(facts) == 7 and all(outline == "solid" for _, outline in facts)
    page.focus("#list")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#place") == "3 of 12"
    assert page.get_attribute("#list", "aria-activedescendant") == "row2" and page.get_attribute("#row2", "aria-selected") == "true"
    page.keyboard.press("End")
    assert page.inner_text("#place") == "12 of 12" and page.is_disabled("#next")
    page.keyboard.press("/")
    page.keyboard.type("jk")                              # letters in the search box do not move
    assert page.input_value("#search") == "jk" and page.evaluate("document.activeElement.id") == "search"


def test_filters_and_search(opened):
    page = opened(example(), title="Filters")

    def shown():
        return page.inner_text("#count")

    assert shown() == "12 responses" and page.is_hidden("#reset")
    page.select_option("#task", label="pens (7)")
    assert shown() == "7 of 12 responses"
    page.select_option("#verdict", label="wrong (3)")
    assert shown() == "2 of 12 responses"
    page.click("#reset")
    assert shown() == "12 responses"
    page.select_option("#model", label="model 2 (3)")
    assert shown() == "3 of 12 responses" and "model 2" in page.inner_text("#view header")
    page.click("#reset")
    page.select_option("#fact", "all")
    assert shown() == "1 of 12 responses" and "plain" in page.inner_text("#view header")
    page.click("#reset")
    missing = page.locator("#issue option", has_text="no final answer")
    page.select_option("#issue", missing.get_attribute("value"))
    assert shown() == "1 of 12 responses" and "void" in page.inner_text("#view header")
    page.click("#reset")
    for text, count in (("ZEBRA", "1 of 12"), ("income tax 4", "1 of 12"), ("2 pens at $3", "1 of 12"), ("model 1", "4 of 12"), ("<b>", "0 of 12")):
        page.fill("#search", text)
        page.locator("#count", has_text=f"{count} responses").wait_for(timeout=3000)
    assert page.is_visible("text=No response fits these filters.") and page.is_disabled("#next")
    page.keyboard.press("Escape")
    page.locator("#count", has_text="12 responses").wait_for(timeout=3000)


def test_every_issue_kind_can_be_filtered(opened):
    from paper_digest.hot.issues import Issue
    items = []
    for kind in IssueKind:
        p = parse("Answer: {1}", "1?")
        p.issues = [Issue(kind, "made up")]
        items.append(Item(p, id=str(kind)))
    page = opened(items)
    for kind in IssueKind:
        page.select_option("#issue", label=f"{str(kind).replace('_', ' ')} (1)")
        assert page.inner_text("#view header b") == str(kind)


def test_more_facts_than_colours_look_different(opened, artifacts):
    many = " ".join(f"<fact{i}>item {i}</fact{i}>" for i in range(1, LOOKS + 6))
    page = opened([Item(parse(f"Reformatted Question: {many}\n\nAnswer: {many} {{1}}", re.sub("<[^>]*>", "", many)))])
    looks = page.locator(".a .f").evaluate_all("all => all.map(e => { const s = getComputedStyle(e); return s.backgroundColor + s.backgroundImage })")
    assert len(looks) == LOOKS + 5 and len(set(looks[:LOOKS])) == LOOKS and looks[LOOKS] == looks[0]
    assert page.locator(".a .id").all_inner_texts() == [str(i) for i in range(1, LOOKS + 6)]     # numbers never repeat
    page.screenshot(path=artifacts / "hot-reader-many.png")


MEASURE = """() => {
  const parse = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return c.startsWith("color(srgb") ? [...m.slice(0, 3).map((v) => v * 255), m[3] ?? 1] : [...m.slice(0, 3), m[3] ?? 1]; };
  const lum = ([r, g, b]) => [r, g, b].map((v) => { v /= 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const ground = (e) => { const c = parse(getComputedStyle(e).backgroundColor); return c[3] === 1 ? c : over(c, e.parentElement ? ground(e.parentElement) : [255, 255, 255, 1]); };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !e.checkVisibility() || e.closest("script, option, :disabled")) continue;
    const a = lum(parse(getComputedStyle(e).color)), b = lum(ground(e));
    found.push([(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e.tagName + "." + e.className, walk.currentNode.data.slice(0, 20)]);
  }
  return found; }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_as_the_browser_paints_it(opened, scheme):
    page = opened(example(), scheme=scheme)
    for details in page.query_selector_all("#view details:not([open]) > summary"):
        details.click()
    for act in (lambda: None, lambda: page.hover(".a .k1")):
        act()
        texts = page.evaluate(MEASURE)
        assert len(texts) > 60
        low = [t for t in texts if t[0] < 4.5]
        assert low == []


def test_light_and_dark(opened, artifacts):
    dark, light = (opened(example(), scheme=s) for s in ("dark", "light"))
    ground = {p: style(p.locator("#view article"), "backgroundColor") for p in (dark, light)}
    assert ground[dark] != ground[light]
    dark.screenshot(path=artifacts / "hot-reader-dark.png")
    light.screenshot(path=artifacts / "hot-reader-light.png")
    for wanted in ("light", "dark"):                      # auto -> light -> dark, whatever the system says
        for p in (dark, light):
            p.click("#theme")
            assert p.inner_text("#theme") == f"Theme: {wanted}"
            assert style(p.locator("#view article"), "backgroundColor") == ground[{"light": light, "dark": dark}[wanted]]


@pytest.mark.parametrize("attrs, same_as", [('data-jp-theme-light="false"', "dark"), ('data-theme="dark"', "dark"), ('data-theme="light"', "light"),
                                            ('class="vscode-dark"', "dark")])
def test_a_fragment_follows_the_theme_around_it(opened, attrs, same_as):
    item = reader.to_html(example()[0].parsed)
    other = "light" if same_as == "dark" else "dark"
    page, plain = opened(None, fragment=f"<div {attrs}>{item}</div>", scheme=other), opened(None, fragment=item, scheme=same_as)
    assert style(page.locator(".pdhot"), "backgroundColor") == style(plain.locator(".pdhot"), "backgroundColor")


@pytest.mark.parametrize("width", [1280, 360])
def test_scripts_of_the_world_fit(opened, artifacts, width):
    cjk = "りんごが<fact1>3個</fact1>、みかんが<fact2>５個</fact2>あります。全部で何個ですか。" * 4
    rtl = "ליוסי יש <fact3>12 שקלים</fact3> ולדנה <fact4>שלושה שקלים</fact4>."
    long = "<fact5>" + "x" * 300 + "</fact5> https://example.org/" + "a/" * 90
    page = opened([Item(parse(f"Reformatted Question: {cjk}\n\nAnswer: {cjk} {{8}}", re.sub("<[^>]*>", "", cjk)), "日本語"),
                   Item(parse(f"Reformatted Question: {rtl}\n\nAnswer: {rtl} {{15}}", re.sub("<[^>]*>", "", rtl)), "עברית"),
                   Item(parse(f"Reformatted Question: {long}\n\nAnswer: {long} {{{'9' * 200}}}", re.sub("<[^>]*>", "", long)), "long")], width=width, height=900)
    for direction in ("ltr", "rtl", "ltr"):
        assert page.get_attribute(".a .txt", "dir") == direction
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=artifacts / f"hot-reader-{page.inner_text('#place')[0]}-{width}.png")
        page.keyboard.press("j")


def test_a_large_page_opens_and_searches(opened):
    rng = random.Random(0)
    items = (Item(parse(RESPONSE.replace("income tax", f"tax {i}"), QUESTION), "pay", f"model {rng.randrange(5)}", str(i), "600", i % 4 > 0)
             for i in range(5000))
    page = opened(items)
    assert page.inner_text("#count") == "5,000 responses"
    assert page.locator(".row").count() < 60              # only what is in sight is built
    page.focus("#list")
    page.keyboard.press("End")
    assert "4999" in page.inner_text("#view header")
    page.fill("#search", "before tax 4321.")
    page.locator("#count", has_text="1 of 5,000 responses").wait_for(timeout=10_000)


def test_a_page_without_responses_says_so(opened):
    page = opened([])
    assert page.is_visible("text=There are no responses in this page.") and page.is_disabled("#next")
