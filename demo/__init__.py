"""The reference project's demo: real retail data, replayed as if it landed every day."""
