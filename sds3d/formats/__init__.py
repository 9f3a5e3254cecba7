"""One file for each family of formats that other programs open. Conventions: docs/conventions.md."""
