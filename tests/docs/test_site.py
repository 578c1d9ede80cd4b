"""The built documentation, read from a folder without a network: ``make -C docs check`` runs this.

The pages must be there (``make -C docs html``). What needs a browser is skipped without Playwright
or Chromium.
"""

import html.parser
import importlib
import inspect
import os
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
NETWORK = ("http:", "https:", "//")
WIDTHS = (1280, 390)
SEARCHES = {
    "install": "start/installation.html",
    "GPU": "start/installation.html",
    "offline": "start/installation.html",
    "BRAT": "formats.html",
    "resume": "how-it-works/checkpoints.html",
    "checkpoint": "how-it-works/checkpoints.html",
    "learning rate": "optimizers.html",
    "F1": "start/reading-the-output.html",
    "out of memory": "running.html",
    "predict": "predicting.html",
    "SLURM": "running.html",
    "TrainingArguments": "coming-from/hugging-face.html",
    "padding": "how-it-works/order-and-shapes.html",
    "early stopping": "reference/callbacks.html",
}
"""What a newcomer would type, and a page that must be found by it."""
MODULES = (
    "medjax",
    "medjax_torch",
    "medjax.components",
    "medjax.metrics",
    "medjax.models",
    "medjax.text",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SITE.is_dir(), reason="no pages: make -C docs html"),
]


LOADED = {"script": "src", "link": "href", "img": "src", "source": "src", "iframe": "src"}
NOT_LOADED = {"canonical", "next", "prev", "search", "index", "author", "copyright"}


class Page(html.parser.HTMLParser):
    """Collects what a page loads, where it links to, and what may be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.ids = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        address = found.get(LOADED.get(tag, ""))
        if address and found.get("rel") not in NOT_LOADED:
            self.loads.append(address)
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


@pytest.fixture(scope="module")
def pages():
    return {
        path: Page(path) for path in sorted(SITE.rglob("*.html")) if "_static" not in path.parts
    }


def written(pages):
    """Return the pages that somebody wrote, without those that show sources."""
    return [path for path in pages if "_modules" not in path.parts]


def test_nothing_is_loaded_from_the_network(pages):
    loaded = {
        path.name: [address for address in page.loads if address.startswith(NETWORK)]
        for path, page in pages.items()
    }
    assert {name: addresses for name, addresses in loaded.items() if addresses} == {}
    for file in SITE.rglob("*.css"):
        sheet = file.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet), file


def test_every_file_that_is_loaded_is_there(pages):
    missing = [
        (path.name, address)
        for path, page in pages.items()
        for address in page.loads
        if not address.startswith((*NETWORK, "data:"))
        and not (path.parent / urllib.parse.urlsplit(address).path).is_file()
    ]
    assert missing == []


def test_every_internal_link_has_its_target(pages):
    known = {path.resolve(): page for path, page in pages.items()}
    dead = []
    for path in written(pages):  # viewcode links sources to names that are documented elsewhere
        for link in pages[path].links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
            target = path.resolve() if not parts.path else target
            anchor = urllib.parse.unquote(parts.fragment)
            there = known[target].ids if target in known else set()
            if not target.is_file() or (anchor and target in known and anchor not in there):
                dead.append((path.relative_to(SITE).as_posix(), link))
    assert dead == []


ELSEWHERE = {
    "medjax": ("medjax.metrics", "medjax.schedules", "medjax.sharding"),
    "medjax_torch": ("medjax",),
}
"""Modules on whose page names of another one are described."""


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_has_every_public_name(pages, name):
    if name == "medjax_torch":
        pytest.importorskip("torch")
    module = importlib.import_module(name)
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    values = {each: getattr(module, each) for each in names}
    public = [n for n, v in values.items() if inspect.isclass(v) or inspect.isroutine(v)]
    reference = [page for path, page in pages.items() if path.parent.name == "reference"]
    ids = {name for page in reference for name in page.ids}
    homes = (name, *ELSEWHERE.get(name, ()))
    assert len(public) > 5
    assert [n for n in public if not any(f"{home}.{n}" in ids for home in homes)] == []


def test_the_reference_is_without_fields_that_say_nothing(pages):
    reference = [path for path in pages if path.parent.name == "reference"]
    assert [p.name for p in reference if "Alias for field number" in p.read_text("utf-8")] == []


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on the PATH")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=as_root)
        yield opened
        opened.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_open_without_an_error(pages, browser, width):
    faults = []
    view = browser.new_page(viewport={"width": width, "height": 900})
    view.on("console", lambda said: said.type == "error" and faults.append(said.text))
    view.on("pageerror", lambda error: faults.append(str(error)))
    view.on("requestfailed", lambda request: faults.append(request.url))
    for path in written(pages):
        view.goto(path.as_uri())
        for fault in view.evaluate(FAULTS_OF_A_PAGE):
            faults.append(f"{path.relative_to(SITE)} at {width}: {fault}")
    view.close()
    assert faults == []


FAULTS_OF_A_PAGE = """() => {
    const images = [...document.images].filter(image => !image.complete || !image.naturalWidth);
    const faults = images.map(image => `the image ${image.src} is missing`);
    const wide = document.documentElement.scrollWidth - window.innerWidth;
    if (wide > 1) faults.push(`it is ${wide} pixels wider than the window`);
    return faults;
}"""


@pytest.mark.parametrize("words", SEARCHES)
def test_search_finds(words, browser):
    view = browser.new_page()
    view.goto(f"{(SITE / 'search.html').as_uri()}?q={urllib.parse.quote(words)}")
    view.wait_for_selector("#search-results ul.search li a")
    view.wait_for_function("!document.querySelector('#search-progress:not(:empty)')?.dataset.busy")
    view.wait_for_timeout(1000)  # results are added one by one
    found = view.eval_on_selector_all("#search-results li > a", "links => links.map(a => a.href)")
    view.close()
    expected = (SITE / SEARCHES[words]).as_uri()
    places = [link.partition("?")[0].partition("#")[0] for link in found]
    assert expected in places[:10], places[:10]
