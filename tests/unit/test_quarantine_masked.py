"""What is shown of a row that names a person has its shape and not its text."""

from pipeline.quarantine import masked_row


def test_letters_and_digits_are_masked_one_for_one():
    row = {"raw": "0010020000001\tO'NEIL, Ana-Mar\u00eda 2", "reasons": {"mailto": ["unallowed value Smith 3"], "*": ["line has a NUL byte"]}}
    shown = masked_row(row)
    assert shown["raw"] == "9999999999999\tx'xxxx, xxx-xxxxx 9"
    assert shown["reasons"] == {"mailto": ["unallowed value xxxxx 9"], "*": ["line has a NUL byte"]}
