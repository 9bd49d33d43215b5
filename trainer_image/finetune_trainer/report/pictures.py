"""From a matplotlib figure to a picture that belongs to the page: inline SVG with a title, text as text, and the page's own colours.

Each picture is drawn twice, for a desk and for a phone, and the style sheet shows the one that fits: a picture scaled down to a phone would
have labels that nobody can read. Colours are placeholders here and variables of the style sheet there, so that light and dark both work.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK: Final = "#0a0a01"
MUTED: Final = "#0a0a02"
LINE: Final = "#0a0a03"
BASE: Final = "#0a0a04"
MIDDLE: Final = "#0a0a05"
FINAL: Final = "#0a0a06"
SECOND: Final = "#0a0a07"
PAPER: Final = "#0a0a08"
VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    BASE: "var(--base)",
    MIDDLE: "var(--middle)",
    FINAL: "var(--final)",
    SECOND: "var(--second)",
    PAPER: "var(--paper)",
}
LIGHT: Final = {
    "var(--ink)": "#1b2330",
    "var(--muted)": "#5a6577",
    "var(--line)": "#d9dee6",
    "var(--base)": "#7a8494",
    "var(--middle)": "#1f8a70",
    "var(--final)": "#2b62c4",
    "var(--second)": "#b4540a",
    "var(--paper)": "#ffffff",
}
"""The style sheet's light colours, for a picture that stands by itself."""
STYLE: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "finetune",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 5),
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Layout:
    """The width that a picture is drawn for. One point becomes about 1.33 CSS pixels on a desk, 1.1 on a phone."""

    name: Literal["wide", "narrow"]
    width: float
    """Inches."""
    font: float
    """Points."""

    @property
    def narrow(self) -> bool:
        return self.name == "narrow"


LAYOUTS: Final = (Layout("wide", 9.6, 9.5), Layout("narrow", 4.6, 11.0))


@dataclass(frozen=True)
class Picture:
    """A finished picture: one SVG a layout, safe to put into HTML as they are."""

    title: str
    svgs: Sequence[str]


def picture(name: str, title: str, description: str, draw: Callable[[Layout], Figure], *, small: bool = False) -> Picture:
    """Draw both layouts, or for a `small` picture (one that stands beside another) the narrow one alone.

    `name` is unique in the page; title and description are what a screen reader says.
    """
    layouts = LAYOUTS[1:] if small else LAYOUTS
    classes = ["picture"] if small else [f"picture {layout.name}" for layout in layouts]
    return Picture(
        title,
        [_svg(draw, layout, f"{name}-{layout.name}", kind, title, description) for layout, kind in zip(layouts, classes, strict=True)],
    )


def standalone(name: str, title: str, description: str, draw: Callable[[Layout], Figure]) -> str:
    """A picture as a file of its own: the wide layout, on paper, in the page's light colours."""
    svg = _svg(draw, LAYOUTS[0], name, "picture", title, description)
    for variable, colour in LIGHT.items():
        svg = svg.replace(variable, colour)
    start = svg.index("</desc>") + len("</desc>")
    return f'{svg[:start]}<rect width="100%" height="100%" fill="{LIGHT[VARIABLES[PAPER]]}"/>{svg[start:]}\n'


def figure(
    layout: Layout, height: float, rows: int = 1, columns: int = 1, ratios: dict[str, Any] | None = None
) -> tuple[Figure, list[Axes]]:
    """An empty figure with rows × columns axes, row by row. Height in inches; `ratios` as matplotlib's gridspec_kw."""
    made = Figure(figsize=(layout.width, height), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.06))
    axes = made.subplots(rows, columns, squeeze=False, gridspec_kw=ratios)
    return made, [one for line in axes for one in line]


def _svg(draw: Callable[[Layout], Figure], layout: Layout, name: str, kind: str, title: str, description: str) -> str:
    sizes = {
        "font.size": layout.font,
        "axes.titlesize": layout.font + 1,
        "axes.labelsize": layout.font,
        "xtick.labelsize": layout.font - 0.5,
        "ytick.labelsize": layout.font - 0.5,
        "legend.fontsize": layout.font,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, **sizes}), warnings.catch_warnings():
        # The browser has the glyphs that the font used for measuring lacks: text stays text in this SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        draw(layout).savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(buffer.getvalue(), name, kind, title, description)


def _inline(svg: str, name: str, kind: str, title: str, description: str) -> str:
    """Cut the file's head off, make ids unique in the page, give it a title, and put the page's colours in."""
    body = svg[svg.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]+)"', body)
    if view_box is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    inner = re.sub(r"<metadata>.*?</metadata>", "", body[body.index(">") + 1 :], flags=re.DOTALL)
    inner = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', inner)
    inner = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", inner)
    inner = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', inner)
    for colour, variable in VARIABLES.items():
        inner = inner.replace(colour, variable)
    head = (
        f'<svg class="{kind}" viewBox="{view_box.group(1)}" role="img" aria-labelledby="{name}-title {name}-desc" '
        f'xmlns="http://www.w3.org/2000/svg"><title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return head + inner
