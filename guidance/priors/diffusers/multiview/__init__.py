"""Multi-view networks: MVDream and ImageDream."""
