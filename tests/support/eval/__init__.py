"""What the tests of eval share."""
