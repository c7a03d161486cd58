"""The peers that there are, by the names that the command line takes."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxmoe.benchmarks import llama_cpp_peer, transformers_peer
from jaxmoe.benchmarks.peer import Peer
from jaxmoe.benchmarks.subject import Subject


@dataclass(frozen=True)
class PeerKind:
    """make: of a subject. require: raises ImportError where it cannot run on a backend,
    and says what to install. libraries: whose versions count. optional: left out where
    it cannot run."""

    make: Callable[[Subject], Peer]
    require: Callable[[str], None]
    libraries: tuple[str, ...]
    optional: bool = False


PEERS = {
    "transformers": PeerKind(
        transformers_peer.TransformersPeer,
        transformers_peer.require,
        transformers_peer.LIBRARIES,
    ),
    "llama.cpp": PeerKind(
        llama_cpp_peer.LlamaCppPeer,
        llama_cpp_peer.require,
        llama_cpp_peer.LIBRARIES,
        optional=True,
    ),
}
