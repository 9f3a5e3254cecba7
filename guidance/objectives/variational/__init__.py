"""Objectives with a critic or an ensemble of particles: VSD, ESD, f-divergences, DisBack, PG-SB."""
