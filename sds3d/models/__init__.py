"""Models by name: the registry, downloads, loading."""
