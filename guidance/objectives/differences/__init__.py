"""Objectives from one difference of predictions: SDS, SJC, CSD, NFSD, ASD, BSD, RFDS, region SDS."""
