"""Where trio meets Linux. Knows nothing of models."""
