"""What a run is: its typed configuration, presets, names and files."""
