"""Assets: written, checked and filmed."""
