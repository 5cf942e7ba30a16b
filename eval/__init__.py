"""What is measured: metrics, latency, reports. numpy only, no torch."""
