"""Wavefront OBJ and MTL: readers and writer."""
