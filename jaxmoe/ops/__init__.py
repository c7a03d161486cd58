"""Pure numerics: arrays in, arrays out; no modules, no weights' names, no mesh."""
