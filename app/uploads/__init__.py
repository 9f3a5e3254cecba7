"""Files that visitors upload."""
