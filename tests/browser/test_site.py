"""The built documentation in a real browser: nothing is wider than its place."""

import http.server
import threading
from functools import partial

import pytest

from tests.support.processes import ROOT

SITE = ROOT / "build" / "site"
PAGES = sorted(path.name for path in SITE.glob("*.html"))
pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(not PAGES, reason="needs the documentation's site: `zensical build --clean --strict`"),
]

#: The text of tables, listings and pictures that are wider than their place: they are cut off, or scroll. The theme
#: puts tables into a div. (What is inline has no width of its own.)
CUT_OFF = """[...document.querySelectorAll("article :is(div, td, pre, code, p:has(img))")]
  .filter((element) => element.clientWidth && element.scrollWidth > element.clientWidth)
  .map((element) => element.innerText.slice(0, 200))"""


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): ...


@pytest.fixture(scope="module")
def address():
    """Where the site is served."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=SITE)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_no_table_listing_or_picture_is_cut_off(browser, address):
    with browser.page(f"{address}/index.html") as page:
        page.resize(1300, 900)
        cut_off = {}
        for name in PAGES:
            page.go(f"{address}/{name}")
            if found := page.run(CUT_OFF):
                cut_off[name] = found
    assert cut_off == {}
