"""The server's page in a browser: ask, see hits, open one, come back by its URL, save."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from protalign.searching import Targets
from protalign.serve.app import make_app
from protalign.serve.library import Library
from protalign.serve.run import bound_socket
from protalign.serve.settings import Settings
from tests.helpers.pages import Page
from tests.serve.helpers import by_chain, two_chains

LYSOZYME = (
    "MNIFEMLRIDEGLRLKIYKDTEGYYTIGIGHLLTKSPSLNAAKSELDKAIGRNTNGVITKDEAEKLFNQDVDAAVRGILRNAKLKPVYDS"
    "LDAVRRAAAINMVFQMGETGVAGFTNSLRMLQQKRWDEAAVNLAKSRWYNQTPNRAKRVITTFRTGTWDAYKNL"
)
KEY = "a-key-of-the-tests"


@contextmanager
def served(library: Library, settings: Settings) -> Iterator[str]:
    """Serve in a thread; give the address."""
    socket = bound_socket("127.0.0.1", 0)
    config = uvicorn.Config(make_app(lambda: library, settings, threads=1), log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()


@pytest.fixture(scope="module")
def address(browser: Any, library: Library) -> Iterator[str]:
    """A server without a key."""
    with served(library, Settings()) as address:
        yield address


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Page]:
    """A new browser's page; at the end, nothing went wrong and nothing left the machine."""
    page = Page(browser, address, accept_downloads=True)
    yield page
    assert page.problems == page.elsewhere == []
    page.context.close()


def search(page: Any) -> None:
    """Press the button and wait for hits."""
    page.click("#search")
    page.wait_for_selector("table.hits tbody tr")


def test_a_sequence_is_pasted_searched_opened_and_found_again(opened: Page) -> None:
    """The lysozymes come first; the URL's fragment alone names the search and the hit."""
    page = opened.page
    page.fill("#fasta", LYSOZYME)
    search(page)
    names = page.locator("button.open").all_inner_texts()
    assert set(names[:4]) == {"107l_A", "108l_A", "109l_A", "110l_A"}
    opened.says("#said", "hits in")
    assert page.inner_text("#hits h2") == "Hits of query_1"
    page.wait_for_function("() => document.getElementById('map-said').innerText !== ''")
    page.locator("button.open").nth(1).click()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert opened.colours() > 100
    page.wait_for_function("name => location.hash.includes('hit=' + name)", arg=names[1])
    url = urlsplit(page.url)
    assert url.path == "/"
    assert url.query == ""
    page.reload()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert page.inner_text("#hit-title") == names[1]
    page.keyboard.press("Escape")
    assert all(LYSOZYME not in request for request in opened.requests)
    document = json.loads(opened.saved("JSON"))
    assert [hit["target"] for hit in document["hits"]] == names
    assert opened.saved("FASTA").decode().count(">") == len(names)
    single = opened.saved("One page (HTML)").decode()
    assert "default-src 'none'" in single
    assert 'id="hit-0"' in single


@pytest.mark.slow
def test_an_uploaded_structure_is_kept_in_the_browser(opened: Page, sample: Path) -> None:
    """It is superposed on its hits, and after a reload as well; an entry is picked by its id."""
    page = opened.page
    page.set_input_files("#files", [str(sample / "1b5m_A.pdb.gz")])
    page.locator("#entry").press_sequentially("1A2P")
    page.wait_for_selector("#entry-ids option", state="attached")
    assert page.get_attribute("#entry-ids option", "value") == "1a2p_A"
    page.fill("#entry", "1a2p_A")
    page.keyboard.press("Enter")
    opened.says("#entry-list", "1a2p_A")
    assert page.inner_text("#entry-list").startswith("1a2p_A")
    search(page)
    assert page.locator("#query-choice option").count() == 2
    page.locator("button.open").first.click()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert page.inner_text(".facts").count("TM-score") == 2
    title = page.inner_text("#hit-title")
    page.reload()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert page.inner_text("#hit-title") == title
    opened.says("#file-list", "1b5m_A.pdb.gz")
    assert page.inner_text("#file-list").startswith("1b5m_A.pdb.gz")


@pytest.mark.slow
def test_a_file_s_hits_open_whatever_its_name_is(
    opened: Page, sample: Path, tmp_path: Path
) -> None:
    """A browser's second download of a file has a space and brackets; a sequence is beside it."""
    page = opened.page
    file = tmp_path / "model (1).pdb"
    file.write_bytes(gzip.decompress((sample / "1b5m_A.pdb.gz").read_bytes()))
    page.set_input_files("#files", [str(file)])
    page.fill("#fasta", LYSOZYME)
    search(page)
    assert page.inner_text("#hits h2") == "Hits of model_(1)"
    page.locator("button.open").first.click()
    page.wait_for_selector(".viewer[data-ready=yes]")
    assert page.inner_text(".facts").count("TM-score") == 2


@pytest.mark.slow
def test_a_least_probability_is_asked_for_in_percent(opened: Page) -> None:
    """The four lysozymes have 50 % each, and other hits do not; the URL names the option."""
    page = opened.page
    page.fill("#fasta", LYSOZYME)
    page.click("#options summary")
    page.fill("[name=min_prob]", "50")
    search(page)
    names = page.locator("button.open").all_inner_texts()
    assert set(names) == {"107l_A", "108l_A", "109l_A", "110l_A"}
    hits = json.loads(opened.saved("JSON"))["hits"]
    assert all(hit["prob"] >= 0.5 for hit in hits)
    page.reload()
    page.wait_for_selector("table.hits tbody tr")
    assert page.locator("button.open").all_inner_texts() == names
    assert page.input_value("[name=min_prob]") == "50"


@pytest.mark.slow
def test_an_emptied_highest_evalue_stays_empty(opened: Page) -> None:
    """In the URL too. A least probability takes the place of the 10, and links are checked."""
    page = opened.page

    def worst() -> float:
        return max(hit["evalue"] for hit in json.loads(opened.saved("JSON"))["hits"])

    page.fill("#fasta", LYSOZYME)
    page.click("#options summary")
    search(page)
    assert worst() <= 10
    page.fill("[name=max_evalue]", "")
    search(page)
    page.wait_for_function("() => /max_evalue=(&|$)/.test(location.hash)")
    assert worst() > 10
    page.reload()
    page.wait_for_selector("table.hits tbody tr")
    assert page.input_value("[name=max_evalue]") == ""
    assert worst() > 10
    link = page.url
    page.click("#options summary")
    page.select_option("[name=mode]", "global")
    page.fill("[name=min_tm]", "0.1")
    page.goto(link.replace("max_evalue=", "min_prob=0").replace("mode=local&", ""))
    page.wait_for_function("() => location.hash.includes('min_prob=0')")
    page.wait_for_function("() => document.querySelector('[name=max_evalue]').value === '10'")
    page.wait_for_function("() => location.hash.includes('max_evalue=10')")  # shown
    assert page.input_value("[name=mode]") == "local"
    assert page.input_value("[name=min_tm]") == ""
    assert worst() > 10
    for wrong in ("min_prob=500", "max_evalue=abc", "max_evalue=1&query_by=nothing"):
        page.evaluate("document.getElementById('options').open = false")
        searches = sum("/v1/search" in request for request in opened.requests)
        page.goto(link.replace("query_by=sequence&", "").replace("max_evalue=", wrong))
        opened.says("#error", "The link has a value that an option cannot have")
        assert page.get_attribute("#options", "open") is not None
        page.wait_for_timeout(300)
        assert searches == sum("/v1/search" in request for request in opened.requests)


def test_two_sequences_have_no_alignment(opened: Page) -> None:
    """A sequence among sequences: an opened hit says why it has vectors only."""
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.fill("#fasta", LYSOZYME)
    page.select_option("[name=against]", "sequence")
    page.fill("[name=rerank]", "0")
    search(page)
    page.locator("button.open").first.click()
    opened.says("dialog", "Two sequences are compared by their vectors only")
    assert page.locator(".viewer").count() == 0


def test_what_is_wrong_is_a_sentence(browser: Any, address: str) -> None:
    """A bad record, nothing at all, and a search that is cancelled."""
    opened = Page(browser, address)
    page = opened.page
    page.click("#search")
    opened.says("#error", "Nothing to search with")
    page.fill("#fasta", ">one\nMKV1LSA")
    page.click("#search")
    opened.says("#error", "one")
    opened.says("#error", "1 at position 4 is not an amino acid")
    page.route("**/v1/search", lambda route: None)  # never answered
    page.fill("#fasta", LYSOZYME)
    page.click("#search")
    opened.says("#said", "Searching with sequences")
    page.click("#cancel")
    opened.says("#said", "Cancelled.")
    assert page.inner_text("#said") == "Cancelled."
    page.wait_for_selector("#cancel", state="hidden")
    assert not page.is_visible("#error")
    opened.context.close()


def test_a_key_is_asked_for_and_kept_for_the_tab(browser: Any, library: Library) -> None:
    """The field appears when the server wants a key; it is in the tab's storage alone."""
    with served(library, Settings(key=KEY)) as address:
        opened = Page(browser, address)
        page = opened.page
        page.wait_for_selector("#key")
        opened.says("#error", "key")
        page.fill("#key", KEY)
        page.keyboard.press("Tab")
        page.wait_for_selector("#map[data-ready=yes]")
        page.wait_for_selector("#key-box", state="hidden")
        page.fill("#fasta", f"; a comment\n{LYSOZYME}")
        search(page)
        assert page.evaluate("sessionStorage.length") == 1
        assert page.evaluate("localStorage.length") == 0
        assert KEY not in page.url
        opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(opened: Page, scheme: str) -> None:
    """axe-core finds nothing serious, before and after a search, and 400 pixels are wide enough."""
    page = opened.page
    page.emulate_media(color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.fill("#fasta", LYSOZYME)
    search(page)
    assert opened.findings() == []
    opened.fits(400, "html")


@pytest.mark.slow
def test_hits_of_each_chain_of_a_file_open(browser: Any, targets: Targets, sample: Path) -> None:
    """A file of two chains beside a sequence: the hit that opens is of the query that is shown."""
    with served(by_chain(targets), Settings()) as address:
        opened = Page(browser, address)
        page = opened.page
        file = {"name": "two (1).pdb", "mimeType": "text/plain", "buffer": two_chains(sample)}
        page.set_input_files("#files", file)
        page.fill("#fasta", LYSOZYME)
        search(page)
        for query, length in ((0, 63), (1, 108), (2, 164)):
            page.select_option("label.query select", str(query))
            page.click("button.open >> nth=0")
            opened.says("dialog.hit", f"{length} residues")
            page.keyboard.press("Escape")
        page.click("#clear")
        page.wait_for_function("() => !location.hash && !document.querySelector('table.hits')")
        assert opened.problems == opened.elsewhere == []
        opened.context.close()
