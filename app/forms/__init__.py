"""Forms of the page, from the fields of the configuration."""
