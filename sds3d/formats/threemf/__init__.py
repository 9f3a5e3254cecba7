"""3MF files."""
