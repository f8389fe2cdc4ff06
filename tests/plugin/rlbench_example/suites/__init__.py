"""The plugin's suites."""
