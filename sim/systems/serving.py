"""A server of language models, iteration by iteration: continuous batching over a KV cache.

An iteration either prefills the prompts that were just admitted or decodes one token of every
running sequence (vLLM 0.5; Yu et al., Orca, OSDI 2022); with chunks it does both within a budget of
tokens (Agrawal et al., Sarathi-Serve, OSDI 2024). What is admitted next, what memory there is and
how long an iteration takes are objects of the caller: a queue, a memory, times.

Sequences that run gain one token per step all together, so a step takes a few operations however
many they are: a heap holds the steps at which they end, and an array how many of them begin a new
block in which step. Events are handled in the order of their time and number: no two runs differ.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from splatforge.sim.systems.cards import ModelCard
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.roofline import (
    Machine,
    attention,
    decoder_layer,
    linear,
)

__all__ = ["Engine", "Fcfs", "Memory", "PagedMemory", "Queue", "Request", "RooflineTimes",
           "Served", "Times", "prefill_pairs"]


@dataclass(slots=True, eq=False)
class Request:
    """One prompt and its answer.

    Parameters
    ----------
    arrival_s : float
        When it comes.
    input_tokens, output_tokens : int
        Lengths, at least 1; the answer's is not known to the server.
    group : int
        Application or client that it is of.
    number : int
        Breaks ties.
    first_token_s, finish_s : float
        When its first and its last token are there; not a number until then.
    preemptions : int
        Times that it lost its cache and had to begin again.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    group: int = 0
    number: int = 0
    first_token_s: float = math.nan
    finish_s: float = math.nan
    preemptions: int = 0
    #: Tokens answered so far, tokens in the cache when it began to run, step of that, last step.
    answered: int = 0
    context: int = 0
    joined: int = 0
    ends: int = 0
    prefilled: int = 0
    on_host: bool = False

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.first_token_s - self.arrival_s

    @property
    def tpot_s(self) -> float:
        """Time per token behind the first; 0 for an answer of one token."""
        if self.output_tokens == 1:
            return 0.0
        return (self.finish_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def prompt(self) -> int:
        """Tokens that a prefill takes: those answered before a preemption are part of it."""
        return self.input_tokens + self.answered


class Times(Protocol):
    """How long an iteration takes."""

    def iteration_s(self, prefill_tokens: int, pairs: float, prefill_context: int, prompts: int,
                    running: int, context: int) -> float:
        """Seconds of one iteration.

        Parameters
        ----------
        prefill_tokens : int
            New tokens of prompts.
        pairs : float
            Pairs of a new token and a token that it sees.
        prefill_context : int
            Tokens that the prompts' attention reads, those before a chunk included.
        prompts : int
            Prompts that they are of.
        running, context : int
            Sequences that decode, and tokens in their caches together.
        """
        ...


class Memory(Protocol):
    """Where caches and activations are, in blocks of tokens."""

    block_tokens: int

    def admit(self, blocks: int, batch_tokens: int) -> str:
        """Take a prompt's cache and what its batch needs, both or neither.

        Returns
        -------
        str
            ``device`` or ``host`` for where the cache goes, empty if it has to wait.
        """
        ...

    def begin(self, tokens: int) -> bool:
        """Take the activations of an iteration without new prompts."""
        ...

    def end(self) -> None:
        """Give back the activations of the iteration."""
        ...

    def grow(self, blocks: int) -> bool:
        """Take blocks for running sequences."""
        ...

    def free(self, blocks: int) -> None:
        """Give blocks back."""
        ...

    def fetch(self, blocks: int) -> bool:
        """Take blocks for a cache that comes back from the host."""
        ...

    def fits(self, blocks: int, batch_tokens: int) -> bool:
        """Whether an empty server could ever hold this."""
        ...

    def delay_s(self) -> float:
        """Seconds that the calls since the last time hold up the iteration."""
        ...


class Queue(Protocol):
    """Requests that wait, in the order of a policy."""

    def push(self, request: Request) -> None:
        """Add one."""
        ...

    def peek(self, now_s: float) -> Request:
        """The next one; it stays."""
        ...

    def pop(self) -> Request:
        """Take the one that `peek` showed."""
        ...

    def __len__(self) -> int:
        """How many wait."""
        ...


class Fcfs:
    """First come, first served, or the smallest of another key that does not change."""

    def __init__(self, key: Callable[[Request], float] = lambda request: request.arrival_s) -> None:
        self._key = key
        self._heap: list[tuple[float, int, Request]] = []

    def push(self, request: Request) -> None:
        """Add one."""
        heapq.heappush(self._heap, (self._key(request), request.number, request))

    def peek(self, now_s: float) -> Request:
        """The next one; it stays."""
        return self._heap[0][2]

    def pop(self) -> Request:
        """Take it."""
        return heapq.heappop(self._heap)[2]

    def __len__(self) -> int:
        """How many wait."""
        return len(self._heap)


class PagedMemory:
    """A pool of blocks for caches beside a fixed reserve for activations (vLLM).

    Parameters
    ----------
    blocks : int
        Of the pool.
    block_tokens : int
        Tokens of a block.
    """

    def __init__(self, blocks: int, block_tokens: int = 16) -> None:
        if blocks < 0 or block_tokens < 1:
            raise ValueError(f"Blocks must be non-negative and hold a token, not {blocks!r} of "
                             f"{block_tokens!r}")
        self.blocks, self.block_tokens = blocks, block_tokens
        self.used = 0

    def admit(self, blocks: int, batch_tokens: int) -> str:
        """Take blocks; the reserve has room for any batch."""
        return "device" if self.grow(blocks) else ""

    def begin(self, tokens: int) -> bool:
        """Nothing: the reserve is there."""
        return True

    def end(self) -> None:
        """Nothing."""

    def grow(self, blocks: int) -> bool:
        """Take blocks if there are as many."""
        if self.used + blocks > self.blocks:
            return False
        self.used += blocks
        return True

    fetch = grow

    def free(self, blocks: int) -> None:
        """Give blocks back."""
        self.used -= blocks
        assert self.used >= 0

    def fits(self, blocks: int, batch_tokens: int) -> bool:
        """Whether all blocks together are enough."""
        return blocks <= self.blocks

    def delay_s(self) -> float:
        """Nothing."""
        return 0.0


#: Operators of a layer that tensor parallelism splits.
_SPLIT = frozenset({"qkv", "rotate", "output", "up", "activation", "down"})


class RooflineTimes:
    """Iterations of a decoder on a machine: every operator by its operations and bytes.

    Parameters
    ----------
    machine : Machine
        Rates that kernels reach.
    card : ModelCard
        The decoder.
    ranks : int
        Devices that split every layer.
    link : Link, optional
        Between them, for the two sums over all of them that a layer takes.
    overhead_s : float
        Of the server itself, each iteration.
    """

    def __init__(self, machine: Machine, card: ModelCard, *, ranks: int = 1,
                 link: Link | None = None, overhead_s: float = 0.0) -> None:
        if ranks < 1 or card.kv_heads % ranks:
            raise ValueError(f"Ranks must divide the {card.kv_heads} heads of {card.title}'s "
                             f"cache, not be {ranks!r}")
        self.machine, self.card, self.ranks, self.link = machine, card, ranks, link
        self.overhead_s = overhead_s
        self._dense: dict[int, float] = {}
        one = attention(1, 1, card.heads, card.kv_heads, card.head_dim, causal=True)
        self._pair_s = card.layers * one.flop / machine.flop_per_s / ranks
        self._token_s = card.kv_bytes_per_token() / machine.bytes_per_s / ranks

    def dense_s(self, tokens: int) -> float:
        """All operators but attention over other tokens, all layers.

        Ranks share the matrices and what lies between them; norms and residuals are of the full
        width on each of them, behind the sums.
        """
        found = self._dense.get(tokens)
        if found is None:
            layer = [each for each in decoder_layer(self.card, tokens, tokens)
                     if each.name != "attention"]
            self._dense[tokens] = self.card.layers * (
                sum(max(each.flop / self.machine.flop_per_s,
                        each.size_bytes / self.machine.bytes_per_s)
                    / (self.ranks if each.name in _SPLIT else 1) for each in layer)
                + (len(layer) + 1) * self.machine.launch_s)
            if self.link is not None:
                self._dense[tokens] += 2 * self.card.layers * self.link.all_reduce_s(
                    2.0 * tokens * self.card.hidden, self.ranks)
            found = self._dense[tokens]
        return found

    def iteration_s(self, prefill_tokens: int, pairs: float, prefill_context: int, prompts: int,
                    running: int, context: int) -> float:
        """Seconds of one iteration; prompts and decoding have attention kernels of their own."""
        time_s = self.overhead_s + self.dense_s(prefill_tokens + running)
        time_s += max(pairs * self._pair_s, prefill_context * self._token_s)
        time_s += max(context * self._pair_s, context * self._token_s)
        head = linear("head", prompts + running, self.card.hidden, self.card.vocab)
        return time_s + max(head.flop / self.machine.flop_per_s,
                            head.size_bytes / self.machine.bytes_per_s) / self.ranks


def prefill_pairs(tokens: int, before: int = 0) -> float:
    """Pairs of a new token and one that it sees, itself included."""
    return tokens * (before + (tokens + 1) / 2)


@dataclass(kw_only=True, eq=False)
class Served:
    """What a run of the engine took.

    Parameters
    ----------
    requests : list of Request
        Those that were answered.
    refused : list of Request
        Those that an empty server could not hold.
    end_s, busy_s : float
        When the last was done; time in iterations.
    iterations, decode_steps, preemptions : int
        How many.
    batch_steps : float
        Running sequences summed over steps of decoding.
    largest_batch : int
        Most sequences that ran at once.
    wasted_tokens : float
        Places of half-filled blocks, summed over steps of decoding.
    samples : list of tuple
        Every so often (time, running, waiting).
    """

    requests: list[Request] = field(default_factory=list)
    refused: list[Request] = field(default_factory=list)
    end_s: float = 0.0
    busy_s: float = 0.0
    iterations: int = 0
    decode_steps: int = 0
    preemptions: int = 0
    batch_steps: float = 0.0
    largest_batch: int = 0
    wasted_tokens: float = 0.0
    samples: list[tuple[float, int, int]] = field(default_factory=list)


class Engine:
    """The server.

    Parameters
    ----------
    times, memory, queue
        How long, where, who next.
    max_sequences : int
        Most that run at once.
    max_batched_tokens : int
        Most tokens of the prompts of one iteration; a longer prompt goes alone if `alone`.
    chunk_tokens : int
        Tokens of an iteration with chunks; 0 prefills whole prompts.
    alone : bool
        Whether a prompt over `max_batched_tokens` may go by itself, or is refused.
    host_bytes_per_s, token_bytes : float
        Of caches that go to the host and come back.
    on_finish : callable, optional
        Called with (request, time); returns requests that now come.
    on_iteration : callable, optional
        Called with (time, gap of the running sequences' tokens or 0, requests that got their first
        token).

    Notes
    -----
    Where a step of decoding finds no block, the sequence that was admitted last loses its cache
    and goes back into the queue; its prompt is then what it had, recomputed (vLLM's default).
    """

    def __init__(self, times: Times, memory: Memory, queue: Queue, *, max_sequences: int = 256,
                 max_batched_tokens: int = 8192, chunk_tokens: int = 0, alone: bool = False,
                 host_bytes_per_s: float = math.inf, token_bytes: float = 0.0,
                 on_finish: Callable[[Request, float], Iterable[Request]] | None = None,
                 on_iteration: Callable[[float, float, list[Request]], None] | None = None
                 ) -> None:
        self.times, self.memory, self.queue = times, memory, queue
        self.max_sequences, self.max_batched_tokens = max_sequences, max_batched_tokens
        self.chunk_tokens, self.alone = chunk_tokens, alone
        self.host_bytes_per_s, self.token_bytes = host_bytes_per_s, token_bytes
        self.on_finish, self.on_iteration = on_finish, on_iteration
        self.now_s = 0.0
        self.served = Served()
        self.running: dict[int, Request] = {}
        self._context = 0
        self._blocks = 0
        self._step = 0
        self._crossing = [0] * memory.block_tokens
        self._ends: list[tuple[int, int, int, Request]] = []
        self._events: list[tuple[float, int, Request]] = []
        self._count = 0
        self._chunked: deque[Request] = deque()
        self._offloaded: deque[Request] = deque()
        self._fetching = 0
        self._copy_free_s = 0.0
        self._last_step_s = math.nan

    # Events -----------------------------------------------------------------------------------

    def add(self, requests: Iterable[Request]) -> None:
        """Let requests come at their time.

        Raises
        ------
        ValueError
            If one has no tokens in or out.
        """
        for request in requests:
            if request.input_tokens < 1 or request.output_tokens < 1:
                raise ValueError(f"Request {request.number} must have tokens in and out, not "
                                 f"{request.input_tokens} and {request.output_tokens}")
            self._count += 1
            heapq.heappush(self._events, (request.arrival_s, self._count, request))

    def _deliver(self) -> None:
        """Everything that has happened by now."""
        while self._events and self._events[0][0] <= self.now_s:
            request = heapq.heappop(self._events)[2]
            if request.on_host:
                request.on_host = False
                self._fetching -= 1
                self._join(request)
            else:
                self.queue.push(request)

    # Sequences --------------------------------------------------------------------------------

    def _need(self, tokens: int) -> int:
        return -(-tokens // self.memory.block_tokens)

    def _join(self, request: Request) -> None:
        """Let a sequence run whose prompt is in the cache and whose next token is answered."""
        request.joined = self._step
        request.ends = self._step + request.output_tokens - request.answered
        if not self.running:
            self._last_step_s = self.now_s
        self.running[request.number] = request
        self._context += request.context
        self._blocks += self._need(request.context)
        self._crossing[(self._step + 1 - request.context) % self.memory.block_tokens] += 1
        self._count += 1
        heapq.heappush(self._ends, (request.ends, self._count, request.joined, request))
        self.served.largest_batch = max(self.served.largest_batch, len(self.running))

    def _leave(self, request: Request) -> int:
        """Take a sequence out; how many blocks it had."""
        del self.running[request.number]
        held = request.context + self._step - request.joined
        self._context -= held
        blocks = self._need(held)
        self._blocks -= blocks
        self._crossing[(request.joined + 1 - request.context) % self.memory.block_tokens] -= 1
        return blocks

    def _finish(self, request: Request, blocks: int) -> None:
        request.finish_s = self.now_s
        self.memory.free(blocks)
        self.served.requests.append(request)
        if self.on_finish is not None:
            self.add(self.on_finish(request, self.now_s))

    def _preempt(self) -> None:
        """The sequence that was admitted last begins again."""
        request = self.running[next(reversed(self.running))]
        request.answered += self._step - request.joined
        self.memory.free(self._leave(request))
        request.preemptions += 1
        self.served.preemptions += 1
        self.queue.push(request)

    def _first(self, request: Request, blocks: int, host: bool) -> None:
        """A prompt is in the cache: its next token is there."""
        request.context = request.prompt
        request.answered += 1
        if math.isnan(request.first_token_s):
            request.first_token_s = self.now_s
        if request.answered == request.output_tokens:
            self._finish(request, 0 if host else blocks)
            if host:
                self._host_free(request)
        elif host:
            request.on_host = True
            self._offloaded.append(request)
        else:
            self._join(request)

    def _host_free(self, request: Request) -> None:
        release = getattr(self.memory, "host_free", None)
        if release is not None:
            release(self._need(request.context))

    # Iterations -------------------------------------------------------------------------------

    def _admit(self, budget: int) -> list[tuple[Request, int, bool]]:
        """Prompts for this iteration, with their blocks and whether their cache is on the host."""
        batch, tokens = list[tuple[Request, int, bool]](), 0
        waiting = len(self._chunked) + len(self._offloaded) + self._fetching
        while len(self.queue) and len(self.running) + len(batch) + waiting < self.max_sequences:
            request = self.queue.peek(self.now_s)
            prompt = request.prompt
            blocks = self._need(prompt)
            if prompt > budget and not self.chunk_tokens and not self.alone:
                self.served.refused.append(self.queue.pop())
                continue
            if batch and not self.chunk_tokens and tokens + prompt > budget:
                break
            load = min(budget, tokens + prompt) if self.chunk_tokens else tokens + prompt
            where = self.memory.admit(blocks, load)
            if not where:
                idle = not (self.running or batch or waiting)
                if idle and not self.memory.fits(blocks, load):
                    self.served.refused.append(self.queue.pop())
                    continue
                break
            batch.append((self.queue.pop(), blocks, where == "host"))
            tokens += prompt
        return batch

    def _fetch(self) -> None:
        """Bring caches back from the host, one after the other, while there is room."""
        while self._offloaded:
            request = self._offloaded[0]
            blocks = self._need(request.context)
            if not self.memory.fetch(blocks):
                return
            self._offloaded.popleft()
            self._host_free(request)
            begin = max(self.now_s, self._copy_free_s)
            self._copy_free_s = begin + request.context * self.token_bytes / self.host_bytes_per_s
            self._fetching += 1
            self._count += 1
            heapq.heappush(self._events, (self._copy_free_s, self._count, request))

    def _advance(self, time_s: float) -> None:
        self.now_s += time_s
        self.served.busy_s += time_s
        self.served.iterations += 1
        if self.served.iterations % 64 == 1:
            self.served.samples.append((self.now_s, len(self.running), len(self.queue)))

    def _prefill(self, batch: list[tuple[Request, int, bool]]) -> None:
        tokens = sum(request.prompt for request, _, _ in batch)
        pairs = sum(prefill_pairs(request.prompt) for request, _, _ in batch)
        time_s = self.times.iteration_s(tokens, pairs, tokens, len(batch), 0, 0)
        moved = sum(request.prompt for request, _, host in batch if host) * self.token_bytes
        # Layer by layer beside the prefill.
        time_s = max(time_s, moved / self.host_bytes_per_s) + self.memory.delay_s()
        self._advance(time_s)
        self.memory.end()
        fresh = [request for request, _, _ in batch if math.isnan(request.first_token_s)]
        for request, blocks, host in batch:
            self._first(request, blocks, host)
        if self.on_iteration is not None:
            self.on_iteration(self.now_s, 0.0, fresh)

    def _decode(self, chunk: int = 0) -> None:
        """One token of every running sequence, and up to `chunk` tokens of prompts."""
        block = self.memory.block_tokens
        while self.running and not (
                self.memory.begin(len(self.running) + chunk)
                and self.memory.grow(self._crossing[(self._step + 1) % block])):
            self._preempt()
        count = len(self.running)
        parts, tokens, pairs, before = list[tuple[Request, int]](), 0, 0.0, 0
        for request in self._chunked:
            if tokens >= chunk:
                break
            part = min(chunk - tokens, request.prompt - request.prefilled)
            pairs += prefill_pairs(part, request.prefilled)
            before += request.prefilled + part
            tokens += part
            parts.append((request, part))
        if not count and not parts:
            return
        if count:
            self._step += 1
            self._context += count
            self._blocks += self._crossing[self._step % block]
            self.served.decode_steps += 1
            self.served.batch_steps += count
            self.served.wasted_tokens += self._blocks * block - self._context
        time_s = self.times.iteration_s(tokens, pairs, before, len(parts), count, self._context)
        self._advance(time_s + self.memory.delay_s())
        self.memory.end()
        gap = self.now_s - self._last_step_s if count else 0.0
        self._last_step_s = self.now_s
        while self._ends and self._ends[0][0] <= self._step:
            ends, _, joined, request = heapq.heappop(self._ends)
            # One that was preempted has left this entry behind.
            if (self.running.get(request.number) is request and request.ends == ends
                    and request.joined == joined):
                blocks = self._leave(request)
                request.answered = request.output_tokens
                self._finish(request, blocks)
        fresh = list[Request]()
        for request, part in parts:
            request.prefilled += part
            if request.prefilled == request.prompt:
                self._chunked.popleft()
                request.prefilled = 0
                if math.isnan(request.first_token_s):
                    fresh.append(request)
                self._first(request, self._need(request.prompt), False)
        if self.on_iteration is not None:
            self.on_iteration(self.now_s, gap, fresh)

    def run(self, until_s: float = math.inf) -> Served:
        """Serve until nothing is left to do, or until a time.

        Returns
        -------
        Served
            Requests that were still in work at `until_s` are not in it.
        """
        while self.now_s < until_s:
            self._deliver()
            self._fetch()
            if self.chunk_tokens:
                budget = self.chunk_tokens
                self._chunked.extend(request for request, _, _ in self._admit(budget))
                if self.running or self._chunked:
                    self._decode(max(budget - len(self.running), 1) if self._chunked else 0)
                    continue
            else:
                batch = self._admit(self.max_batched_tokens)
                if batch:
                    self._prefill(batch)
                    continue
                if self.running:
                    self._decode()
                    continue
            if self._events:
                self.now_s = max(self.now_s, self._events[0][0])
            elif not len(self.queue) and not self._offloaded:
                break
            else:
                # Nothing runs, nothing comes, and what waits has no room on an empty server.
                stuck = self.queue.pop() if len(self.queue) else self._offloaded.popleft()
                if stuck.on_host:
                    self._host_free(stuck)
                self.served.refused.append(stuck)
        self.served.end_s = self.now_s
        return self.served
