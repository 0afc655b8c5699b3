"""The report's page in a browser: no error, no request, whole tables, a map that reacts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.report_files import ODD_ID

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium of this machine."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


class Opened:
    """The page, with everything that it wrote to the console and requested."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#map[data-ready=yes]")

    @property
    def panel(self) -> str:
        """The text beside the map."""
        text: str = self.page.inner_text("#map-panel")
        return text

    def place(self, curve: int, index: int) -> tuple[float, float]:
        """Return the position of a point of the map in the window."""
        self.page.locator("#map").scroll_into_view_if_needed()
        x, y = self.page.evaluate(
            """([curve, index]) => {
                const plot = document.getElementById("map"), layout = plot._fullLayout;
                const box = plot.getBoundingClientRect(), trace = plot.data[curve];
                return [box.x + layout.margin.l + layout.xaxis.d2p(trace.x[index]),
                        box.y + layout._size.t + layout.yaxis.d2p(trace.y[index])];
            }""",
            [curve, index],
        )
        return x, y


@pytest.fixture(scope="module")
def loaded(browser: Any, report: Path) -> Iterator[Opened]:
    """The page, loaded once for all tests."""
    opened = Opened(browser, report / "index.html")
    yield opened
    opened.page.close()


@pytest.fixture
def opened(loaded: Opened) -> Opened:
    """The page at a desktop's size, with nothing selected or noted."""
    loaded.page.set_viewport_size({"width": 1280, "height": 900})
    loaded.page.emulate_media(color_scheme="light")
    loaded.page.mouse.move(0, 0)
    loaded.page.keyboard.press("Escape")
    loaded.page.evaluate("document.getElementById('map-panel').replaceChildren()")
    return loaded


def test_it_opens_without_an_error_or_a_request(opened: Opened, report: Path) -> None:
    """Nothing on the console; nothing asked for but the file itself and what is inside it."""
    assert opened.problems == []
    outside = [url for url in opened.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [(report / "index.html").as_uri()]
    broken = "[...document.images].filter(image => image.naturalWidth === 0).length"
    assert opened.page.evaluate(broken) == 0


def test_plotly_has_no_button_or_address_of_a_server(opened: Opened) -> None:
    """The map's buttons draw and zoom; none shares or edits the chart elsewhere."""
    titles = "[...document.querySelectorAll('.modebar-btn')].map(button => button.dataset.title)"
    assert opened.page.evaluate(titles) == [
        *("Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes")
    ]
    context = opened.page.evaluate(
        "(({plotlyServerURL, showSendToCloud}) => [plotlyServerURL, showSendToCloud])"
        "(document.getElementById('map')._context)"
    )
    assert context == ["", False]


def test_the_map_shows_the_neighbours_of_the_point_under_the_mouse(opened: Opened) -> None:
    """Hovering over a sequence, then over another, changes the neighbours beside the map."""
    seen = [opened.panel]
    for index in (0, 5):
        opened.page.mouse.move(*opened.place(3, index))
        opened.page.wait_for_function(
            "before => document.getElementById('map-panel').innerText !== before", arg=seen[-1]
        )
        seen.append(opened.panel)
    assert "Nearest structures" in seen[1]
    assert len(set(seen)) == 3
    assert opened.problems == []


def test_a_click_keeps_a_point_until_escape(opened: Opened) -> None:
    """A clicked structure stays shown while the mouse is elsewhere; Escape lets go of it."""
    opened.page.mouse.click(*opened.place(4, 2))
    opened.page.wait_for_function("document.getElementById('map-message').innerText !== ''")
    kept = opened.panel
    assert "Nearest sequences" in kept
    opened.page.mouse.move(*opened.place(3, 5))
    assert opened.panel == kept
    opened.page.keyboard.press("Escape")
    assert opened.page.inner_text("#map-message") == ""


def test_search_finds_ids_and_names_the_one_that_is_missing(opened: Opened) -> None:
    """Whole ids, beginnings of ids, odd ids; a neighbour's button goes on to that neighbour."""
    box = opened.page.locator("#map-search")
    for wanted, found in (("110l_A", "110l_A"), ("1bns", "1bns_C"), (ODD_ID, ODD_ID)):
        box.fill(wanted)
        box.press("Enter")
        assert opened.page.inner_text("#map-panel h3") == found
    box.fill("nobody")
    box.press("Enter")
    assert "no protein here has the id “nobody”" in opened.page.inner_text("#map-message")
    neighbour = opened.page.locator("#map-panel li button").first
    name = neighbour.inner_text()
    neighbour.click()
    assert opened.page.inner_text("#map-panel h3") == name
    assert "Nearest sequences" in opened.panel
    assert opened.page.evaluate("document.activeElement.id") == "map-panel"
    assert opened.problems == []


def test_no_table_is_cut_off_on_a_small_screen(opened: Opened) -> None:
    """At 800 pixels every table is shown whole, the folded one too."""
    opened.page.set_viewport_size({"width": 800, "height": 900})
    opened.page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    widths = opened.page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(box => box.querySelector('table'))"
        ".map(box => [box.scrollWidth, box.clientWidth])"
    )
    assert len(widths) >= 8
    assert all(needed <= shown for needed, shown in widths), widths


def test_the_whole_page_does_not_scroll_sideways_on_a_telephone(opened: Opened) -> None:
    """At 390 pixels wide tables scroll by themselves."""
    opened.page.set_viewport_size({"width": 390, "height": 844})
    opened.page.wait_for_function("document.documentElement.scrollWidth <= 390")
    assert opened.problems == []


def test_it_stays_light_if_the_browser_prefers_dark(opened: Opened) -> None:
    """Black on white."""
    opened.page.emulate_media(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    assert opened.page.evaluate(background) == "rgb(255, 255, 255)"
