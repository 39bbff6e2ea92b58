"""What happens inside a model: probes read it and write captures. They need a model, so they need torch."""
