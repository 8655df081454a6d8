"""Virtual tensors over chunks of physical memory: one pool for activations and KV cache.

Every chunk is in one of five states, and their sum never changes:

=============  ===================================================================================
``free``       not mapped
``kv_used``    holds a part of a sequence's cache
``kv_idle``    mapped into the range of a sequence that is gone; another takes it as it is
``act_used``   holds activations of the iteration that runs
``act_idle``   mapped for activations of one that is over (mapped and available: eLLM never unmaps
               at the end of a tensor's life)
=============  ===================================================================================

Inflation: caches that lack chunks take ``act_idle`` ones, unmapped and mapped anew; deflation, the
other way round, waits until activations lack them. A chunk that is mapped holds up the iteration
unless it was mapped before its use: up to 50 MB a step of decoding are (speculative pre-mapping);
unmapping runs beside.
"""

from dataclasses import dataclass

__all__ = ["CHUNK_BYTES", "ElasticMemory", "SloControl"]

#: Granularity of CUDA's virtual memory.
CHUNK_BYTES = 2 * 2**20
#: What is mapped ahead of a step of decoding: "less than 50 MB".
_AHEAD_BYTES = 50e6


class ElasticMemory:
    """The pool; a block of the engine is a chunk.

    Parameters
    ----------
    chunks : int
        Of the pool.
    block_tokens : int
        Tokens whose cache a chunk holds.
    activation_bytes_per_token : float
        Of the batch of an iteration.
    map_s, unmap_s : float
        Of a chunk.
    host_blocks : int
        Chunks of caches that the host may hold at most; 0 for none.
    """

    def __init__(self, chunks: int, *, block_tokens: int, activation_bytes_per_token: float,
                 map_s: float = 0.0, unmap_s: float = 0.0, host_blocks: int = 0) -> None:
        if chunks < 1 or block_tokens < 1:
            raise ValueError(f"Pool must have chunks that hold a token, not {chunks!r} of "
                             f"{block_tokens!r}")
        self.chunks, self.block_tokens = chunks, block_tokens
        self.free_chunks = chunks
        self.kv_used = self.kv_idle = self.act_used = self.act_idle = 0
        self.host_blocks = host_blocks
        #: What the controller lets the host hold, in chunks: the logical buffer.
        self.host_limit = float(host_blocks)
        self.host_used = 0
        self.mapped = self.inflated = self.deflated = 0
        self._per_token = activation_bytes_per_token
        self._map_s, self._unmap_s = map_s, unmap_s
        self._delay_s = 0.0
        self._ahead = int(_AHEAD_BYTES / CHUNK_BYTES)

    def activation_chunks(self, tokens: int) -> int:
        """Chunks of the activations of so many tokens: slots are aligned to chunks."""
        return -(-int(tokens * self._per_token) // CHUNK_BYTES)

    def _take_kv(self, blocks: int, hidden: int = 0) -> None:
        """Take chunks that are there: idle ones first, then free ones, then activations'."""
        reused = min(blocks, self.kv_idle)
        fresh = min(blocks - reused, self.free_chunks)
        moved = blocks - reused - fresh
        self.kv_idle -= reused
        self.free_chunks -= fresh
        self.act_idle -= moved
        self.kv_used += blocks
        assert self.act_idle >= 0
        self.inflated += moved
        self.mapped += fresh + moved
        self._delay_s += max(fresh + moved - hidden, 0) * self._map_s

    def _take_activations(self, wanted: int) -> None:
        """Let the iteration have so many chunks: its own, free ones, then idle ones of caches."""
        more = wanted - self.act_used
        if more <= 0:
            return
        own = min(more, self.act_idle)
        fresh = min(more - own, self.free_chunks)
        moved = more - own - fresh
        self.act_idle -= own
        self.free_chunks -= fresh
        self.kv_idle -= moved
        self.act_used += more
        assert self.kv_idle >= 0
        self.deflated += moved
        self.mapped += fresh + moved
        # What is taken from caches has to be unmapped first: nothing was ahead of it.
        self._delay_s += (fresh + moved) * self._map_s + moved * self._unmap_s

    @property
    def _available(self) -> int:
        return self.free_chunks + self.kv_idle + self.act_idle

    def admit(self, blocks: int, batch_tokens: int) -> str:
        """Cache and activations together; the cache on the host where the device lacks room."""
        wanted = self.activation_chunks(batch_tokens)
        more = max(wanted - self.act_used, 0)
        if blocks + more <= self._available:
            # Activations first: they find the chunks that are mapped for them.
            self._take_activations(wanted)
            self._take_kv(blocks)
            return "device"
        if more <= self._available and self.host_used + blocks <= self.host_limit:
            self._take_activations(wanted)
            self.host_used += blocks
            return "host"
        return ""

    def begin(self, tokens: int) -> bool:
        """Activations of a step of decoding."""
        wanted = self.activation_chunks(tokens)
        if wanted - self.act_used > self._available:
            return False
        self._take_activations(wanted)
        return True

    def end(self) -> None:
        """The iteration is over: its activations stay mapped."""
        self.act_idle += self.act_used
        self.act_used = 0

    def grow(self, blocks: int) -> bool:
        """Chunks for running sequences, mapped ahead."""
        if blocks > self._available:
            return False
        self._take_kv(blocks, hidden=self._ahead)
        return True

    def fetch(self, blocks: int) -> bool:
        """Chunks for a cache that comes back."""
        if blocks > self._available:
            return False
        self._take_kv(blocks, hidden=blocks)
        return True

    def free(self, blocks: int) -> None:
        """A sequence is gone: its chunks stay mapped."""
        self.kv_used -= blocks
        self.kv_idle += blocks
        assert self.kv_used >= 0

    def host_free(self, blocks: int) -> None:
        """A cache has left the host."""
        self.host_used -= blocks
        assert self.host_used >= 0

    def fits(self, blocks: int, batch_tokens: int) -> bool:
        """Whether an empty server holds cache and activations."""
        return blocks + self.activation_chunks(batch_tokens) <= self.chunks

    def delay_s(self) -> float:
        """What mapping has held up since the last time."""
        delay, self._delay_s = self._delay_s, 0.0
        return delay

    def states(self) -> dict[str, int]:
        """Chunks by state; their sum is that of the pool."""
        return {"free": self.free_chunks, "kv_used": self.kv_used, "kv_idle": self.kv_idle,
                "act_used": self.act_used, "act_idle": self.act_idle}


@dataclass(kw_only=True)
class SloControl:
    """Moves the logical buffer on the host by what the last iterations have missed.

    A metric is violated where it missed its target in `misses` of the last `window` iterations.
    Tokens that come too late shrink the buffer by `alpha`, since prompts are then let in less;
    first tokens that come too late grow it.

    Parameters
    ----------
    memory : ElasticMemory
        Whose limit moves, between one chunk and all that the host has.
    tpot_s : float
        Target for the gap between two tokens.
    window, misses : int
        As above.
    alpha : float
        Above 1.
    """

    memory: ElasticMemory
    tpot_s: float
    window: int = 5
    misses: int = 3
    alpha: float = 2.0

    def __post_init__(self) -> None:
        self._tpot = self._ttft = 0
        self._mask = (1 << self.window) - 1

    def note(self, gap_s: float, ttft_missed: bool) -> None:
        """An iteration is over: gap of the running sequences' tokens, whether a first was late."""
        self._tpot = (self._tpot << 1 | (gap_s > self.tpot_s)) & self._mask
        self._ttft = (self._ttft << 1 | ttft_missed) & self._mask
        memory = self.memory
        if self._tpot.bit_count() >= self.misses:
            memory.host_limit = max(memory.host_limit / self.alpha, 1.0)
            self._tpot = 0
        elif self._ttft.bit_count() >= self.misses:
            memory.host_limit = min(memory.host_limit * self.alpha, float(memory.host_blocks))
            self._ttft = 0
