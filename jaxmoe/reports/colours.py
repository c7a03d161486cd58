"""The colours of pages and figures: one table, for light paper and for dark.

Figures are drawn in the light ones. A page says `var(--name)` in their place, so each
colour of `LIGHT` is there once.
"""

LIGHT = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#59626c",
    "faint": "#dfe3e7",
    "run-0": "#15191d",
    "run-1": "#c8511b",
    "run-2": "#0b4f94",
    "run-3": "#189a78",
    "run-4": "#4d1a70",
    "run-5": "#a8377c",
    "better": "#2f74b8",
    "worse": "#cf6a2c",
}
DARK = {
    "paper": "#14171b",
    "ink": "#e6e9ec",
    "muted": "#a0a9b2",
    "faint": "#30363d",
    "run-0": "#f2f2f2",
    "run-1": "#ee8746",
    "run-2": "#9acffa",
    "run-3": "#1d8370",
    "run-4": "#e8dcfb",
    "run-5": "#d0659f",
    "better": "#5b9fe0",
    "worse": "#e08a4c",
}
RUNS = tuple(name for name in LIGHT if name.startswith("run-"))
"""Told apart in grey and by the colour-blind; further runs repeat them in other
styles."""


def style() -> str:
    """The table as custom properties of CSS."""
    light, dark = (
        "".join(f"  --{name}: {colour};\n" for name, colour in theme.items())
        for theme in (LIGHT, DARK)
    )
    asked = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{\n{light}}}\n{asked} {{ :root {{\n{dark}}} }}\n"
