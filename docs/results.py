"""Runs and reference records as parts of pages: what ran, published beside measured, claims with their verdicts."""
import html
import re
from functools import lru_cache
from pathlib import Path

from paper_digest import ledger, tables
from paper_digest.core import repo_root
from paper_digest.recipes import Recipe, get_recipe
from paper_digest.runs import find_record

MANY = 8  # quantities of our own; more than these would drown the published ones


def coded(text: str) -> str:
    "Text as HTML, with `code` spans."
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def command(recipe: Recipe) -> str:
    return f"paper-digest run {recipe.id}"


def fact_line(recipe: Recipe, record: dict, origin: str) -> str:
    "What ran where, in one line."
    took = f"{record['seconds']:.0f} s" if record["seconds"] >= 1 else "under a second"
    seeds = ", ".join(map(str, record["seeds"]))
    commit = "" if record["git_commit"] == "unknown" else f", commit `{record['git_commit'][:8]}`"
    trained, pace = record.get("training"), ""
    if trained:
        share = f", {100 * trained['share_of_peak']:.0f} % of the card's peak" if "share_of_peak" in trained else ""
        pace = f" Training: {trained['stages']} stages at {trained['tokens_per_second']:,.0f} tokens a second{share}."
    return (f"Tier **{record['tier']}**, {origin}: {took} on {record['device']}, {record['cores']} cores, "
            f"{record['started'][:10]}, seed {seeds}{commit}.{pace}")


def run_facts(recipe: Recipe, record: dict | None, origin: str, executed: bool) -> str:
    "Markdown below the title of a recipe's page: which run the page shows, or how to get one."
    lines = []
    if executed:
        settings = "".join(f"<tr><td><code>{html.escape(k)}</code></td><td><code>{html.escape(repr(v))}</code></td></tr>"
                           for k, v in record["params"].items())
        lines += ["```{admonition} The run on this page", ":class: note run", fact_line(recipe, record, origin),
                  f"Run it yourself: `{command(recipe)}`", "",
                  f"<details><summary>Its parameters</summary><table class='digest'>{settings}</table></details>", "```"]
    else:
        said = ("The tables at the end come from the reference record. " if record else "")
        lines += ["```{admonition} Not run here", ":class: note run",
                  f"The notebook is shown without outputs. {said}This runs it: `{command(recipe)}`", "```"]
    return "\n".join(lines)


def status_line(recipe: Recipe) -> str:
    record, origin, _ = find_record(recipe)
    state = f"tier {record['tier']}, {origin}" if record else f"not run; `{command(recipe)}`"
    return f"{recipe.summary or recipe.title} *({state})*"


# ------------------------------------------------------------------ published beside measured
def table_html(rows, metric: str) -> str:
    "Rows of one table and metric: what was measured on which model, the printed number, then a column a scoring."
    ran, notes = rows[rows["measured"].notna()], {}
    scorings = list(dict.fromkeys(ran["scoring"])) or [""]
    printed = bool((rows["printed"] != "").any())
    body = []
    for _, group in rows.groupby(tables.KEYS, sort=False, dropna=False):
        first = group.iloc[0]
        mark = notes.setdefault(first["note"], f" [{len(notes) + 1}]") if first["note"] else ""
        what = " · ".join(t for t in (first["dataset"], first["language"], first["variant"]) if t not in ("", "-"))
        counts = ", ".join(f"n\u00a0=\u00a0{int(n):,}" for n in group["n"].dropna().unique()[:1])
        on = " · ".join(t for t in (first["model"], counts) if t not in ("", "-"))
        cells = [f"<th scope='row'>{html.escape(what or first['model'])}<small>{html.escape(on)}</small></th>"]
        cells += [f"<td class='num'>{html.escape(first['printed'] + mark)}</td>"] if printed else []
        if group["measured"].notna().any():
            cells += [scored(group[group["scoring"] == s]) for s in scorings]
        else:
            cells += [f"<td colspan='{len(scorings)}'>{badge(first['verdict'])}</td>"]
        body.append(f"<tr>{''.join(cells)}</tr>")
    head = ["", *(["published"] if printed else []), *(s or "measured" for s in scorings)]
    tier = f", tier {ran['tier'].iloc[0]}" if len(ran) else ""
    said = "".join(f"<p class='table-note'>{html.escape(f'{mark.strip()} {note}')}</p>" for note, mark in notes.items())
    return (f"<p class='table-note'>{html.escape(metric + tier)}</p>\n"
            f"<div class='table-box' tabindex='0' role='region' aria-label='Results: {html.escape(metric)}'>\n"
            f"<table class='digest compare'><thead><tr>{''.join(f'<th scope=col>{html.escape(h)}</th>' for h in head)}</tr></thead>\n"
            f"<tbody>{chr(10).join(body)}</tbody></table>\n</div>\n{said}")


def scored(group) -> str:
    "One measured number: value and verdict, below them the difference to the printed one and the interval."
    if not len(group):
        return "<td></td>"
    m = group.iloc[0]
    below = " ".join(t for t in (tables.number(m["difference"], sign=True), tables.interval(m["ci_low"], m["ci_high"])) if t)
    return f"<td><b>{tables.number(m['measured'])}</b> {badge(m['verdict'])}<small>{below}</small></td>"


def badge(verdict: str) -> str:
    return f"<span class='verdict {slug(verdict)}'>{verdict}</span>" if verdict else ""


def figures(recipe: Recipe, folder: Path | None) -> list[Path]:
    "Figures of the shown run, else those kept beside the reference record."
    own = sorted((folder / "figures").glob("*.png")) if folder else []
    return own or sorted((repo_root() / "results" / recipe.paper / "figures" / recipe.name).glob("*.png"))


def figure_lines(recipe: Recipe, folder: Path | None, picture) -> list[str]:
    shown = [f"![{recipe.title}: {re.sub('[_-]', ' ', path.stem)}]({picture(path, recipe)})\n" for path in figures(recipe, folder)]
    return ["::::{container} figures", *shown, "::::", ""] if shown else []


@lru_cache(maxsize=None)  # a recipe's page and the results page both ask
def joined_table(id: str):
    recipe = get_recipe(id)
    return tables.join(recipe, find_record(recipe)[0])


def comparison(recipe: Recipe, level: int, picture, brief: bool = False) -> str:
    "Markdown: figures, then every table of the recipe with its heading, then what was run."
    record, origin, folder = find_record(recipe)
    lines = figure_lines(recipe, folder, picture)
    joined = joined_table(recipe.id)
    for name, rows in joined.groupby("table", sort=False):
        lines += [f"{'#' * level} {recipe.name}: {name.replace('_', ' ')}", ""]
        lines += [table_html(part, metric) + "\n" for metric, part in rows[rows["printed"] != ""].groupby("metric", sort=False)]
        ours = rows[rows["printed"] == ""]
        if brief and ours["metric"].nunique() > MANY:
            lines += [f"Measured, and on the recipe's own page: {ours['metric'].nunique()} quantities the paper does not print.\n"]
        elif len(ours):
            boxes = "\n".join(table_html(part, metric) for metric, part in ours.groupby("metric", sort=False))
            lines += [f"<details class='ours'><summary>Also measured, not in the paper: {html.escape(', '.join(ours['metric'].unique()))}"
                      f"</summary>\n{boxes}\n</details>\n"]
    lines += [f"<p class='table-note'>{coded(tables.caption(recipe, record, origin))}</p>"]
    return "\n".join(lines)


# ------------------------------------------------------------------ claims
def claim_cards(rows) -> str:
    "The ledger as cards, which read well at any width."
    cards = []
    for r in rows.itertuples():
        facts = [f"paper {tables.number(r.published, sign=True)}"]
        if measured := tables.number(r.measured, sign=True):
            facts += [f"ours {measured} {tables.interval(r.ci_low, r.ci_high)}".strip()]
        if r.n is not None and r.n == r.n:
            facts += [f"n = {int(r.n):,}"]
        facts += [f"tier {r.tier}"] if r.tier else []
        facts += [r.recipe, r.source] if r.tier else [r.source]
        how = r.evidence if r.tier else f"`{r.run}`; needs {r.needs}"
        below = f"\n<p class='facts'>{coded(how)}</p>"
        cards.append(f"<div class='claim' id='claim-{slug(r.id)}'><p>{badge(r.verdict)} "
                     f"{coded(r.claim)}</p>\n<p class='facts'>{coded(' · '.join(facts))}</p>{below}</div>")
    return "\n".join(cards)


def verdict_counts(rows) -> str:
    counts = rows["verdict"].value_counts()
    return ", ".join(f"{counts[v]} {v}" for v in ("reproduced", "not reproduced", "inconclusive", "not run") if v in counts)


def paper_results(paper: str, title: str, listed: list, picture) -> str:
    "The results page of a paper: its claims, then every recipe's figures and tables."
    lines = [f"# {title.split(':')[0]}: results", "", "> Every published number beside the measured one. "
             "[How to read a verdict](/reading_a_verdict.md).", ""]
    rows = ledger.claims(paper)
    if len(rows):
        lines += ["## Claims", "", f"{len(rows)} claims: {verdict_counts(rows)}.", "", claim_cards(rows), ""]
    for recipe, page in sorted(listed, key=lambda pair: not pair[0].headline):
        lines += [f"## {recipe.title}", "", f"[Recipe `{recipe.id}`](/{page.doc}.ipynb). {recipe.summary}", "",
                  comparison(recipe, 3, picture, brief=True), ""]
    return "\n".join(lines if listed else [*lines, "No recipe yet."])
