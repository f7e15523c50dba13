"""An event is one line of the log, whatever its figures hold."""

import logging

import pytest

from pipeline.observe.events import log_event


@pytest.mark.fault(75)
def test_text_from_data_cannot_forge_a_line(caplog):
    caplog.set_level(logging.INFO, logger="pipeline")
    log_event("load.part", {"table": "hcad.real_acct", "seconds": 0.81234, "member": "a\nERROR forged \x1b[31m", "name": "caf\u00e9 x"})
    (record,) = caplog.records
    expected = "load.part table=hcad.real_acct seconds=0.812 member='a\\nERROR forged \\x1b[31m' name='caf\\xe9 x'"
    assert record.getMessage() == expected
