"""Objectives that edit a source: DDS and PDS."""
