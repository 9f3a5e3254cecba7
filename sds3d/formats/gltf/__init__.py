"""glTF 2.0: reader and writer."""
