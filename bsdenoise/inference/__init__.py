"""Images of any size through a network, in the memory that there is."""
