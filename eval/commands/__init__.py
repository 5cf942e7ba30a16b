"""Commands that measure: `ovavel bench`, `ovavel eval …`, `ovavel demo`."""
