"""Every page in a real browser: figures are drawn, the console is quiet, links, keys and narrow screens work."""

import socket
import urllib.parse

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import SECONDS, Explorer, explorer_of

pytestmark = pytest.mark.browser

PAGES = {
    "Did transfer help?": "",
    "Where does it live?": "where_does_it_live",
    "What survives damage?": "what_survives_damage",
    "Can anything cheaper do the same?": "can_anything_cheaper",
    "Does it help on real text?": "does_it_help_on_real_text",
    "Do the claims hold?": "do_the_claims_hold",
    "Where does attention look?": "where_does_attention_look",
    "Which circuit?": "which_circuit",
    "How do weights move?": "how_do_weights_move",
    "What was generated?": "what_was_generated",
    "Run something": "run_something",
    "Runs": "runs",
}
NO_FIGURE = ("Does it help on real text?", "Run something", "Runs")


def test_no_page_asks_another_host_for_anything(explorer: Explorer):
    asked: list[str] = []
    explorer.page.on("request", lambda request: asked.append(request.url))
    for path in PAGES.values():
        explorer.open(path)
    ours = (explorer.address, explorer.address.replace("http", "ws"), "data:", "blob:")
    assert any(url.startswith(explorer.address) for url in asked)
    assert [url for url in asked if not url.startswith(ours)] == []


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
    click_corner(explorer, 0, 1, "left top")
    said_by_address(explorer, part="blocks.0.mlp")
    explorer.check()


@pytest.mark.parametrize("width", [1400, 400])
def test_a_click_at_any_corner_of_a_cell_counts(browser: Browser, address: str, width: int):
    explorer = explorer_of(browser, address, viewport={"width": width, "height": 1000})
    explorer.open("where_does_attention_look")
    said_by_address(explorer, score="value", layer="1", head="3")
    corners = ("left top", "right bottom") if width < 1000 else ("left top", "right top", "left bottom", "right bottom")
    for corner, (head, layer) in zip(corners, ((0, 0), (2, 1), (3, 0), (1, 1))):
        click_corner(explorer, head, layer, corner)
        said_by_address(explorer, layer=str(layer), head=str(head))
    explorer.open("which_circuit", layer="1", head="1", position="4")
    for corner, (position, row) in zip(corners, ((0, 2), (3, 5))):  # of layer 0 head 2, layer 1 head 1
        click_corner(explorer, position, row, corner)
        said_by_address(explorer, layer=str(row // 4), head=str(row % 4), position=str(position))
    explorer.check()
    explorer.page.context.close()


def click_corner(explorer: Explorer, column: int, row: int, corner: str) -> None:
    """Click a cell of the first figure, four pixels from its corner."""
    x, y = ((0.5 if side in ("right", "bottom") else -0.5) for side in corner.split())
    explorer.page.wait_for_selector(".js-plotly-plot .nsewdrag", timeout=SECONDS * 1000)
    place = explorer.page.evaluate(
        """([x, y, dx, dy]) => {
            const plot = document.querySelector('.js-plotly-plot'), layout = plot._fullLayout;
            plot.scrollIntoView({block: 'center'});
            const box = plot.querySelector('.nsewdrag').getBoundingClientRect();
            return [box.x + layout.xaxis.l2p(x) + dx, box.y + layout.yaxis.l2p(y) + dy];
        }""",
        [column + x, row + y, -8 * x, -8 * y],
    )
    explorer.page.mouse.move(*place)
    explorer.page.wait_for_timeout(300)
    explorer.page.mouse.click(*place)


def said_by_address(explorer: Explorer, **wanted: str) -> None:
    """Wait until the address has these parameters, and all is drawn."""
    check = "wanted => { const q = new URL(location).searchParams; return wanted.every(([k, v]) => q.get(k) === v) }"
    explorer.page.wait_for_function(check, arg=[[*pair] for pair in wanted.items()], timeout=20_000)
    explorer.settle()


def test_an_id_that_is_typed_picks_that_run_and_a_link_leads_into_its_model(explorer: Explorer):
    explorer.open("runs")
    box = explorer.page.locator('[data-testid="stMultiSelect"]', has_text="Runs to look into").locator("input")
    box.click()
    box.press_sequentially("f00f", delay=30)
    explorer.page.wait_for_timeout(300)
    box.press("Enter")
    said_by_address(explorer, run="f00f71212a994232")
    assert urllib.parse.urlparse(explorer.page.url).query.count("run=") == 1
    explorer.check()
    explorer.page.keyboard.press("Escape")  # closes the list of options
    explorer.page.get_by_test_id("stMain").get_by_role("link", name="Which circuit?").click()
    explorer.page.wait_for_selector('h1:has-text("Which circuit?")')
    said_by_address(explorer, run="f00f71212a994232")
    explorer.check()


MODEL_PAGES = {
    "light": ["where_does_attention_look", "which_circuit"],
    "dark": [
        "where_does_attention_look",
        "which_circuit",
        "which_circuit?tab=Edges",
        "which_circuit?tab=Faithfulness",
        "how_do_weights_move",
        "how_do_weights_move?tab=Singular values",
        "how_do_weights_move?tab=Likeness",
        "what_was_generated?task=haystack",
    ],
}
READ_FIGURES = """() => {
    const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
        return (r + g + b) / 3;
    };
    const page = light(getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor);
    const titles = [], cut = [], bars = [], dim = [];
    for (const plot of document.querySelectorAll('.js-plotly-plot')) {
        const frame = plot.getBoundingClientRect();
        for (const text of plot.querySelectorAll('[class*=title], .annotation-text')) {
            const box = text.getBoundingClientRect();
            if (text.tagName !== 'text' || !box.width) continue;
            titles.push(text.textContent);
            if (box.left < frame.left - 2 || box.right > frame.right + 2) cut.push(text.textContent);
        }
        for (const text of plot.querySelectorAll('[class*=colorbar] text, [class*=cb] text')) {
            bars.push(text.textContent);
            if (Math.abs(light(getComputedStyle(text).fill) - page) < 110) dim.push(text.textContent);
        }
    }
    return {titles, cut, bars, dim};
}"""


@pytest.mark.parametrize("scheme", list(MODEL_PAGES))
def test_a_phone_shows_all_of_every_title_and_the_labels_of_colours(browser: Browser, address: str, scheme: str):
    explorer = explorer_of(browser, address, color_scheme=scheme, viewport={"width": 400, "height": 850})
    for path in MODEL_PAGES[scheme]:
        explorer.open(path)
        titled = "() => [...document.querySelectorAll('.js-plotly-plot')].every(e => e.querySelector('.gtitle'))"
        explorer.page.wait_for_function(titled, timeout=20_000)
        explorer.page.wait_for_timeout(300)  # margins are fitted to the labels after a first drawing
        found = explorer.page.evaluate(READ_FIGURES)
        assert len(found["titles"]) >= 2 * len(explorer.figures())
        assert found["bars"] or path not in ("where_does_attention_look", "which_circuit")
        assert (path, found["cut"], found["dim"]) == (path, [], [])
        explorer.check()
    explorer.page.context.close()


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
