"""ParaStep (Wang et al., NeurIPS 2025, arXiv 2505.14741): steps of a diffusion on many devices.

After a warm-up that all ranks run alike, a cycle of p steps runs on p ranks at once: rank r takes
r cheap steps with the noise that it predicted a cycle ago (reuse), calls the denoiser there
(predict) and sends the noise to rank 0, which takes the p steps in order and broadcasts the latent.

Times are those of the layers of each generator (:mod:`splatforge.sim.systems.generators`) on a
roofline, of a link's latency and rate, and of the order in which ranks and links do their tasks;
what runs once, encoders and decoders, is counted from its layers like the rest. Beside it, on the
same devices: one device; a batch of p on one device (BatchStep); AsyncDiff (the denoiser cut into
p components that run at once on inputs one step old); ranks that share a sample, with Ulysses or a
ring where it is a transformer, and displaced patches (DistriFusion) where it is a UNet. How good
the result is: :mod:`splatforge.sim.systems.parastep_quality`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import device as card_of
from splatforge.sim.systems.generators import Generator
from splatforge.sim.systems.generators import generator as generator_of
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.parastep_quality import errors, likeness
from splatforge.sim.systems.roofline import End, Machine, Operator, banded
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.tally import Tally
from splatforge.sim.systems.timeline import Timeline

__all__ = ["NOT_COVERED", "POLICIES", "Plan", "compare", "evaluations", "ideal_speedup", "latency",
           "run", "simulate", "speedup", "transferred"]

NOT_COVERED = (
    "kernels of convolutions and of attention reach the same share of the peak",
    "what a framework does on the CPU: Python between kernels, file formats, scoring of waveforms",
    "memory: every rank holds the whole denoiser; whether it fits is not checked",
    "links that several ranks share, such as one PCIe switch or the host's memory",
    "images and video of trained networks: errors are those of a mixture with an exact score",
)
#: Kernels of a step of the scheduler, each reads two latents and writes one.
_SCHEDULER_KERNELS = 6

Policy = Literal["sequential", "parastep", "batchstep", "asyncdiff", "ulysses", "ring", "patches"]
POLICIES: tuple[Policy, ...] = ("sequential", "parastep", "batchstep", "asyncdiff", "ulysses",
                                "ring", "patches")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, and on what.

    Parameters
    ----------
    generator : str
        Key in :data:`~splatforge.sim.systems.generators.GENERATORS`.
    policy : str
        Of :data:`POLICIES`.
    device : str
        Key in ``devices.toml``.
    ranks : int
        Devices.
    warm_up, steps : int, optional
        Of the generator by default.
    stride : int
        Of AsyncDiff: steps between two calls of a component.
    link : Link, optional
        That of the device by default, or its PCI Express.
    pcie : bool
        Over the host even where the device has a link of its own.

    Raises
    ------
    ValueError
        If a value is outside its range, or the policy does not fit the generator.
    """

    generator: str = "svd"
    policy: Policy = "parastep"
    device: str = "a100_80gb"
    ranks: int = 8
    warm_up: int | None = None
    steps: int | None = None
    stride: int = 1
    link: Link | None = None
    pcie: bool = False

    def __post_init__(self) -> None:
        made = generator_of(self.generator)
        card_of(self.device)
        if self.policy not in POLICIES:
            raise ValueError(f"Policy must be one of {', '.join(POLICIES)}, not {self.policy!r}")
        for name in ("ranks", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name.capitalize()} must be at least 1, "
                                 f"not {getattr(self, name)!r}")
        if self.total < 1:
            raise ValueError(f"Steps must be at least 1, not {self.total!r}")
        if not 0 <= self.warmed <= self.total:
            raise ValueError(f"Warm-up must be 0 to {self.total} steps, not {self.warmed!r}")
        if self.policy in ("ulysses", "ring") and not made.blocks:
            raise ValueError(f"{self.policy} needs a transformer: generator must not be "
                             f"{self.generator!r}")
        if self.policy == "patches" and made.blocks:
            raise ValueError(f"patches needs a UNet: generator must not be {self.generator!r}")
        if self.policy == "asyncdiff" and self.ranks > len(made.cuts):
            raise ValueError(f"{self.generator}: ranks must be at most {len(made.cuts)}, its "
                             f"components, not {self.ranks}")
        if self.policy == "ulysses" and self.ranks > made.heads:
            raise ValueError(f"{self.generator}: ranks must be at most {made.heads}, the heads "
                             f"that Ulysses deals out, not {self.ranks}")

    @property
    def total(self) -> int:
        """Steps."""
        return generator_of(self.generator).steps if self.steps is None else self.steps

    @property
    def warmed(self) -> int:
        """Steps of warm-up."""
        made = generator_of(self.generator)
        return min(made.warm_up, self.total) if self.warm_up is None else self.warm_up


def evaluations(steps: int, warm_up: int, ranks: int) -> int:
    """Calls of the denoiser one after the other."""
    return warm_up + math.ceil((steps - warm_up) / ranks)


def ideal_speedup(steps: int, warm_up: int, ranks: int) -> float:
    """What ranks could gain if nothing but calls of the denoiser took time."""
    return steps / evaluations(steps, warm_up, ranks)


# --- times of parts ------------------------------------------------------------------------------


def _machine(plan: Plan, end: End) -> Machine:
    return Machine.of(card_of(plan.device), end=end)


def _single(plan: Plan, end: End) -> Machine:
    """The same where weights and activations are FP32, outside the matrix units."""
    return Machine.of(card_of(plan.device), "fp32", end=end)


def _tally_s(tallies: Iterable[Tally], plan: Plan, end: End) -> float:
    return sum((_single if each.element_bytes == 4 else _machine)(plan, end).time_s(each.operators)
               for each in tallies)


def _scheduler_s(made: Generator, plan: Plan, end: End) -> float:
    """A step of the scheduler."""
    return _machine(plan, end).time_s(Operator(
        name="scheduler", size_bytes=3 * _SCHEDULER_KERNELS * made.latent_bytes,
        launches=_SCHEDULER_KERNELS))


def _components(made: Generator, ranks: int, machine: Machine) -> list[tuple[float, float]]:
    """Time and elements handed on of each component, cut as evenly as cuts allow."""
    operators, cuts = made.denoiser.operators, made.cuts
    times = [machine.time_s(each) for each in operators]
    before = [0.0]
    for each in times:
        before.append(before[-1] + each)
    chosen = []
    for number in range(1, ranks):
        target = before[-1] * number / ranks
        free = [cut for cut in cuts if not chosen or cut.operators > chosen[-1].operators]
        free = free[:len(free) - (ranks - 1 - number)]
        chosen.append(min(free, key=lambda cut: abs(before[cut.operators] - target)))
    edges = [0, *(cut.operators for cut in chosen), len(operators)]
    handed = [cut.elements for cut in chosen]
    return [(before[right] - before[left], elements) for left, right, elements in
            zip(edges, edges[1:], [*handed, 0.0], strict=False)]


def _shared(made: Generator, ranks: int, machine: Machine) -> float:
    """A call of the denoiser whose tokens or rows ranks share, without what they exchange.

    Each reads all weights.
    """
    return machine.time_s(
        replace(each, flop=each.flop / ranks,
                size_bytes=each.weight_bytes + (each.size_bytes - each.weight_bytes) / ranks)
        for each in made.denoiser.operators)


# --- policies ------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a plan takes.

    Parameters
    ----------
    latency_s, fixed_s, call_s : float
        Whole; of it encoders and decoders; one call of the denoiser on one device.
    calls : int
        Of the denoiser, or of what stands for it on all ranks, one after the other.
    size_bytes : float
        Sent over all links.
    busy : float
        Share of the time that ranks compute, mean over them.
    critical_s : dict
        Time by kind of task along the path that the end hangs on.
    """

    latency_s: float
    fixed_s: float
    call_s: float
    calls: int
    size_bytes: float
    busy: float
    critical_s: dict[str, float]


def _sequential(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    for _ in range(plan.total):
        time.add("denoiser", "rank 0", parts.call_s)
        time.add("scheduler", "rank 0", parts.scheduler_s)
    return plan.total


def _warm(time: Timeline, plan: Plan, parts: "_Parts", call_s: float, name: str = "denoiser"
          ) -> None:
    for _ in range(plan.warmed):
        for rank in range(plan.ranks):
            time.add(name, f"rank {rank}", call_s)
            time.add("scheduler", f"rank {rank}", parts.scheduler_s)


def _parastep(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    _warm(time, plan, parts, parts.call_s)
    ready = []
    for first in range(plan.warmed, plan.total, plan.ranks):
        ranks = min(plan.ranks, plan.total - first)
        arrived = []
        for rank in range(ranks):
            if rank:
                time.add("scheduler", f"rank {rank}", rank * parts.scheduler_s, ready)
            done = time.add("denoiser", f"rank {rank}", parts.call_s, ready)
            if rank:
                # One rank's port takes the noise of all others, one after the other.
                done = time.add("send", "into rank 0", parts.link.send_s(made.latent_bytes),
                                [done], size_bytes=made.latent_bytes)
            arrived.append(done)
        for each in arrived:
            time.add("scheduler", "rank 0", parts.scheduler_s, [each])
        if first + ranks < plan.total and plan.ranks > 1:
            last = time.add("step", "rank 0", 0.0)
            ready = [time.add("broadcast", "from rank 0",
                              parts.link.broadcast_s(made.latent_bytes, plan.ranks), [last],
                              size_bytes=(plan.ranks - 1) * made.latent_bytes)]
    return evaluations(plan.total, plan.warmed, plan.ranks)


def _batchstep(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    for _ in range(plan.warmed):
        time.add("denoiser", "rank 0", parts.call_s)
        time.add("scheduler", "rank 0", parts.scheduler_s)
    batched = {copies: parts.machine.time_s(generator_of(plan.generator, copies).denoiser.operators)
               for copies in {plan.ranks, (plan.total - plan.warmed) % plan.ranks} - {0}}
    for first in range(plan.warmed, plan.total, plan.ranks):
        copies = min(plan.ranks, plan.total - first)
        time.add("scheduler", "rank 0", copies * (copies - 1) / 2 * parts.scheduler_s)
        time.add("denoiser", "rank 0", batched[copies])
        time.add("scheduler", "rank 0", copies * parts.scheduler_s)
    return evaluations(plan.total, plan.warmed, plan.ranks)


def _asyncdiff(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    _warm(time, plan, parts, parts.call_s)
    net = made.denoiser
    components = _components(made, plan.ranks, parts.machine)
    handed = [elements * net.batch * net.element_bytes for _, elements in components[:-1]]
    handed.append(made.latent_bytes)
    rounds = math.ceil((plan.total - plan.warmed) / plan.stride)
    ready = []
    for _ in range(rounds):
        done = [time.add("denoiser", f"rank {rank}", call_s, ready)
                for rank, (call_s, _) in enumerate(components)]
        for rank, size in enumerate(handed):
            ready = [time.add("broadcast", "links", parts.link.broadcast_s(size, plan.ranks),
                              [done[rank], *done] if rank == len(handed) - 1 else [done[rank]],
                              size_bytes=(plan.ranks - 1) * size)]
        for rank in range(plan.ranks):
            time.add("scheduler", f"rank {rank}", plan.stride * parts.scheduler_s, ready)
    return plan.warmed + rounds


def _shared_steps(time: Timeline, plan: Plan, made: Generator, parts: "_Parts",
                  exchange_s: float, size_bytes: float, *, hidden: bool) -> int:
    """Ranks that share a sample; `hidden` where a step's exchange runs beside the next step.

    Without a stale copy to start from, the steps of a warm-up wait for theirs.
    """
    call_s = _shared(made, plan.ranks, parts.machine)
    before = None
    for step in range(plan.total):
        late = hidden and step >= plan.warmed
        waits = [] if before is None else [before]
        done = [time.add("denoiser", f"rank {rank}", call_s, waits) for rank in range(plan.ranks)]
        # Beside the step itself, what it sends need only arrive before the step that follows.
        sent = time.add("exchange", "links", exchange_s,
                        waits if late else done, size_bytes=size_bytes)
        for rank in range(plan.ranks):
            time.add("scheduler", f"rank {rank}", parts.scheduler_s, [sent])
        before = sent
    return plan.total


def _ulysses(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    """Queries, keys, values and results of each block change from tokens to heads and back."""
    net, ranks = made.denoiser, plan.ranks
    own = made.tokens / ranks * made.width * net.batch * net.element_bytes
    exchange_s = 4 * made.blocks * parts.link.all_to_all_s(own, ranks)
    size = 4 * made.blocks * own * (ranks - 1)
    return _shared_steps(time, plan, made, parts, exchange_s, size, hidden=False)


def _ring(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    """Keys and values go round while attention runs; what attention does not hide is waited for."""
    net, ranks = made.denoiser, plan.ranks
    own = made.tokens / ranks * made.width * net.batch * net.element_bytes
    attention_s = parts.machine.time_s(
        replace(each, flop=each.flop / ranks, size_bytes=each.size_bytes / ranks)
        for each in net.operators if each.name == "attention")
    hop_s = parts.link.send_s(2 * own)
    hidden_s = attention_s / made.blocks / ranks
    exchange_s = made.blocks * (ranks - 1) * max(0.0, hop_s - hidden_s)
    size = made.blocks * 2 * own * (ranks - 1) * ranks
    return _shared_steps(time, plan, made, parts, exchange_s, size, hidden=False)


def _patches(time: Timeline, plan: Plan, made: Generator, parts: "_Parts") -> int:
    """Rows shared out; keys, values, border rows and statistics of norms of the step before."""
    net, ranks = made.denoiser, plan.ranks
    scale = net.batch * net.element_bytes
    keys = [elements * scale for elements in net.attended]
    borders, statistics = 2 * net.halo * scale, net.norms * 64 * net.batch * 4.0
    exchange_s = (sum(parts.link.all_gather_s(size, ranks) for size in keys)
                  + borders / parts.link.bytes_per_s
                  + net.norms * parts.link.all_reduce_s(64 * net.batch * 4.0, ranks)
                  ) if ranks > 1 else 0.0
    size = (ranks - 1) * (sum(keys) + borders + statistics)
    return _shared_steps(time, plan, made, parts, exchange_s, size, hidden=True)


_RUNS: dict[Policy, Callable[[Timeline, Plan, Generator, "_Parts"], int]] = {
    "sequential": _sequential, "parastep": _parastep, "batchstep": _batchstep,
    "asyncdiff": _asyncdiff, "ulysses": _ulysses, "ring": _ring, "patches": _patches}


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What all policies take."""

    machine: Machine
    link: Link
    call_s: float
    scheduler_s: float


def simulate(plan: Plan, end: End = "value") -> Outcome:
    """Run a plan.

    Parameters
    ----------
    end : str
        Whether constants are as they are, or all at their slow or fast end.
    """
    made = generator_of(plan.generator)
    machine = _machine(plan, end)
    link = plan.link or Link.between(card_of(plan.device), pcie=plan.pcie, end=end)
    parts = _Parts(machine=machine, link=link, call_s=machine.time_s(made.denoiser.operators),
                   scheduler_s=_scheduler_s(made, plan, end))
    before, after = _tally_s(made.before, plan, end), _tally_s(made.after, plan, end)
    time = Timeline()
    ranks = 1 if plan.policy in ("sequential", "batchstep") else plan.ranks
    for rank in range(ranks):  # each encodes for itself
        time.add("encoders", f"rank {rank}", before)
    calls = _RUNS[plan.policy](time, plan, made, parts)
    time.add("decoders", "rank 0", after)
    return Outcome(
        latency_s=time.end_s, fixed_s=before + after, call_s=parts.call_s, calls=calls,
        size_bytes=time.size_bytes, critical_s=time.critical_s(),
        busy=sum(time.busy_s(f"rank {rank}") for rank in range(ranks)) / ranks / time.end_s)


# --- numbers for claims --------------------------------------------------------------------------


def _plan(generator: str, policy: Policy, device: str, ranks: int, pcie: bool, stride: int) -> Plan:
    return Plan(generator=generator, policy=policy, device=device, ranks=ranks, pcie=pcie,
                stride=stride)


_SOURCE = "layers of the released configurations on a roofline"


def speedup(generator: str, *, policy: Policy = "parastep", device: str = "a100_80gb",
            ranks: int = 8, pcie: bool = False, stride: int = 1) -> Sourced:
    """Latency of one device over that of a policy on `ranks`."""
    plan = _plan(generator, policy, device, ranks, pcie, stride)

    def ratio(end: End) -> float:
        alone = simulate(replace(plan, policy="sequential"), end).latency_s
        return alone / simulate(plan, end).latency_s
    return banded(ratio, "1", _SOURCE)


def latency(generator: str, *, policy: Policy = "sequential", device: str = "a100_80gb",
            ranks: int = 1, pcie: bool = False, stride: int = 1) -> Sourced:
    """Latency of a policy, in s."""
    plan = _plan(generator, policy, device, ranks, pcie, stride)
    return banded(lambda end: simulate(plan, end).latency_s, "s", _SOURCE)


def transferred(generator: str, *, policy: Policy = "parastep", device: str = "a100_80gb",
                ranks: int = 8, stride: int = 1) -> Sourced:
    """Bytes that a policy sends over all links."""
    plan = _plan(generator, policy, device, ranks, False, stride)
    return Sourced.exact(simulate(plan).size_bytes, "B", "tensors of the released configurations")


# --- the system ----------------------------------------------------------------------------------


def _options(generator: str, device: str, ranks: int, warm_up: int, steps: int, pcie: bool,
             policy: Policy) -> Plan:
    return Plan(generator=generator, policy=policy, device=device, ranks=ranks,
                warm_up=None if warm_up < 0 else warm_up, steps=steps or None, pcie=pcie)


_ASSUMPTIONS = (
    "eight devices unless given: the number behind the headlines is inferred, the device unknown",
    "steps and warm-up unless given: defaults of ParaStep's repository",
    ("FP16, and FP32 where a pipeline keeps an autoencoder in it; both halves of guidance in one "
    "batch"),
    "every rank runs the encoders, rank 0 the decoders",
)


def _metrics(plan: Plan, outcome: Outcome, alone: Outcome) -> dict[str, float]:
    return {
        "latency_s": outcome.latency_s,
        "speedup": alone.latency_s / outcome.latency_s,
        "fixed_s": outcome.fixed_s,
        "denoiser_call_s": outcome.call_s,
        "calls": outcome.calls,
        "sent_mb": outcome.size_bytes / 1e6,
        "busy_share": outcome.busy,
        "communication_s": sum(each for name, each in outcome.critical_s.items()
                               if name in ("send", "broadcast", "exchange")),
    }


def run(*, generator: str = "svd", device: str = "a100_80gb", ranks: int = 8, warm_up: int = -1,
        steps: int = 0, pcie: bool = False, seeds: int = 10, seed: int = 0) -> SystemRun:
    """ParaStep on a generator, and its error where the score is exact.

    Parameters
    ----------
    generator, device : str
        What is run on what.
    ranks : int
        Devices.
    warm_up : int
        Steps that all ranks take; below 0 for the generator's own.
    steps : int
        0 for the generator's own.
    pcie : bool
        Whether ranks meet over the host even where the device has links.
    seeds, seed : int
        Of the error: how many, of which 0 leaves it out, and the first.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    if seeds < 0 or seed < 0:
        raise ValueError(f"parastep: seeds and seed must be non-negative, not {seeds!r}, {seed!r}")
    plan = _options(generator, device, ranks, warm_up, steps, pcie, "parastep")
    outcome = simulate(plan)
    alone = simulate(replace(plan, policy="sequential"))
    metrics = _metrics(plan, outcome, alone)
    metrics["ideal_speedup"] = ideal_speedup(plan.total, plan.warmed, plan.ranks)
    counts = [count for count in (1, 2, 4, 8, 16) if count <= max(ranks, 2)]
    curves = [Curve(
        title=f"Speedup of {generator} on {device}", x="devices", y="speedup",
        series={
            "ParaStep": tuple((float(count), alone.latency_s / simulate(
                replace(plan, ranks=count)).latency_s) for count in counts),
            "ideal": tuple((float(count), ideal_speedup(plan.total, plan.warmed, count))
                           for count in counts)})]
    if seeds:
        curves += _quality(metrics, ranks, seeds, seed)
    return SystemRun(system="parastep", metrics=metrics, not_covered=NOT_COVERED,
                     assumptions=_ASSUMPTIONS, curves=tuple(curves))


def _quality(metrics: dict[str, float], ranks: int, seeds: int, seed: int) -> list[Curve]:
    """Errors over ranks and warm-up with the exact score; adds the means to the metrics."""
    counts: Sequence[int] = sorted({2, 4, 8, ranks} - {1})
    warm_ups = (0, 5, 25)
    curves = list[Curve]()
    for unrelated, name in ((False, "exact"), (True, "unrelated")):
        found = errors(tuple(counts), warm_ups, seeds=seeds, seed=seed, unrelated=unrelated)
        metrics[f"{name}_likeness"] = likeness(seeds=seeds, seed=seed,
                                                unrelated=unrelated)
        for each in found:
            if each.ranks == max(2, ranks) and each.warm_up == 5:
                metrics[f"{name}_reuse_rmse"] = float(each.reused.mean())
                metrics[f"{name}_no_reuse_rmse"] = float(each.waited.mean())
                metrics[f"{name}_reuse_better_seeds"] = float((each.reused < each.waited).sum())
        curves.append(Curve(
            title=("Error against the same steps in a row" if not unrelated else
                   "The same where steps are unrelated"),
            x="steps of warm-up", y="RMSE",
            series={f"{count} ranks, {kind}": tuple(
                (float(each.warm_up), float(getattr(each, which).mean()))
                for each in found if each.ranks == count)
                for count in counts for kind, which in (("reuse", "reused"),
                                                        ("no reuse", "waited"))}))
    return curves


def compare(*, generator: str = "svd", device: str = "a100_80gb", ranks: int = 8,
            warm_up: int = -1, steps: int = 0, pcie: bool = False) -> dict[str, SystemRun]:
    """ParaStep and what else the same devices can do with a generator.

    Parameters
    ----------
    generator, device, ranks, warm_up, steps, pcie
        As :func:`run` takes them.
    """
    transformer = bool(generator_of(generator).blocks)
    skipped = {"patches"} if transformer else {"ulysses", "ring"}
    plans, left = {}, []
    alone = simulate(_options(generator, device, ranks, warm_up, steps, pcie, "sequential"))
    for policy in POLICIES:
        if policy in skipped:
            continue
        try:
            plans[policy] = _options(generator, device, ranks, warm_up, steps, pcie, policy)
        except ValueError as error:
            left.append(f"{policy} is left out: {error}")
    return {policy: SystemRun(
        system="parastep", metrics=_metrics(plan, simulate(plan), alone),
        not_covered=NOT_COVERED, assumptions=(*_ASSUMPTIONS, *left))
        for policy, plan in plans.items()}
