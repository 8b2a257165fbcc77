import json
import re
import shutil

import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from telepathy.report.figures.accuracy import draw_accuracy
from telepathy.report.page import CHARACTERS, ROWS, write_page
from telepathy.report.text import plain
from tests.unit.made_up_study import HOSTILE, RUNS, about, document_files, make_study, write_tables

FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run --window-size=1280,1600"
)
browsed = pytest.mark.browser


def write(study, tables=True):
    fragments = [path.with_suffix(".html") for path in write_tables(study)] if tables else []
    files = [study.folder / "figures" / f"accuracy{ending}" for ending in (".pdf", ".svg")]
    draw_accuracy(study.folder / "statistics.csv", study.folder / "summary.csv", study.names, *files)
    target = study.folder / "report.html"
    predictions = study.files("predictions.parquet")
    write_page(target, about(study), document_files(study), predictions, study.examples, fragments, files[1:])
    return target


def data_of(page):
    """What the page's script reads, as any JSON reader sees it."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1]
    return json.loads(text)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("a study"))


@pytest.fixture(scope="module")
def page(study):
    return write(study)


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page):
    chromium.get(page.as_uri())
    yield chromium
    assert chromium.get_log("browser") == []  # neither an error nor a refused request


def column(driver, table, place):
    return [cell.text for cell in driver.find_elements(By.CSS_SELECTOR, f"{table} tbody tr > :nth-child({place})")]


def shown(driver):
    return column(driver, "#prediction-table", 1)


def predictions(study, *run):
    return pd.read_parquet(study.run(*run) / "predictions.parquet")["prediction"]


def choose(driver, *titles):
    for box in driver.find_elements(By.CSS_SELECTOR, "#chosen label"):
        wanted = any(title in box.text for title in titles)
        if box.find_element(By.TAG_NAME, "input").is_selected() != wanted:
            box.click()


@browsed
def test_the_page_opens_from_disk_with_the_scorecard_first(opened):
    headings = [heading.text for heading in opened.find_elements(By.TAG_NAME, "h2")]
    assert headings[0].startswith("Scorecard")
    assert opened.find_element(By.CSS_SELECTOR, ".counts li").text == "1 reproduced"
    images = opened.find_elements(By.CSS_SELECTOR, "figure img")
    assert images and all(image.get_property("naturalWidth") > 0 for image in images)


@browsed
def test_a_click_sorts_a_table_by_numbers_and_a_second_one_turns_it_round(opened):
    heading = opened.find_elements(By.CSS_SELECTOR, "#run-table thead button")[5]
    heading.click()
    values = [float(text) for text in column(opened, "#run-table", 6)]
    assert values == sorted(values) and len(set(values)) > 3
    heading.click()
    assert [float(text) for text in column(opened, "#run-table", 6)] == sorted(values, reverse=True)
    marks = opened.find_elements(By.CSS_SELECTOR, "#run-table th[aria-sort]")
    assert [mark.get_attribute("aria-sort") for mark in marks] == ["descending"]


@browsed
def test_the_keyboard_sorts_a_table(opened):
    button = opened.find_element(By.CSS_SELECTOR, "#claim-table thead tr :nth-child(2) button")
    opened.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    verdicts = column(opened, "#claim-table", 2)
    assert verdicts == ["artefact of the protocol", "not reproduced", "reproduced"]
    assert opened.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


@browsed
def test_claims_that_are_not_tested_are_told_apart(opened):
    opened.find_element(By.CSS_SELECTOR, "#scorecard summary").click()
    assert column(opened, "#untested-table", 1) == ["Statement 3 <of the publication>"]
    assert column(opened, "#untested-table", 7) == ["Reason 3 & more"]


@browsed
def test_the_speed_table_has_the_medians(opened, study):
    medians = pd.read_csv(study.folder / "latency.csv")["median_ms"]
    assert list(map(float, column(opened, "#speed-table", 6))) == pytest.approx(medians.tolist(), abs=0.05)


@browsed
def test_tables_of_the_rules_sort_too_and_a_dash_stands_last(opened):
    opened.find_elements(By.CSS_SELECTOR, "#table1_classification thead button")[3].click()
    values = column(opened, "#table1_classification", 4)
    assert values[:2] == ["0.0", "10.0"] and set(values[2:]) == {"--"}


@browsed
def test_the_filter_keeps_the_examples_on_which_the_chosen_runs_disagree(opened, study):
    choose(opened, "Bridge (k = 8), seed 1", "Text relay")
    Select(opened.find_element(By.ID, "filter")).select_by_value("disagree")
    one, other = predictions(study, "moods", "bridge", 8, 1), predictions(study, "moods", "text_relay", 0, 0)
    expected = [f"test-{row}" for row in range(40) if one[row] != other[row]]
    assert shown(opened) == expected
    assert opened.find_element(By.ID, "status").text == f"{len(expected)} of 40 examples."


@browsed
def test_a_wrong_answer_is_told_by_more_than_colour(opened, study):
    choose(opened, "Text relay")
    frame = pd.read_parquet(study.run("moods", "text_relay", 0, 0) / "predictions.parquet").head(25)
    expected = [right for right in frame["prediction"] == frame["label"]]
    assert [text.startswith("✓") for text in column(opened, "#prediction-table", 4)] == expected
    hidden = opened.find_elements(By.CSS_SELECTOR, "#prediction-table td:nth-child(4) .hidden")
    assert [part.get_property("textContent") == " (right)" for part in hidden] == expected


@browsed
def test_the_search_finds_text_in_examples(opened):
    opened.find_element(By.ID, "search").send_keys("text 3")
    assert shown(opened) == ["test-3", *[f"test-{row}" for row in range(30, 40)]]


@browsed
def test_pages_turn(opened):
    opened.find_element(By.ID, "next").click()
    assert shown(opened) == [f"test-{row}" for row in range(25, 40)]
    assert not opened.find_element(By.ID, "next").is_enabled()
    assert opened.find_element(By.ID, "page").text == "page 2 of 2"


@browsed
def test_look_shows_a_runs_answers_and_its_provenance(opened):
    opened.find_element(By.CSS_SELECTOR, 'button[data-run="sums/bridge/k24/seed1"]').click()
    assert opened.switch_to.active_element.get_attribute("id") == "predictions-title"
    assert Select(opened.find_element(By.ID, "task")).first_selected_option.text == "Sums"
    assert column(opened, "#prediction-table", 4)[0].startswith("✗ -1")
    assert "It is -1." in column(opened, "#prediction-table", 4)[0]
    opened.find_element(By.CSS_SELECTOR, "#details summary").click()
    assert '"commit": "abc123"' in opened.find_element(By.CSS_SELECTOR, "#details pre").text


@browsed
def test_hostile_text_is_shown_and_does_nothing(opened):
    assert opened.title == "A made-up study · Telepathy reproduction"
    cell = opened.find_elements(By.CSS_SELECTOR, "#prediction-table td.text")[1]
    assert cell.get_property("textContent") == plain(HOSTILE)
    assert not cell.find_elements(By.CSS_SELECTOR, "*")
    assert "\ufffd" in cell.text and "\x1b" not in opened.page_source


@browsed
def test_no_script_but_the_pages_own_runs(chromium, study, tmp_path):
    text = (study.folder / "report.html").read_text()
    owned = tmp_path / "owned.html"
    owned.write_text(text.replace("</main>", "<script>document.title='owned'</script></main>"))
    chromium.get(owned.as_uri())
    assert chromium.title == "A made-up study · Telepathy reproduction"
    assert any("Content Security Policy" in entry["message"] for entry in chromium.get_log("browser"))


@browsed
def test_light_and_dark_both_have_contrast(opened):
    found = {}
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        colours = opened.execute_script(
            "const found = [];"
            "for (const part of document.querySelectorAll('body, .quiet, .verdict, caption, a, .right, .wrong'))"
            "  found.push([getComputedStyle(document.body).backgroundColor, getComputedStyle(part).color]);"
            "return found"
        )
        found[scheme] = colours[0][0]
        assert all(contrast(*pair) >= 4.5 for pair in colours)
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert found["light"] != found["dark"]


def contrast(one, other):
    """Contrast ratio of two CSS colours (WCAG 2.2, relative luminance)."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@browsed
def test_wide_tables_scroll_in_their_place_and_the_page_does_not(opened):
    before = opened.get_window_size()
    opened.set_window_size(520, 800)
    page, table = opened.execute_script(
        "const wider = e => e.scrollWidth - e.clientWidth;"
        "return [wider(document.documentElement), Math.max(...[...document.querySelectorAll('.scroll')].map(wider))]"
    )
    opened.set_window_size(before["width"], before["height"])
    assert page == 0 and table > 0


@browsed
def test_every_control_has_a_name_and_every_table_a_caption(opened):
    controls = opened.find_elements(By.CSS_SELECTOR, "button, select, input")
    names = [part.accessible_name for part in controls if part.is_displayed()]
    assert all(names) and names[0] == "Claim"
    for table in opened.find_elements(By.TAG_NAME, "table"):
        assert table.find_elements(By.TAG_NAME, "caption")
    ids = opened.execute_script("return [...document.querySelectorAll('[id]')].map((part) => part.id)")
    assert len(ids) == len(set(ids))


@browsed
@pytest.mark.parametrize(
    "runs",
    [[("moods", "bridge", 8, 1, 0.0)], [("sums", "zero_shot_receiver", 0, 0, 0.0)], RUNS[3:5]],
    ids=["all wrong", "numbers only", "no bridge"],
)
def test_a_poor_study_opens_without_an_error(chromium, tmp_path, runs):
    study = make_study(tmp_path, runs)
    pd.read_csv(study.folder / "claims.csv").head(0).to_csv(study.folder / "claims.csv", index=False)
    chromium.get(write(study, tables=False).as_uri())
    assert "No claim of the publication" in chromium.find_element(By.ID, "scorecard").text
    assert len(shown(chromium)) == 25
    assert chromium.get_log("browser") == []


def test_the_page_loads_nothing_and_its_policy_forbids_it(page):
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttp|innerHTML|eval\(", text)


def test_data_of_the_page_are_the_predictions(page, study):
    moods = data_of(page)[0]
    for run in moods["runs"]:
        said = [moods["answers"][place] for place in run["answers"]]
        assert said == predictions(study, "moods", run["method"], run["soft_tokens"], run["seed"]).tolist()
    assert [example["text"] for example in moods["examples"]][:2] == ["Text 0 of moods", plain(HOSTILE)]


def test_a_long_study_and_a_long_text_are_cut_and_the_page_says_so(tmp_path):
    study = make_study(tmp_path, RUNS[:2], n=ROWS + 60)
    path = study.examples["moods"] / "test.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "text"] = "long " * 200_000
    frame.to_parquet(path)
    page = write(study)
    moods = data_of(page)[0]
    assert len(moods["examples"]) == ROWS and moods["total"] == ROWS + 60
    assert moods["examples"][0]["text"].endswith("(1,000,000 characters)")
    assert len(moods["examples"][0]["text"]) < CHARACTERS + 40
    assert page.stat().st_size < 1_000_000


def test_the_same_study_gives_the_same_page(study, page):
    before = page.read_bytes()
    assert write(study).read_bytes() == before


def test_control_characters_become_marks():
    assert plain("a\x00b\x1b[31mc\u202ed\n  e") == "a\ufffdb\ufffd[31mc\ufffdd e"
    assert plain("a\n\tb", lines=True) == "a\n\tb"
    assert plain(None) == ""
