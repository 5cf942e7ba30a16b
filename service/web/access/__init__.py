"""Who may ask: users, tokens and sessions, the login page, and the guard before every handler."""
