"""Every page in a real browser: figures are drawn, the console is quiet, links, keys and narrow screens work."""

import socket
import urllib.parse

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Explorer, explorer_of

pytestmark = pytest.mark.browser

PAGES = {
    "Did transfer help?": "",
    "Where does it live?": "where_does_it_live",
    "What survives damage?": "what_survives_damage",
    "Can anything cheaper do the same?": "can_anything_cheaper",
    "Do the claims hold?": "do_the_claims_hold",
    "Where does attention look?": "where_does_attention_look",
    "Which circuit?": "which_circuit",
    "How do weights move?": "how_do_weights_move",
    "What was generated?": "what_was_generated",
    "Run something": "run_something",
    "Runs": "runs",
}
NO_FIGURE = ("Run something", "Runs")


def test_a_walk_through_every_page_and_tab(explorer: Explorer):
    explorer.open()
    links = explorer.page.locator('[data-testid="stSidebarNav"] a')
    assert links.all_inner_texts() == list(PAGES)
    for title in PAGES:
        links.filter(has_text=title).click()
        explorer.page.wait_for_selector(f'h1:has-text("{title}")')
        explorer.settle()
        explorer.check()
        assert explorer.figures() or title in NO_FIGURE, title
        explorer.screenshot(title.lower().strip("?").replace(" ", "_"))
        tabs = explorer.page.locator('[data-testid="stMain"] [role="tab"]')
        for index in range(1, tabs.count()):
            tabs.nth(index).click()
            explorer.settle()
            explorer.check()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_themes(browser: Browser, address: str, scheme: str):
    explorer = explorer_of(browser, address, color_scheme=scheme, viewport={"width": 1400, "height": 1000})
    explorer.open("where_does_it_live")
    explorer.check()
    colour = explorer.page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    levels = [int(part) for part in colour.strip("rgba()").split(",")[:3]]
    assert (sum(levels) > 600) == (scheme == "light")
    explorer.screenshot(f"where_does_it_live_{scheme}")
    explorer.page.context.close()


def test_a_click_on_a_cell_shows_its_part_and_the_address_says_so(explorer: Explorer):
    explorer.open("where_does_it_live", method="shapley")
    place = explorer.page.evaluate(
        """() => {
            const plot = document.querySelector('.js-plotly-plot'), layout = plot._fullLayout;
            const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
            const trace = plot._fullData.find(each => each.type === 'scatter');
            const index = trace.y.indexOf('mlp');
            return [box.x + layout.xaxis.d2p(trace.x[index]), box.y + layout.yaxis.d2p('mlp')];
        }"""
    )
    explorer.page.mouse.move(*place)
    explorer.page.wait_for_timeout(300)
    explorer.page.mouse.click(*place)
    explorer.page.wait_for_function("() => new URL(location).searchParams.get('part') === 'mlp'", timeout=20_000)
    explorer.settle()
    explorer.check()


def test_a_link_brings_the_selection_back(explorer: Explorer):
    explorer.open("where_does_attention_look", score="entropy_relative", layer="1", head="2", at="phase 2, step 595")
    text = explorer.page.evaluate("() => [...document.querySelectorAll('.gtitle')].map(e => e.textContent).join('|')")
    assert "Entropy relative: run f00f7121 after 595 steps" in text
    assert "Layer 1, head 2" in text
    query = urllib.parse.parse_qs(urllib.parse.urlparse(explorer.page.url).query)
    assert (query["head"], query["at"]) == (["2"], ["phase 2, step 595"])
    explorer.check()


def test_the_choice_between_demo_and_own_store_stands_in_the_address(browser: Browser, filled_address: str):
    explorer = explorer_of(browser, filled_address, viewport={"width": 1400, "height": 1000})
    switch = explorer.page.locator('input[aria-label="Show the demo"]')
    explorer.open()
    assert switch.is_checked()  # as the command line said
    explorer.page.locator('label:has-text("Show the demo")').first.click()
    explorer.settle()
    assert "demo=false" in explorer.page.url
    explorer.page.locator('[data-testid="stSidebarNav"] a').filter(has_text="Runs").click()
    explorer.settle()
    assert "demo=false" in explorer.page.url
    explorer.page.reload()
    explorer.settle()
    assert not switch.is_checked()
    explorer.check()
    explorer.page.context.close()


def test_titles_and_legends_are_whole_on_a_narrow_screen(browser: Browser, address: str):
    explorer = explorer_of(browser, address, viewport={"width": 400, "height": 900})
    for path in ("", "where_does_it_live", "what_survives_damage", "can_anything_cheaper", "do_the_claims_hold"):
        explorer.open(path)
        outside = explorer.page.evaluate(
            """() => [...document.querySelectorAll('.js-plotly-plot')].flatMap(plot => {
                const box = plot.getBoundingClientRect();
                return [...plot.querySelectorAll('.gtitle, .gtitle-subtitle, .xtitle, .ytitle, .legendtext')]
                    .filter(text => { const at = text.getBoundingClientRect();
                        return at.left < box.left - 1 || at.right > box.right + 1 })
                    .map(text => text.textContent);
            })"""
        )
        assert outside == [], path
    explorer.page.context.close()


@pytest.mark.parametrize("title", list(PAGES))
def test_a_narrow_screen_does_not_scroll_sideways(browser: Browser, address: str, title: str):
    explorer = explorer_of(browser, address, viewport={"width": 390, "height": 844})
    explorer.open(PAGES[title])
    widths = explorer.page.evaluate(
        "() => { const e = document.querySelector('[data-testid=stMain]'); return [e.scrollWidth, e.clientWidth] }"
    )
    assert widths[0] <= widths[1] + 1, title
    explorer.check()
    explorer.page.context.close()


def test_the_keyboard_reaches_a_control_and_changes_it(explorer: Explorer):
    explorer.open("where_does_it_live")
    for _ in range(60):
        explorer.page.keyboard.press("Tab")
        label = explorer.page.evaluate("document.activeElement.getAttribute('aria-label') || ''")
        if "Outcome" in label:
            break
    else:
        pytest.fail("60 times Tab did not reach the outcome")
    explorer.page.keyboard.press("ArrowDown")
    explorer.page.keyboard.press("ArrowDown")
    explorer.page.keyboard.press("Enter")
    explorer.page.wait_for_function(
        "() => new URL(location).searchParams.get('outcome') !== 'accuracy'", timeout=20_000
    )
    explorer.settle()
    explorer.check()


def test_nonsense_in_the_address_is_a_line(explorer: Explorer):
    explorer.open("runs", run="../../etc/passwd")
    errors = explorer.page.locator('[data-testid="stAlertContentError"]').all_inner_texts()
    assert len(errors) == 1
    assert "no name of a run" in errors[0]
    assert explorer.page.locator('[data-testid="stException"]').count() == 0


def test_it_listens_on_this_machine_only(address: str):
    port = int(address.rpartition(":")[2])
    own = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for host in own - {"127.0.0.1", "127.0.1.1"}:
        with socket.socket() as probe:
            probe.settimeout(2)
            with pytest.raises(OSError, match=r"refused|timed out"):
                probe.connect((host, port))
