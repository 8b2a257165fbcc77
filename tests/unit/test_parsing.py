import pytest

from telepathy.tasks.parsing import canonical_number, contains_label, parse_label, parse_number
from telepathy.tasks.spec import Label


def labels(*names, **synonyms):
    return [Label(name=name, verbaliser=name, synonyms=tuple(synonyms.get(name, ()))) for name in names]


# The worked answer of the first training example of GSM8K (Cobbe et al. 2021).
GSM8K = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72"
)


@pytest.mark.parametrize(
    "text, number",
    [
        (GSM8K, "72"),
        ("It is 18.", "18"),
        ("$1,000.50", "1000.5"),
        ("000", "0"),
        ("She has 12 apples and 3 pears", "3"),
        ("#### 5 apples, 7 pears", "5"),
        ("#### 1,234,567", "1234567"),
        ("1,000,000.", "1000000"),
        ("about 3.50 km", "3.5"),
        ("that is 40%", "40"),
        ("-7", "-7"),
        ("#### -12", "-12"),
        (".5", "0.5"),
        ("3,4", "4"),
        ("2.0", "2"),
        ("20-13", "13"),
        ("between 3-4", "4"),
        ("x = -4", "-4"),
        ("5 - 8 = -3", "-3"),
        ("no digits", None),
        ("", None),
        ("12 ####", None),
    ],
)
def test_number_at_the_end_of_an_answer(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "written, canonical",
    [
        ("1,000.50", "1000.5"),
        ("+1000.5", "1000.5"),
        ("007", "7"),
        ("-0", "0"),
        ("0.0", "0"),
        ("-0.50", "-0.5"),
        ("10", "10"),
    ],
)
def test_numbers_are_written_one_way(written, canonical):
    assert canonical_number(written) == canonical


@pytest.mark.parametrize("written", ["1,000.50", "+3", "-0.125", "000", "12,345,678", "6.02"])
def test_canonical_numbers_keep_their_value(written):
    assert float(canonical_number(written)) == float(written.replace(",", ""))


def test_no_is_not_in_know():
    assert parse_label("I know: yes", labels("no", "yes")) == "yes"


def test_a_word_inside_a_word_is_no_answer():
    assert parse_label("nothing is known", labels("no", "yes")) is None


def test_case_and_punctuation_do_not_matter():
    assert parse_label("**YES**.", labels("no", "yes")) == "yes"


def test_the_answer_that_is_said_first_wins():
    assert parse_label("positive, not negative", labels("negative", "positive")) == "positive"


def test_the_longer_of_two_labels_at_one_place_wins():
    assert parse_label("my card not working today", labels("card", "card not working")) == "card not working"


def test_a_synonym_stands_for_its_label():
    assert parse_label("It was bad", labels("negative", "positive", negative=["bad"])) == "negative"


def test_a_label_with_punctuation_is_taken_literally():
    assert parse_label("money.fx", labels("money-fx", "money.fx")) == "money.fx"


def test_the_published_rule_does_find_no_in_know():
    assert contains_label("I know: yes", labels("no", "yes")) == "no"


def test_the_published_rule_takes_the_first_label_of_the_list():
    assert contains_label("positive, negative", labels("negative", "positive")) == "negative"
