"""From logits to answers: token samplers, prefill, the decode step, the engine."""
