"""Trainable score networks beside the prior: LoRA critics and the discriminator."""
