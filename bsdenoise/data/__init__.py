"""SOURCE → noisy training crops: which images there are, what they are like, and examples drawn from them."""
