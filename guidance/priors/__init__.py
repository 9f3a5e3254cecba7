"""Priors: frozen diffusion and flow models behind one interface."""
