"""Image files in, denoised image files out: read, computed and written at the same time, in bounded memory."""
