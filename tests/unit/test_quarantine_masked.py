"""What is shown of a row that names a person has its shape and not its text."""

from pipeline.quarantine import masked_row


def test_letters_and_digits_are_masked_one_for_one():
    row = {"raw": "0010020000001\tO'NEIL, Ana-Mar\u00eda 2", "reasons": {"mailto": ["unallowed value Smith 3"], "*": ["line has a NUL byte"]}}
    shown = masked_row(row)
    assert shown["raw"] == "9999999999999\tx'xxxx, xxx-xxxxx 9"
    assert shown["reasons"] == {"mailto": ["unallowed value xxxxx 9"], "*": ["line has a NUL byte"]}


def test_values_that_postgresql_repeats_are_masked():
    said = ['invalid input syntax for type date: "SMITH 1" (SQLSTATE 22007)', 'value "99999" is out of range for type smallint',
            'new row for relation "i1_owner_rows" violates check constraint "of_mine" (SQLSTATE 23514)']  # fmt: skip
    assert masked_row({"raw": "", "reasons": {"*": said}})["reasons"]["*"] == [
        'invalid input syntax for type date: "xxxxx 9" (SQLSTATE 22007)', 'value "99999" is out of range for type smallint', said[2],
    ]  # fmt: skip
