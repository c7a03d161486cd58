"""Routing: a scoring rule, which is the model's, and a policy, which is the user's."""
