"""The suites that come with rlbench, as YAML files."""
