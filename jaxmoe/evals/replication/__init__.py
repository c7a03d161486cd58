"""Published tables drawn anew: recipes, what they cost, and what became of them.

A recipe (`recipes/*.toml`) says which answers are drawn, by which policies and
samplers, what the source reports of them, and which claims they decide.
"""
