"""The service over HTTP: the page, the API, the stream of news, health and metrics."""
