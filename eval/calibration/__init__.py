"""Temperature and margins fitted on labelled clips."""
