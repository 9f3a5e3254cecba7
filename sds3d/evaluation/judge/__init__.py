"""A small network that says what a picture shows and from where; it never guides a run, it only marks it."""
