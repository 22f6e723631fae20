"""The page of ``veilsim report`` in a real browser; skipped where there is no Chromium with its driver."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from sim.report.page.write import write_page
from tests.sim import made_up_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromedriver on PATH")

USERS = 1000
T = TypeVar("T")


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 1,000 users, whose pictures are noise: nothing is harder to make small."""
    path = tmp_path_factory.mktemp("thousand")
    run = made_up_run.make(path / "run", made_up_run.experiment_of(USERS), failed={5: "out of memory"})
    names = [f"user-{user:04d}" for user in range(100)]
    gains = np.random.default_rng(0).uniform(size=10_000)
    pairs = pd.MultiIndex.from_product([names, names], names=["attacker", "victim"]).to_frame(index=False)
    (run.path / "studies").mkdir()
    pairs.assign(gain_ssim=gains).to_parquet(run.path / "studies" / "transfer.parquet")
    return write_page([run.path])


@pytest.fixture
def page(browser: Chrome, thousand: Path) -> Iterator[Chrome]:
    """The page, freshly opened; whatever a test does with it, the browser must have nothing to complain about."""
    visit(browser, thousand)
    yield browser
    assert browser.get_log("browser") == []


def wait_for(browser: Chrome, condition: Callable[[Chrome], T]) -> T:
    """Wait until ``condition`` returns something true, and return that."""
    return WebDriverWait(browser, timeout=30, poll_frequency=0.05).until(condition)


def visit(browser: Chrome, file: Path) -> None:
    """Open a page and wait until it has been loaded.

    ``get`` alone may return when loading has just begun: from a second page on, where the browser drops the last one
    before chromedriver looks whether anything is still loading.
    """
    browser.execute_script("window.isLast = true")
    browser.get(file.as_uri())
    wait_for(browser, lambda it: it.execute_script("return !window.isLast && document.readyState === 'complete'"))


def rows(page: Chrome) -> list[str]:
    script = "return [...document.querySelectorAll('[data-users] tbody tr')].map((row) => row.dataset.name)"
    found: list[str] = page.execute_script(script)
    return found


def sort_button(page: Chrome, name: str) -> Any:
    return page.find_element(By.XPATH, f"//div[@data-users]//button[@aria-label='{name}' or text()='{name}']")


def press(page: Chrome, element: Any) -> None:
    page.execute_script("arguments[0].click()", element)


def test_a_thousand_users_fit_into_15_megabytes_and_open_within_3_seconds(browser: Chrome, thousand: Path) -> None:
    assert thousand.stat().st_size < 15_000_000
    seconds: list[float] = []
    for _ in range(3):  # the machine may have other work
        start = time.perf_counter()
        visit(browser, thousand)
        assert len(rows(browser)) == USERS
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 3
    assert browser.get_log("browser") == []


def test_a_column_is_sorted_by_its_head_both_ways_with_what_is_unknown_last(page: Chrome) -> None:
    button = sort_button(page, "ITN strong, PSNR")
    head = button.find_element(By.XPATH, "..")
    assert head.get_attribute("aria-sort") == "none"
    press(page, button)
    assert head.get_attribute("aria-sort") == "ascending"
    # The first user is hidden (13.5 dB), user 5 has failed, every other has 1 mdB more than the one before.
    assert rows(page)[:2] == ["user-0000", "user-0001"]
    assert rows(page)[-2:] == ["user-0999", "user-0005"]
    press(page, button)
    assert head.get_attribute("aria-sort") == "descending"
    assert rows(page)[:2] == ["user-0999", "user-0998"]
    assert rows(page)[-1] == "user-0005"
    press(page, sort_button(page, "user"))
    assert head.get_attribute("aria-sort") == "none"
    assert rows(page)[:2] == ["user-0000", "user-0001"]


def test_the_headline_and_the_strips_of_the_best_and_the_worst_user_are_on_the_first_screen(page: Chrome) -> None:
    said = page.find_element(By.CSS_SELECTOR, ".headline")
    assert said.text.startswith(
        "User 0 is hidden from these attacks; the images of user 2 can be made out as they are;"
    )
    tiles = wait_for(page, lambda it: (found := it.find_elements(By.CSS_SELECTOR, "[data-extremes] canvas")) and found)
    bottoms = [
        page.execute_script("return arguments[0].getBoundingClientRect().bottom", each) for each in (said, *tiles)
    ]
    assert len(tiles) % 6 == 0  # plain, protected and best estimate of two users
    assert max(bottoms) < page.execute_script("return innerHeight")
    captions = [each.text for each in page.find_elements(By.CSS_SELECTOR, "[data-extremes] figcaption")]
    assert captions[0].startswith("user 2, given away most: visible, accuracy 70.0%")
    assert captions[1].startswith("user 0, given away least: hidden, accuracy 70.0%")


def test_the_control_stays_below_all_users_whatever_they_are_sorted_or_filtered_by(page: Chrome) -> None:
    def pinned() -> list[str]:
        found = page.find_elements(By.CSS_SELECTOR, "[data-users] tfoot tr")
        return [cell.text for row in found for cell in row.find_elements(By.CSS_SELECTOR, "th, td")][:3]

    before = pinned()
    assert before[0] == "control: blur"
    assert before[2] == "works"
    press(page, sort_button(page, "given away (%)"))
    page.find_element(By.CSS_SELECTOR, "[data-text]").send_keys("nobody")
    assert rows(page) == []
    assert pinned() == before


def test_the_table_fits_the_page_until_all_columns_are_asked_for(page: Chrome) -> None:
    box = page.find_element(By.CSS_SELECTOR, "[data-users]")
    fits = "return arguments[0].scrollWidth <= arguments[0].clientWidth"
    assert page.execute_script(fits, box)
    assert not sort_button(page, "traffic, sent").is_displayed()
    press(page, page.find_element(By.CSS_SELECTOR, "[data-all]"))
    assert sort_button(page, "traffic, sent").is_displayed()
    assert not page.execute_script(fits, box)


def test_what_columns_hold_can_be_read_without_pointing_at_them(page: Chrome) -> None:
    press(page, page.find_element(By.CSS_SELECTOR, ".help summary"))
    said = page.find_element(By.CSS_SELECTOR, "[data-help]").text
    assert "share of test images that are visible or that some attack recovers" in said


def test_rows_are_filtered_by_text_and_by_verdict(page: Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "[data-text]").send_keys("user-099")
    assert rows(page) == [f"user-{user:04d}" for user in range(990, 1000)]
    count = page.find_element(By.CSS_SELECTOR, "[data-count]")
    assert count.text == "10 of 1,000 users"
    page.find_element(By.CSS_SELECTOR, "[data-text]").clear()
    Select(page.find_element(By.CSS_SELECTOR, "[data-verdict]")).select_by_visible_text("visible")
    assert rows(page) == ["user-0002"]
    Select(page.find_element(By.CSS_SELECTOR, "[data-verdict]")).select_by_visible_text("failed")
    assert rows(page) == ["user-0005"]


def strip_of(page: Chrome, name: str) -> list[str]:
    """Wait until the images of ``name`` are shown, and return what is said of them."""
    script = "return [...document.querySelectorAll('[data-strip] canvas')].map((tile) => tile.title)"

    def said(page: Chrome) -> list[str]:
        words: list[str] = page.execute_script(script)
        return words if words and f" of {name}:" in words[-1] else []

    return wait_for(page, said)


def test_a_row_or_the_list_chooses_whose_images_are_shown(page: Chrome) -> None:
    strip_of(page, "user 0")
    press(page, page.find_element(By.XPATH, "//button[text()='user 42']"))
    said = strip_of(page, "user 42")
    assert said[0] == "plain, image 1"
    assert said[-1].startswith("ITN strong, image ")
    select = Select(page.find_element(By.CSS_SELECTOR, "[data-subject]"))
    assert select.first_selected_option.text == "user 42"
    select.select_by_visible_text("control: blur")
    strip_of(page, "control: blur")
    chosen = page.find_element(By.CSS_SELECTOR, "tr[aria-current=true]")
    assert chosen.get_attribute("data-name") == "control-blur"


def test_pictures_are_drawn_and_not_blank(page: Chrome) -> None:
    strip_of(page, "user 0")
    script = """
        const tile = [...document.querySelectorAll("[data-strip] canvas")].at(-1);
        return [...tile.getContext("2d").getImageData(0, 0, tile.width, tile.height).data];
    """
    values = np.array(page.execute_script(script)).reshape(32, 32, 4)
    assert (values[..., 3] == 255).all()
    assert values[..., :3].std() > 30


def test_a_user_without_pictures_is_told_to_have_none(page: Chrome) -> None:
    press(page, page.find_element(By.XPATH, "//button[text()='user 5']"))
    assert page.find_element(By.CSS_SELECTOR, "[data-strip]").text == "There are no pictures of user 5."


def test_a_cell_of_the_heat_map_says_its_value(page: Chrome) -> None:
    page.execute_script("document.querySelector('.study').scrollIntoView({behavior: 'instant'})")
    cells = wait_for(page, lambda it: it.find_elements(By.CSS_SELECTOR, "[data-heat] rect"))
    assert len(cells) == 10_000
    page.execute_script("arguments[0].dispatchEvent(new PointerEvent('pointerover', {bubbles: true}))", cells[101])
    said = page.find_element(By.CSS_SELECTOR, "[data-readout]").text
    assert said.startswith("user 1 attacks user 1: 0.")


@pytest.fixture
def phone(page: Chrome) -> Iterator[Chrome]:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield page
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_on_a_phone_nothing_is_cropped_and_only_tables_and_strips_are_scrolled_sideways(phone: Chrome) -> None:
    too_wide = phone.execute_script(
        "const scrolled = '.table, [data-strip], .heat .scroll, pre';"
        "return [...document.querySelectorAll('main *, header *')].filter((it) => !it.closest(scrolled)"
        " && it.getBoundingClientRect().right > 391).map((it) => it.outerHTML.slice(0, 80))"
    )
    assert too_wide == []
    assert phone.execute_script("return document.documentElement.scrollWidth") == 390


def test_on_a_phone_the_verdict_is_on_the_screen_and_buttons_suit_a_finger(phone: Chrome) -> None:
    bottom, right = (
        phone.execute_script(f"return document.querySelector('{what}').getBoundingClientRect().{end}")
        for what, end in ((".headline", "bottom"), ("[data-users] .verdict", "right"))
    )
    assert bottom < 844
    assert right < 390
    heights = phone.execute_script(
        "return [...document.querySelectorAll('button, select, input:not([type=checkbox]), summary')]"
        ".filter((it) => it.offsetParent).map((it) => it.getBoundingClientRect().height)"
    )
    assert min(heights) >= 40


def test_several_runs_are_opened_from_their_comparison(browser: Chrome, tmp_path: Path) -> None:
    paths = [made_up_run.make(tmp_path / name, made_up_run.experiment_of(3)).path for name in ("first", "second")]
    visit(browser, write_page(paths, tmp_path / "both.html"))
    details = browser.find_elements(By.CSS_SELECTOR, "details.run")
    assert [each.get_attribute("open") for each in details] == [None, None]
    press(browser, browser.find_element(By.XPATH, "//div[@data-comparison]//button[text()='second']"))
    assert details[1].get_attribute("open") == "true"
    users = wait_for(browser, lambda _: details[1].find_elements(By.CSS_SELECTOR, "[data-users] tbody tr"))
    assert len(users) == 3
    assert browser.get_log("browser") == []
