import doctest

from pipeline import disclosure


def test_examples_of_masks_and_cells_come_true():
    outcome = doctest.testmod(disclosure)
    assert outcome.attempted >= 2
    assert outcome.failed == 0
