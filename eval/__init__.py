"""Measurements: data sets, metrics, parity, calibration, speed, and the demo. numpy only."""
