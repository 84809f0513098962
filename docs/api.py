"""Signatures and parameter comments of exported code, read from its source: nothing is imported or run.

A comment at the end of a parameter's line describes it, one at the end of the return annotation describes the result.
"""
import ast
import inspect
import io
import re
import tokenize
from dataclasses import dataclass, field
from functools import lru_cache

FIELD_BASES = {"NamedTuple", "TypedDict", "Protocol", "BaseModel"}


@dataclass
class Row:
    name: str
    type: str = ""
    default: str = ""
    text: str = ""


@dataclass
class Symbol:
    kind: str  # function, class, method, property or data: the directive of Sphinx's Python domain
    name: str
    signature: str = ""
    doc: str = ""
    rows: list[Row] = field(default_factory=list)
    heading: str = "Parameter"
    members: list["Symbol"] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)  # options of the directive


def comments(source: str) -> dict[int, str]:
    "Comment text by line number."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


@lru_cache(maxsize=None)  # the index and the page both ask
def symbols(source: str) -> list[Symbol]:
    "Public functions, classes and commented constants defined at the top level of a cell, in its order."
    notes, found = comments(source), []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not node.name.startswith("_"):
            found.append(function(node, source, notes))
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.append(klass(node, source, notes))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                said = notes.get(node.lineno, "")
                if said and isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]*", target.id):
                    found.append(Symbol("data", target.id, doc=said))
    return found


def function(node, source: str, notes: dict[int, str], kind: str = "function") -> Symbol:
    text = lambda part: ast.get_source_segment(source, part) if part else ""
    plain, end = node.args, node.returns.end_lineno if node.returns else 0
    positional = plain.posonlyargs + plain.args
    defaults = [None] * (len(positional) - len(plain.defaults)) + plain.defaults
    groups = [("", list(zip(positional, defaults)))]
    groups += [("*", [(plain.vararg, None)] if plain.vararg else [])]
    groups += [("", list(zip(plain.kwonlyargs, plain.kw_defaults)))]
    groups += [("**", [(plain.kwarg, None)] if plain.kwarg else [])]
    rows, shown, typed_shown = [], [], []
    for number, (stars, pairs) in enumerate(groups):
        if number == 2 and pairs and not plain.vararg:
            shown.append("*")
            typed_shown.append("*")
        for arg, default in pairs:
            if arg.arg in ("self", "cls") and kind != "function":
                continue
            line = max(part.end_lineno for part in (arg, default) if part)
            typed, said = option(arg.annotation, text)
            rows.append(Row(stars + arg.arg, typed, text(default), notes.get(line, said) if line != end else said))
            value = squeeze(text(default))
            shown.append(stars + arg.arg + (f"={value}" if default else ""))
            typed_shown.append(stars + arg.arg + (f": {squeeze(typed)}" if typed else "") + (f" = {value}" if default else ""))
    returns = squeeze(text(node.returns))
    if returns and returns != "None" and kind != "property":
        rows.append(Row("returns", returns, "", notes.get(end, "")))
    if not any(r.text for r in rows):  # nothing to tabulate: the types stand in the signature
        rows, shown = [], typed_shown
    signature = "" if kind == "property" else f"({', '.join(shown)})" + (f" -> {returns}" if returns else "")
    doc = "\n\n".join(t for t in (ast.get_docstring(node) or "", notes.get(end, "") if kind == "property" else "") if t)
    return Symbol(kind, node.name, signature, doc, rows,
                  flags=[f"type: {returns}"] if kind == "property" and returns else [])


def option(annotation, text) -> tuple[str, str]:
    "Type and meaning of a command-line option: `Annotated[T, typer.Option(help=...)]` gives T and its help."
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value).endswith("Annotated"):
        kind, *notes = annotation.slice.elts
        said = [k.value.value for n in notes if isinstance(n, ast.Call) for k in n.keywords
                if k.arg == "help" and isinstance(k.value, ast.Constant)]
        return text(kind), said[0] if said else ""
    return text(annotation), ""


def klass(node: ast.ClassDef, source: str, notes: dict[int, str]) -> Symbol:
    bases = {ast.unparse(b).split(".")[-1] for b in node.bases}
    decorators = {ast.unparse(d).split("(")[0].split(".")[-1] for d in node.decorator_list}
    shape, rows, signature, members = "", [], "", []
    if any(b.endswith("Enum") or b == "Flag" for b in bases):
        shape = "Member"
    elif "dataclass" in decorators or bases & FIELD_BASES:
        shape = "Field"
    for part in node.body:
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = {ast.unparse(d).split("(")[0] for d in part.decorator_list}
            if part.name == "__init__":
                made = function(part, source, notes, "method")
                signature = made.signature.split(" -> ")[0]
                rows = rows or [r for r in made.rows if r.name != "returns"]
            elif not part.name.startswith("_") and ast.get_docstring(part):
                kind = "property" if names & {"property", "cached_property", "functools.cached_property"} else "method"
                made = function(part, source, notes, kind)
                made.flags += [n for n in ("classmethod", "staticmethod") if n in names]
                members.append(made)
        elif shape and isinstance(part, (ast.Assign, ast.AnnAssign)):
            target = part.targets[0] if isinstance(part, ast.Assign) else part.target
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                kind = ast.get_source_segment(source, part.annotation) if isinstance(part, ast.AnnAssign) else ""
                value = ast.get_source_segment(source, part.value) if part.value else ""
                rows.append(Row(target.id, kind if shape == "Field" else value, value, notes.get(part.end_lineno, "")))
    doc = ast.get_docstring(node) or ""
    return Symbol("class", node.name, signature, doc, rows, shape or "Parameter", members)


def squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# ------------------------------------------------------------------ as MyST markdown
def escape(text: str) -> str:
    "Plain text that MyST shows as it is."
    return re.sub(r"([\\*_\[\]<>{}$|~`#^])", r"\\\1", text)


def prose(text: str, link) -> str:
    "A comment or docstring as markdown: `code` spans stay code (linked where `link` knows them), the rest is literal."
    parts = re.split(r"(?<!`)`([^`\n]+)`(?!`)", text)
    return "".join(link(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def directive(symbol: Symbol, module: str, link, fence: int = 7) -> str:
    "The symbol as a directive of Sphinx's Python domain with its table of parameters."
    ticks, lines = "`" * fence, []
    lines += [f"{ticks}{{py:{symbol.kind}}} {symbol.name}{symbol.signature}"]
    lines += [f":module: {module}"] if fence == 7 else []
    lines += [f":{flag}:" if ":" not in flag else f":{flag}" for flag in symbol.flags]
    lines += ["", prose(inspect.cleandoc(symbol.doc), link), ""]
    if symbol.heading == "Member" and not any(r.text for r in symbol.rows):
        lines += [", ".join(f"`{r.name}`" for r in symbol.rows), ""]
    elif any(r.text or r.type for r in symbol.rows):
        kind = "Value" if symbol.heading == "Member" else "Type"
        lines += ["````{list-table}", ":header-rows: 1", ":class: docments", "", f"* - {symbol.heading}", f"  - {kind}", "  -"]
        for row in symbol.rows:
            name = "*returns*" if row.name == "returns" else f"`{row.name}`"
            lines += [f"* - {name}", f"  - {link(squeeze(row.type))}" if row.type else "  -",
                      f"  - {prose(row.text, link)}" if row.text else "  -"]
        lines += ["````", ""]
    for member in symbol.members:
        lines += [directive(member, module, link, fence - 1), ""]
    return "\n".join([*lines, ticks])
