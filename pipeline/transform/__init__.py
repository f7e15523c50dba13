"""The transform stage: text of any declared layout becomes typed, checked rows, and every line is accounted for.

``choose_layout`` and ``read_header`` decide once a member how it is read; ``DataTransformer.transform_part`` makes a
folder of rows, quarantine and report out of each part. The stage knows no database, no network and no other stage.
"""

from pipeline.transform.header import Reading
from pipeline.transform.layout import choose_layout, read_header, read_version
from pipeline.transform.row_hash import row_hashes
from pipeline.transform.transformer import DataTransformer

__all__ = [
    "DataTransformer",
    "Reading",
    "choose_layout",
    "read_header",
    "read_version",
    "row_hashes",
]
