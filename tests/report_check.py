"""Renders the report in a real browser (Chromium, headless) at desk and phone width, in light and dark, and checks what can be checked.

`python -m tests.report_check [--run FOLDER] [--out FOLDER]`. Without a run folder it makes one with invented figures. The pictures are PNGs for
people to look at; what is asserted: nothing is wider than the screen, every picture has a title and a description, no text is smaller than
10 CSS pixels, no label is cut off, lies on another or is crossed by a dashed line, no name of a row is broken, and nothing is fetched.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.report.html import write_report
from finetune_trainer.run_folder import RunFolder
from tests.unit.report.sample_run import make_run

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
SMALLEST_TEXT = 10.0
MOST_SECONDS = 120
RESULT = re.compile(r'<pre id="report-check"[^>]*>(.*?)</pre>', re.DOTALL)

PROBE = """
<script>
addEventListener("load", () => {
  const shown = element => element.getClientRects().length > 0;
  const box = element => element.getBoundingClientRect();
  const svgs = [...document.querySelectorAll("svg")].filter(shown);
  const words = element => (element.textContent || "").trim();
  const labelled = (svg, name) => { const one = svg.querySelector(":scope > " + name); return one && words(one).length > 0; };
  const lines = element => { const range = document.createRange(); range.selectNodeContents(element); return new Set([...range.getClientRects()].map(r => Math.round(r.top))).size; };
  const size = element => {
    const svg = element.ownerSVGElement, scale = svg ? box(svg).width / svg.viewBox.baseVal.width : 1;
    return parseFloat(getComputedStyle(element).fontSize) * scale;
  };
  const texts = [...document.querySelectorAll("body *")].filter(one => shown(one) &&
    [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim()) && !["TITLE", "DESC", "STYLE", "SCRIPT"].includes(one.tagName.toUpperCase()));
  const cut = [], over = [], crossed = [];
  for (const svg of svgs) {
    const frame = box(svg), labels = [...svg.querySelectorAll("text")].filter(one => words(one));
    for (const label of labels) {
      const r = box(label);
      if (r.left < frame.left - 1 || r.right > frame.right + 1 || r.top < frame.top - 1 || r.bottom > frame.bottom + 1) cut.push(words(label));
    }
    for (const line of [...svg.querySelectorAll('path[style*="dasharray"]')].map(box).filter(r => r.width < 2)) for (const label of labels) {
      const r = box(label);
      if (r.left + 1 < line.left && line.left < r.right - 1 && r.top < line.bottom && line.top < r.bottom) crossed.push(words(label));
    }
    for (let i = 0; i < labels.length; i++) for (let j = i + 1; j < labels.length; j++) {
      const a = box(labels[i]), b = box(labels[j]);
      const w = Math.min(a.right, b.right) - Math.max(a.left, b.left), h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (w > 2 && h > 4) over.push(words(labels[i]) + " / " + words(labels[j]));
    }
  }
  const result = {
    width: innerWidth, height: document.documentElement.scrollHeight, scrollWidth: document.documentElement.scrollWidth,
    wide: [...document.querySelectorAll("body *")].filter(one => shown(one) && !one.ownerSVGElement && box(one).right > innerWidth + 1).map(one => one.tagName + " " + one.className).slice(0, 5),
    pictures: svgs.length,
    untitled: svgs.filter(svg => !labelled(svg, "title") || !labelled(svg, "desc") || svg.getAttribute("role") !== "img").length,
    small: [...new Set(texts.filter(one => size(one) < SMALLEST).map(one => one.tagName + " " + size(one).toFixed(1) + "px: " + words(one).slice(0, 40)))].slice(0, 8),
    cut: cut.slice(0, 8), over: over.slice(0, 8), crossed: crossed.slice(0, 8),
    broken: [...document.querySelectorAll("th[scope=row]")].filter(one => shown(one) && !/[\\s:/-]/.test(words(one)) && lines(one) > 1).map(words).slice(0, 8),
    fetched: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")).concat(
      [...document.querySelectorAll("*")].filter(one => one.tagName !== "A").flatMap(one => ["src", "srcset", "href", "xlink:href"].map(name => one.getAttribute(name)))
        .filter(value => value && !value.startsWith("#") && !value.startsWith("data:")),
      [...document.querySelectorAll("style")].flatMap(one => one.textContent.match(/@import[^;]*|url\\((?!#|data:)[^)]*\\)/g) || [])),
    duplicates: [...document.querySelectorAll("[id]")].map(one => one.id).filter((id, index, all) => all.indexOf(id) !== index).slice(0, 5),
  };
  const out = document.createElement("pre");
  out.id = "report-check"; out.hidden = true; out.textContent = JSON.stringify(result);
  document.body.appendChild(out);
});
</script>
""".replace("SMALLEST", str(SMALLEST_TEXT))


BROKEN = """<!doctype html><body><div style="width:900px" id="a">wide</div><p style="font-size:6px" id="a">tiny</p><img src="missing.png">
<svg viewBox="0 0 100 50" width="100" height="50"><text x="10" y="20">one</text><text x="12" y="20">two</text><text x="90" y="40">cut off</text><path d="M 15 0 L 15 50" style="stroke-dasharray: 4; stroke: red"/></svg>
<table style="width:20px;table-layout:fixed;overflow-wrap:anywhere"><tr><th scope="row">adapter</th></tr></table></body>"""
"""A page with everything wrong that the check looks for, but that it has a picture."""


@dataclass(frozen=True)
class View:
    """A screen to look through."""

    name: str
    width: int
    dark: bool = False


VIEWS = (
    View("desk", 1280),
    View("phone", 390),
    View("tablet", 810),
    View("desk-dark", 1280, dark=True),
    View("phone-dark", 390, dark=True),
)


class CheckFailed(Exception):
    """The report, or the machine, is not as it must be."""


def main(arguments: list[str]) -> int:
    """Check, print what was seen, and return 0 or 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder; default: one with invented figures")
    parser.add_argument("--out", type=Path, default=Path("build/report-check"), help="where the PNGs go")
    options = parser.parse_args(arguments)
    try:
        browser = find_browser()
        options.out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            prove(browser, Path(scratch))
            run = RunFolder(options.run) if options.run else make_run(Path(scratch) / "run")
            page = write_report(run)
            shutil.copyfile(page, options.out / "report.html")
            problems = [problem for view in VIEWS for problem in check(browser, page, view, Path(scratch), options.out)]
    except CheckFailed as error:
        print(f"report-check: {error}", file=sys.stderr)
        return 1
    for problem in problems:
        print(f"report-check: {problem}", file=sys.stderr)
    print(f"report-check: {len(VIEWS)} screens, {len(problems)} problems, PNGs in {options.out}")
    return 1 if problems else 0


def find_browser() -> str:
    """The browser's path; installed by apt-get where this may be done. Raises CheckFailed."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found:
        return found
    if shutil.which("apt-get"):
        print("report-check: installing Debian's chromium …")
        for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]):
            if subprocess.run(command, capture_output=True, check=False).returncode:
                break
        found = shutil.which("chromium")
    if not found:
        raise CheckFailed("Chromium is missing and could not be installed: `apt-get install chromium` as root, then run this again")
    return found


def check(browser: str, page: Path, view: View, scratch: Path, out: Path) -> list[str]:
    """Return what is wrong on a screen; write its PNG."""
    seen = measure(browser, page, view, scratch)
    screenshot(browser, page, view, scratch, out / f"{view.name}.png", height=seen["height"])
    print(f"report-check: {view.name}: {view.width} × {seen['height']} px, {seen['pictures']} pictures")
    return [f"{view.name}: {rule}: {found}" for rule, found in judged(seen, view).items() if found]


def judged(seen: dict[str, Any], view: View) -> dict[str, list[Any]]:
    """What breaks each rule; an empty list where nothing does."""
    return {
        "the page is wider than the screen": seen["wide"] or ([seen["scrollWidth"]] if seen["scrollWidth"] > view.width else []),
        "pictures without title, description or role": [seen["untitled"]] if seen["untitled"] else [],
        "no picture is shown": [] if seen["pictures"] else ["0 of them"],
        f"text smaller than {SMALLEST_TEXT:g} px": seen["small"],
        "labels cut off": seen["cut"],
        "labels on top of each other": seen["over"],
        "labels that a line crosses": seen["crossed"],
        "names that are broken in the middle": seen["broken"],
        "something was fetched": seen["fetched"],
        "the same id twice": seen["duplicates"],
    }


def prove(browser: str, scratch: Path) -> None:
    """A check that cannot fail proves nothing: a page that breaks the rules must break all of them. Raises CheckFailed."""
    page = scratch / "broken.html"
    page.write_text(BROKEN, encoding="utf-8")
    blind = [rule for rule, found in judged(measure(browser, page, VIEWS[1], scratch), VIEWS[1]).items() if not found]
    if blind != ["no picture is shown"]:
        raise CheckFailed(f"the check does not see what is wrong with a broken page: {blind}")


def measure(browser: str, page: Path, view: View, scratch: Path) -> dict[str, Any]:
    """Let the browser itself measure the page. It runs in a frame of the wanted width, since a window can't be as narrow as a phone."""
    probed = scratch / f"probed-{view.name}.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    framed = scratch / f"framed-{view.name}.html"
    framed.write_text(frame(probed, view.width, 800) + COPY, encoding="utf-8")
    done = run(browser, view, scratch, "--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom", framed.as_uri())
    found = RESULT.search(done)
    if not found:
        raise CheckFailed(f"{view.name}: the browser did not measure the page")
    result: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return result


COPY = """
<script>
addEventListener("load", () => setTimeout(() => {
  const found = document.querySelector("iframe").contentDocument.getElementById("report-check");
  document.body.appendChild(found.cloneNode(true));
}, 200));
</script>
"""


def frame(page: Path, width: int, height: int) -> str:
    """A page that shows another one at exactly this size."""
    style = f"width:{width}px;height:{height}px;border:0;display:block"
    return f'<!doctype html><meta charset="utf-8"><body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>'


def screenshot(browser: str, page: Path, view: View, scratch: Path, target: Path, *, height: int) -> None:
    """Write the whole page as a PNG."""
    framed = scratch / f"shot-{view.name}.html"
    framed.write_text(frame(page, view.width, height), encoding="utf-8")
    run(browser, view, scratch, f"--window-size={max(view.width, 500)},{height}", f"--screenshot={target.resolve()}", framed.as_uri())
    if not target.is_file():
        raise CheckFailed(f"{view.name}: the browser wrote no picture")


def run(browser: str, view: View, scratch: Path, *arguments: str) -> str:
    """Run the browser with a profile of its own and return what it printed. Raises CheckFailed."""
    dark = ["--blink-settings=preferredColorScheme=0"] if view.dark else ["--blink-settings=preferredColorScheme=1"]
    with tempfile.TemporaryDirectory(dir=scratch) as profile:
        command = [browser, *FLAGS, *dark, f"--user-data-dir={profile}", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=MOST_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(f"{view.name}: the browser did not end within {MOST_SECONDS} s") from error
    if done.returncode:
        raise CheckFailed(f"{view.name}: the browser ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
