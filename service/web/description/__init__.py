"""What the API takes and gives, for programs and for tests: OpenAPI and JSON schemas."""
