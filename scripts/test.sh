#!/usr/bin/env bash
# The tests with their coverage: scripts/test.sh [pytest's arguments; paths start at the checkout]
# It makes .venv where there is none, and fails when a test fails or when less than 80 % of the code was run; the processes that
# the tests start are counted in. For some of the tests add --no-cov: they cannot run all of the code.
#   PYTHON               Python 3.11 to 3.13 that .venv is made with (python3)
#   TEST_DATABASE_URL    a PostgreSQL on which the tests may make databases, instead of the embedded one
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/lib.sh"

set_up embedded,dev
# What an operator has set is about another database than the tests'.
unset DATABASE_URL LUIGI_CONFIG_PATH HCAD_PIPELINE_STATE HCAD_PIPELINE_PROFILE HCAD_PIPELINE_MIRROR
cd -- "${root}"
exec "${venv}/bin/python" -m pytest --cov=pipeline --cov-report=term --cov-fail-under=80 "$@"
