"""Claims put to the test: arms paired by seed, intervals, verdicts, reports."""
