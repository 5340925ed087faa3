"""One self-contained HTML page: sections, tables and notes, with all text from outside escaped."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { color-scheme: light; --ink: #1d2129; --soft: #5a606a; --line: #e4e7ec; --accent: #c2185b; --back: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 920px; margin: 0 auto; padding: 40px 20px 64px; }
header p { color: var(--soft); margin: 4px 0 0; }
h1 { font-size: 28px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 4px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px; margin-top: 18px; }
section > p { margin: 0 0 12px; color: var(--soft); max-width: 72ch; }
section > p:last-child { margin-bottom: 0; }
section h2 ~ h2 { margin-top: 20px; }
.lead { font-size: 17px; color: var(--ink); margin: 18px 0 0; max-width: 70ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(180px, 1fr)); gap: 12px; margin-top: 20px; }
.tile { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.tile b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 8px 12px 8px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: baseline; }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
tr.strong td { font-weight: 650; }
.soft { color: var(--soft); font-weight: 400; }
svg, img { width: 100%; height: auto; display: block; }
svg text { font-family: system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif !important; }
.missing { border-left: 3px solid #e69f00; padding: 6px 12px; background: #fdf7e8; border-radius: 0 6px 6px 0;
  color: var(--ink); margin: 0; }
.yes { color: #00724f; font-weight: 650; } .no { color: #8a5300; font-weight: 650; }
code { background: var(--back); padding: 1px 5px; border-radius: 4px; font-size: 13px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { background: #fff; } section, .tile { break-inside: avoid; } }
"""


def document(title: str, body: Iterable[str]) -> str:
    """The whole page. `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """`parts` are HTML."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def say(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def missing(text: str) -> str:
    """What is not there, and why."""
    return f'<p class="missing">{escape(text)}</p>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """Figures with their names."""
    cells = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for name, value in pairs)
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0, strong: Iterable[int] = ()) -> str:
    """A table of text; the last `numbers` columns are right-aligned, rows `strong` stand out."""
    left, bold = len(head) - numbers, set(strong)
    top = "".join(f"<th{_align(i >= left)}>{escape(cell)}</th>" for i, cell in enumerate(head))
    lines = []
    for at, row in enumerate(rows):
        cells = "".join(f"<td{_align(i >= left)}>{escape(cell)}</td>" for i, cell in enumerate(row))
        lines.append(f"<tr{_STRONG if at in bold else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


_STRONG = ' class="strong"'


def picture(png: bytes, what: str) -> str:
    """A PNG inside the page; `what` says what it shows."""
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(what)}">'


def _align(number: bool) -> str:
    return ' class="n"' if number else ""


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values, one line each."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs) + "</dl>"
