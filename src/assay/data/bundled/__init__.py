"""The corpus that ships with the package; see SOURCES.md."""
