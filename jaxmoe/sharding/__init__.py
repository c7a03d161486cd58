"""Many devices: rules, layouts, collectives, processes."""

from jaxmoe.sharding.layout import BATCH, Layout, batch_mesh, layout_for
from jaxmoe.sharding.rules import LOGICAL_AXES, Preset, Rules, check_rules, rules_for

__all__ = [
    "BATCH",
    "LOGICAL_AXES",
    "Layout",
    "Preset",
    "Rules",
    "batch_mesh",
    "check_rules",
    "layout_for",
    "rules_for",
]
