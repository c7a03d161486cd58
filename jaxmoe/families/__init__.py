"""Model families: one file each, listed in `registry`.

A family reads its config.json and says which tensor is which parameter; `config_json`
is the way in.
"""
