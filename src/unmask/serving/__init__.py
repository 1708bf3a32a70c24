"""A model as a service: OpenAI's interface, and what diffusion adds to it. Knows no training."""
