"""Appraisal rolls of Texas counties, from the districts' bulk files into PostgreSQL.

The chain is download, extract, transform, load; Luigi decides whether and when, plain classes decide what. A county is
data under ``schemas/``, never code.
"""

__version__ = "0.1.0"
