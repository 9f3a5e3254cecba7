"""Objectives over an interval of the trajectory, by DDIM inversion: ISM, CSM, TSM, SDI."""
