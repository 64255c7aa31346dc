import reliability_page as page


def test_the_table_of_the_page_is_that_of_the_results():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.with_table(text, page.table(page.RESULTS)) == text


def test_every_row_says_how_often_and_what_came_of_it():
    rows = page.table(page.RESULTS).splitlines()[2:]
    assert rows
    for row in rows:
        assert row.count(" | ") == 3
        assert any(letter.isdigit() for letter in row.split(" | ")[0])
        assert "`pytest tests/torture/" in row
