"""Who is asking, what they may use, how much of it, and in which order: tenants and principals as objects."""
