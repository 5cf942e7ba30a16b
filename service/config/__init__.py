"""The site's configuration: one TOML file, read strictly."""
