"""How good is a denoiser: clean images with known noise, or real pairs; metrics, records, tables."""
