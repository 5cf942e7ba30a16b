"""How fast an archive is searched, and how well."""
