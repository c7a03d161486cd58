"""What a mixer is asked for, and what it is told: the contracts of `jaxmoe.nn`.

A mixer exchanges information between positions, and owns what it has to remember of
those already passed (its `LayerState`). A whole sequence goes through `prefill`, which
gives the state of a prompt; one more position a slot goes through `decode`, which reads
the prompt's state and carries on the slot's own.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

from jaxmoe.execution import Execution
from jaxmoe.ops.grouping import Blocks
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Bool, Float, Int


@dataclass(frozen=True)
class Context:
    """What a pass runs on: the kernels, and which device of the mesh this is."""

    execution: Execution
    device: DeviceContext


class Sequences(NamedTuple):
    """Whole sequences side by side, all padded to one length.

    positions: int32 [N], of the rows at hand. lengths: int32 [N], tokens of each row's
    sequence. valid: bool [M], which rows of all devices are tokens and not padding.
    count: how many sequences, static. keep: whether states are wanted, static.
    """

    positions: Int[Array, "N"]
    lengths: Int[Array, "N"]
    valid: Bool[Array, "M"]
    count: int
    keep: bool


class Held(NamedTuple):
    """Bytes of a state on one device that has its row.

    position: of each position that the row has room for. fixed: whatever its length.
    """

    position: int
    fixed: int = 0


class MixerWork(NamedTuple):
    """What a mixer does beside the products of its weights, on one device.

    A multiplication and an addition count as one. Every row does `fixed` of them, and
    `position` more with each position that it looks back at. scores: those of one such
    position that an accelerator's form holds, of a row. whole: as `position`, in a pass
    over whole sequences, where that is another number. told: float32 values of a row
    that devices which divide `summed` tell each other before their part is done, each
    by itself.
    """

    position: int
    fixed: int
    scores: int
    whole: int | None = None
    told: int = 0

    @property
    def pair(self) -> int:
        """Of a position that is looked back at, in a pass over whole sequences."""
        return self.position if self.whole is None else self.whole


class Step(NamedTuple):
    """One more position in every slot.

    positions: int32 [S], absolute, of the token at hand. start: int32 [S], where each
    slot's own positions begin, after its prompt. active: bool [S]. longest: the most
    own positions of any slot. prompt_lengths: int32 [P]. blocks: slots that share a
    prompt, `block` (static) of them at most; None with one prompt.
    """

    positions: Int[Array, "S"]
    start: Int[Array, "S"]
    active: Bool[Array, "S"]
    longest: Int[Array, ""]
    prompt_lengths: Int[Array, "P"]
    blocks: Blocks | None
    block: int


@runtime_checkable
class LayerState(Protocol):
    """What mixers of one kind remember, of L layers: every array is [L, rows, ...].

    Rows are prompts (a state that is read) or slots (one that is carried on).
    """

    @property
    def size(self) -> int | None:
        """Positions a row has room for; None where that does not grow."""
        ...

    @classmethod
    def empty(
        cls,
        config: Any,
        *,
        layers: int,
        rows: int,
        size: int,
        dtype: Any,
        layout: Layout,
    ) -> Self:
        """With nothing in it; size: positions that each row has room for."""
        ...

    @classmethod
    def specs(cls, layout: Layout, rows: str | None) -> Any:
        """How the arrays lie on a mesh; rows: logical axis of the rows."""
        ...

    @classmethod
    def held(cls, config: Any, *, dtype: Any, layout: Layout) -> Held:
        """Bytes of one layer and row, as `empty` allocates them on a mesh."""
        ...

    def put(self, index: Array, prompts: Self, row: Array) -> Self:
        """With row `index` replaced by row `row` of `prompts`."""
        ...

    def fork(
        self, prefix: Self, prompt: Int[Array, "S"], new: Bool[Array, "S"]
    ) -> Self:
        """Slots that begin where `new`: what they hold after row `prompt` of `prefix`.

        Keys and values begin empty, as the prompt's are read where they are; what
        replaces the prompt's state at every position begins as a copy.
        """
        ...

    def rewound(self, before: Self) -> Self:
        """After a position that will be passed once more, with other inputs.

        Itself where that overwrites what is held of the position; else `before`, the
        state that it was passed with.
        """
        ...

    def grow(self, size: int) -> Self:
        """With room for `size` positions; itself where it does not grow."""
        ...


@runtime_checkable
class Mixer(Protocol):
    """How positions exchange information.

    summed: the logical axis over which a mesh divides its last product: each device
      gives a part of the output, and these are added.
    """

    summed: ClassVar[str]

    @classmethod
    def work(cls, config: Any, layout: Layout) -> MixerWork:
        """What planning and benchmarks count, on one device of the layout."""
        ...

    def projections(
        self, x: Float[Array, "N D"], positions: Int[Array, "N"], context: Context
    ) -> Float[Array, "N D"]:
        """What a step does of rows at `positions` but for looking at others.

        Every product by a weight is in it. For benchmarks: the numbers mean nothing.
        """
        ...

    def prefill(
        self, x: Float[Array, "N D"], sequences: Sequences, context: Context
    ) -> tuple[Float[Array, "N D"], Any]:
        """The output, and the state of one layer, [count, ...]; None if not kept."""
        ...

    def decode(
        self,
        x: Float[Array, "S D"],
        at: Array | int,
        prefix: Any,
        own: Any,
        step: Step,
        context: Context,
    ) -> tuple[Float[Array, "S D"], Any]:
        """The output, and `own` with this position in layer `at` of the state."""
        ...
