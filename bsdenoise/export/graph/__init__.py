"""What the exported graph is made of besides the network: checks of its inputs, image files, and tiles."""
