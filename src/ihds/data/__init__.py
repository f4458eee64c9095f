"""The rows of one site: what they mean, how they are read, who may see which of them."""
