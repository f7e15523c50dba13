"""``python -m pipeline``: the same as ``hcad-pipeline``."""

from pipeline.cli import main

main()
