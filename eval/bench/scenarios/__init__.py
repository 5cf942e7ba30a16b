"""The scenarios that are timed, after MLPerf: single stream, offline, live, capture."""
