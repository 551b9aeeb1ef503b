"""Training: schedule, distribution over devices, checkpoints, logging, validation, and the loop that joins them."""
