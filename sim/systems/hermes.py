"""Hermes: applications of language models scheduled by Gittins' rank (arXiv 2506.14851).

Applications come, ask a server for the answers of their stages, wait elsewhere between, and are
done. Which waiting request the server admits next is the policy:

===============  ===================================================================================
``hermes``       lowest Gittins' rank of its application first; what is known of an application
                 is refined at the start of each of its stages
``hermes_ddl``   least slack to the deadline first, by the longest that it may still take; those
                 that have none left behind them (our choice), as ``hermes``
``gittins``      the same without refinement: all of an application's demand, of which it has had a
                 part
``srjf``         lowest mean rest first, without refinement
``oracle``       lowest rest first, which it knows
``vllm``         first come, first served, by request
``parrot``       first come, first served, by application
``vtc``          lowest counter of its application first (virtual token counters: a tenth of the
                 tokens in, plus those out; a new one is lifted to the lowest of those that wait)
``edf``          earliest deadline first
===============  ===================================================================================

Nothing that runs is put aside for the policy's sake. The engine is the authors' own profile of it
times one slowdown, which was calibrated on one published point (``devices.toml``), or a roofline.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Literal

import numpy as np

from splatforge.sim.costs import Sourced
from splatforge.sim.systems.cards import constant, device, model
from splatforge.sim.systems.ellm import activation_bytes
from splatforge.sim.systems.gittins import Form, gittins_rank
from splatforge.sim.systems.links import Link
from splatforge.sim.systems.pdgraph import (
    MIX,
    SERVICE_IN_S,
    SERVICE_OUT_S,
    Application,
    Visit,
    applications,
    demands,
    walk,
)
from splatforge.sim.systems.resident import LOADING, Use, hit_ratio
from splatforge.sim.systems.roofline import Machine
from splatforge.sim.systems.run import Curve, SystemRun
from splatforge.sim.systems.serving import Engine, Fcfs, PagedMemory, Queue, Request, RooflineTimes

__all__ = ["POLICIES", "Job", "ProfiledTimes", "Setting", "Window", "ablation", "calibrate",
           "compare", "completion", "deadlines_met", "more_buckets", "prewarm_start_s",
           "reduction", "run", "schedule"]

POLICIES = ("hermes", "hermes_ddl", "gittins", "srjf", "oracle", "vllm", "parrot", "vtc", "edf")
NOT_COVERED = (
    "what a miss of a prefix or of a LoRA adapter costs: hits are counted, loads take no time",
    "containers, searches and other networks queue nowhere: each stage takes its own time",
    "routing over several servers",
)
_SOURCE = "splatforge.sim.systems.hermes"
#: Minutes in which the 200 applications of the evaluation come, at 1x, 2x, 3x.
_WINDOW_MIN = 30.0
_BLOCK_TOKENS, _LONGEST = 32, 12_000
#: Deadlines of the evaluation: factor -> share of the applications (24 of 76, 61 of 79 and 43 of 45
#: were met, which is how many there were of each).
_DEADLINES = {1.2: 76 / 200, 1.5: 79 / 200, 2.0: 45 / 200}
#: What the authors' log was taken on; it does not say of which memory.
_PROFILED_DEVICES, _PROFILED_MODEL = ("a100_40gb", "a100_80gb"), "llama2_7b"
#: What the start of a container costs a stage.
Starts = Literal["none", "cold", "prewarmed"]
#: From which probability on the next stage is loaded for: K of the paper.
_FORESEEN = 0.5
#: What the code adds to the rank of applications without a deadline.
_BEHIND = 2.0**16


def _logged(name: str) -> float:
    return constant(f"hermes.{name}").to("s").value


@dataclass(frozen=True, kw_only=True)
class ProfiledTimes:
    """Iterations as the authors' log has them, times a slowdown.

    Parameters
    ----------
    prefill_s, prefill_token_s : float
        Of an iteration with prompts, and of each of their tokens; the log's by default, as below.
    decode_s, decode_sequence_s : float
        Of a step of decoding, and of each sequence.
    slowdown : float
        Of all of them.
    """

    prefill_s: float = field(default_factory=partial(_logged, "prefill"))
    prefill_token_s: float = field(default_factory=partial(_logged, "prefill_token"))
    decode_s: float = field(default_factory=partial(_logged, "decode"))
    decode_sequence_s: float = field(default_factory=partial(_logged, "decode_sequence"))
    slowdown: float = 1.0

    def iteration_s(self, prefill_tokens: int, pairs: float, prefill_context: int, prompts: int,
                    running: int, context: int) -> float:
        """Seconds of one iteration."""
        time_s = 0.0
        if prefill_tokens:
            time_s += self.prefill_s + self.prefill_token_s * prefill_tokens
        if running:
            time_s += self.decode_s + self.decode_sequence_s * running
        return self.slowdown * time_s


@dataclass(eq=False)
class Job:
    """One application on its way.

    Parameters
    ----------
    number : int
        In the order of arrival.
    app : Application
        What it is one of.
    arrival_s : float
        When it comes.
    visits : list of Visit
        Its stages as they come out, which no policy but the oracle knows.
    deadline_s, factor : float
        When it should be done, infinite without; what factor that is of its demand.
    """

    number: int
    app: Application
    arrival_s: float
    visits: list[Visit]
    deadline_s: float = math.inf
    factor: float = 0.0
    stage: int = -1
    open: int = 0
    attained_s: float = 0.0
    stage_attained_s: float = 0.0
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    finish_s: float = math.nan

    @property
    def completion_s(self) -> float:
        """From its arrival to its end."""
        return self.finish_s - self.arrival_s


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A server and its load.

    Parameters
    ----------
    device_name, model_name : str
        Of the server. Which A100 the paper had is not known; with 80 GB the cache holds nearly
        three times as much, and policies hardly differ. The profile is that of Llama 2 7B on an
        A100, of either size.
    ranks : int
        Devices that split every layer, by the roofline; a profile is that of one.
    count, load : int, float
        Applications, and how much faster than 200 in 30 minutes they come.
    engine : str
        ``profile`` or ``roofline``.
    slowdown : float
        Of the profile, with which alone it comes; 0 for the one that was calibrated.
    buckets, form, walks : int, str, int
        Of Gittins' rank; walks of the Monte Carlo.
    starts, warm_s : str, float
        Whether a stage in a container waits for its start of `warm_s`: ``none``, as it is part of
        the stage's own time; ``cold``: every one that does not follow another; ``prewarmed``: what
        is left of it when the stage comes, see :func:`prewarm_start_s`.
    adapters, prefixes, load_s : int, int, float
        How many LoRA adapters (an application each) and caches of prefixes (a stage each) are
        resident at once, and what a load takes: hits are counted, misses cost no time.
    traces : str
        Folder with the authors' samples, or empty.
    seed : int
        Of arrivals and stages, which are the same for every policy, and of the Monte Carlo.

    Raises
    ------
    ValueError
        If a number is out of range, or the engine does not fit the other options.
    """

    device_name: str = "a100_40gb"
    model_name: str = "llama2_7b"
    ranks: int = 1
    count: int = 200
    load: float = 1.0
    engine: str = "profile"
    slowdown: float = 0.0
    buckets: int = 10
    form: Form = "code"
    walks: int = 300
    starts: Starts = "none"
    warm_s: float = 10.0
    adapters: int = 4
    prefixes: int = 8
    load_s: float = 1.0
    traces: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.starts not in ("none", "cold", "prewarmed"):
            raise ValueError(f"starts must be none, cold or prewarmed, not {self.starts!r}")
        for name in ("warm_s", "load_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be non-negative and finite, "
                                 f"not {getattr(self, name)!r}")
        for name in ("ranks", "count", "load", "buckets", "walks", "adapters", "prefixes"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, "
                                 f"not {getattr(self, name)!r}")
        if not 0 <= self.slowdown < math.inf:
            raise ValueError(f"slowdown must be non-negative and finite, not {self.slowdown!r}")
        if self.seed < 0:
            raise ValueError(f"seed must be non-negative, not {self.seed!r}")
        if self.form not in ("paper", "code"):
            raise ValueError(f"form must be paper or code, not {self.form!r}")
        if self.engine not in ("profile", "roofline"):
            raise ValueError(f"engine must be profile or roofline, not {self.engine!r}")
        if self.engine == "profile":
            if self.ranks != 1:
                raise ValueError(f"ranks must come with engine=roofline, not {self.ranks} with the "
                                 "profile of one device")
            if self.device_name not in _PROFILED_DEVICES:
                raise ValueError(f"device_name must come with engine=roofline, or be one of "
                                 f"{', '.join(_PROFILED_DEVICES)}, not {self.device_name!r} with "
                                 "their profile")
            if self.model_name != _PROFILED_MODEL:
                raise ValueError(f"model_name must come with engine=roofline, or be "
                                 f"{_PROFILED_MODEL}, not {self.model_name!r} with its profile")
        elif self.slowdown:
            raise ValueError(f"slowdown must come with engine=profile, not {self.slowdown!r} with "
                             "a roofline")

    def times(self) -> ProfiledTimes | RooflineTimes:
        """How long iterations take."""
        if self.engine == "profile":
            return ProfiledTimes(slowdown=self.slowdown or constant("hermes.slowdown").value)
        card = device(self.device_name)
        return RooflineTimes(Machine.of(card), model(self.model_name), ranks=self.ranks,
                             link=Link.between(card) if self.ranks > 1 else None)

    def cache_tokens(self) -> int:
        """Tokens that the cache holds.

        Raises
        ------
        ValueError
            If the model leaves no room.
        """
        network = model(self.model_name)
        left = (0.9 * self.ranks * device(self.device_name).memory.value - network.weight_bytes()
                - self.ranks * activation_bytes(network, _LONGEST, ranks=self.ranks))
        if left < _LONGEST * network.kv_bytes_per_token():
            raise ValueError(f"{self.model_name} must leave room for {_LONGEST} tokens on "
                             f"{self.device_name}")
        return int(left / network.kv_bytes_per_token())

    def jobs(self) -> list[Job]:
        """Applications with their arrivals, stages and deadlines."""
        rng = np.random.default_rng(self.seed)
        known = applications(self.traces)
        rate = self.load * 200 / (60 * _WINDOW_MIN)
        arrivals = np.cumsum(rng.exponential(1 / rate, self.count))
        names = list(MIX)
        weights = np.array(list(MIX.values()), float)
        # As many of each as their weights say, in random order.
        shares = np.floor(weights / weights.sum() * self.count).astype(int)
        rest = rng.choice(len(names), self.count - shares.sum(), p=weights / weights.sum())
        kinds = rng.permutation(np.concatenate([np.repeat(np.arange(len(names)), shares), rest]))
        factors = rng.choice(list(_DEADLINES), self.count, p=list(_DEADLINES.values()))
        jobs = list[Job]()
        for number, (arrival, kind, factor) in enumerate(zip(
                arrivals.tolist(), kinds.tolist(), factors.tolist(), strict=True)):
            app = known[names[kind]]
            job = Job(number, app, arrival, list(walk(app, rng)), factor=factor)
            job.deadline_s = arrival + factor * sum(each.demand_s for each in job.visits)
            jobs.append(job)
        return jobs


class _Ranked:
    """Waiting requests by the rank of their application, which changes at its events."""

    def __init__(self, rank: Callable[[int], float], entering: Callable[[int], None],
                 admitted: Callable[[Request], None]) -> None:
        self._rank, self._entering, self._admitted = rank, entering, admitted
        self._waiting: dict[int, deque[Request]] = {}
        self._ranks: dict[int, float] = {}
        self._count = 0
        self._best = -1

    def push(self, request: Request) -> None:
        """Add one."""
        if request.group not in self._waiting:
            self._entering(request.group)
            self._waiting[request.group] = deque()
            self._ranks[request.group] = self._rank(request.group)
        self._waiting[request.group].append(request)
        self._count += 1
        self._best = -1

    def changed(self, group: int) -> None:
        """The rank of an application is another."""
        if group in self._ranks:
            self._ranks[group] = self._rank(group)
            self._best = -1

    def peek(self, now_s: float) -> Request:
        """The next one; it stays."""
        if self._best < 0:
            self._best = min(self._ranks, key=lambda group: (self._ranks[group], group))
        return self._waiting[self._best][0]

    def pop(self) -> Request:
        """Take it."""
        queue = self._waiting[self._best]
        request = queue.popleft()
        self._count -= 1
        if not queue:
            del self._waiting[self._best], self._ranks[self._best]
        self._best = -1
        self._admitted(request)
        self.changed(request.group)
        return request

    def waiting(self) -> list[int]:
        """Applications that wait."""
        return list(self._waiting)

    def __len__(self) -> int:
        """How many requests wait."""
        return self._count


class _Scheduler:
    """Ranks of applications under a policy."""

    def __init__(self, setting: Setting, policy: str, jobs: list[Job]) -> None:
        if policy not in POLICIES:
            raise ValueError(f"Policy must be one of {', '.join(POLICIES)}, not {policy!r}")
        self.setting, self.policy, self.jobs = setting, policy, jobs
        self.refines = policy in ("hermes", "hermes_ddl")
        self._rng = np.random.default_rng([setting.seed, 1])
        self._samples: dict[object, np.ndarray] = {}
        self._own: dict[int, np.ndarray] = {}
        self._counter: dict[int, float] = {}
        self.now_s: Callable[[], float] = lambda: 0.0
        self._dependent = {(app.name, quantity.follows) for app in applications(
            setting.traces).values() for stage in app.stages.values()
            for quantity in stage.quantities.values()}
        fixed: dict[str, Callable[[Request], float]] = {
            "vllm": lambda request: request.arrival_s,
            "parrot": lambda request: jobs[request.group].arrival_s,
            "edf": lambda request: jobs[request.group].deadline_s}
        self.ranked = None if policy in fixed else _Ranked(
            self.rank, self._entering, self._admitted)
        self.queue: Queue = Fcfs(fixed[policy]) if self.ranked is None else self.ranked

    def _drawn(self, app: Application, stage: str, seen: dict[tuple[str, str], float]
               ) -> np.ndarray:
        """Demands from a stage on; those that nothing known bears on are drawn once."""
        told = {key: z for key, z in seen.items() if (app.name, key) in self._dependent}
        if told:
            return demands(app, stage, told, self._rng, self.setting.walks)
        key = (app.name, stage)
        if key not in self._samples:
            self._samples[key] = demands(app, stage, {}, self._rng, self.setting.walks)
        return self._samples[key]

    def begun(self, job: Job) -> None:
        """A stage begins: what is over is known."""
        if self.refines:
            self._own[job.number] = self._drawn(job.app, job.visits[job.stage].stage, job.seen)
        elif job.number not in self._own:
            self._own[job.number] = self._drawn(job.app, job.app.first, {})

    def rank(self, group: int) -> float:
        """Lower goes first."""
        job = self.jobs[group]
        if self.policy == "vtc":
            return self._counter[group]
        if self.policy == "oracle":
            return sum(each.demand_s for each in job.visits[job.stage:]) - job.stage_attained_s
        attained = job.stage_attained_s if self.refines else job.attained_s
        samples = self._own[group]
        if self.policy == "srjf":
            rest = samples[samples > attained] - attained
            return float(rest.mean()) if rest.size else float(samples.max())
        if self.policy == "hermes_ddl":
            # The time that passes is the same for all, and left out of their order.
            start_s = job.deadline_s - max(float(samples.max()) - attained, 0.0)
            if self.now_s() <= start_s < math.inf:
                return start_s
        rank = gittins_rank(samples, attained, buckets=self.setting.buckets,
                            form=self.setting.form)
        return rank + (_BEHIND if self.policy == "hermes_ddl" else 0.0)

    def _entering(self, group: int) -> None:
        """An application that did not wait does: its counter is no lower than those that do."""
        if self.policy == "vtc" and self.ranked is not None:
            low = min((self._counter[other] for other in self.ranked.waiting()), default=0.0)
            self._counter[group] = max(self._counter.get(group, 0.0), low)

    def _admitted(self, request: Request) -> None:
        if self.policy == "vtc":
            self._counter[request.group] += request.prompt / 10

    def done(self, request: Request) -> None:
        """An answer is there."""
        if self.policy == "vtc":
            self._counter[request.group] += request.output_tokens
        job = self.jobs[request.group]
        served = SERVICE_IN_S * request.input_tokens + SERVICE_OUT_S * request.output_tokens
        job.attained_s += served
        job.stage_attained_s += served
        if self.ranked is not None:
            self.ranked.changed(request.group)


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """All applications of a window, served.

    Parameters
    ----------
    completion_s : ndarray
        Of each application, in the order of arrival.
    in_time : dict
        Factor of a deadline, and ``all``, -> share that was met.
    preemptions, largest_batch : int
        Of the server.
    cache_tokens : int
        That its cache holds.
    container_wait_s, container_idle_s : float
        Mean wait of a stage in a container for its start, 0 where there is none; time that
        containers stood ready, or started for nothing, over as many stages.
    uses : tuple of Use
        Stages of the model, as what is loaded for them sees them.
    """

    completion_s: np.ndarray
    in_time: dict[str, float]
    preemptions: int
    largest_batch: int
    cache_tokens: int
    container_wait_s: float = 0.0
    container_idle_s: float = 0.0
    uses: tuple[Use, ...] = ()


class _Containers:
    """Starts of containers beside a server at work.

    When a stage of the model begins that containers follow, the start of one is planned by how long
    the same stage of earlier applications took under this load; of the first it is begun at once.
    """

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.waits = list[float]()
        self.idle_s = 0.0
        self._taken: dict[tuple[str, str], list[float]] = {}
        self._planned: dict[int, tuple[float, float]] = {}

    def model_begins(self, job: Job, now_s: float) -> None:
        """Plan a start, if one is likely enough to be needed."""
        if self.setting.starts != "prewarmed":
            return
        here = job.visits[job.stage].stage
        following = job.app.stages[here].following
        likely = sum(share for name, share in following.items()
                     if name in job.app.stages and job.app.stages[name].kind == "docker")
        taken = self._taken.get((job.app.name, here), [0.0])
        self._planned[job.number] = (now_s, now_s + prewarm_start_s(
            likely, np.array(taken), self.setting.warm_s))

    def model_ends(self, job: Job, now_s: float) -> None:
        """Remember how long it took; a start that nothing needs was for nothing."""
        if job.number not in self._planned:
            return
        here = job.visits[job.stage]
        begun_s, start_s = self._planned[job.number]
        self._taken.setdefault((job.app.name, here.stage), []).append(now_s - begun_s)
        after = job.visits[job.stage + 1:job.stage + 2]
        if not (after and after[0].kind == "docker"):
            self.idle_s += max(now_s - start_s, 0.0)
            del self._planned[job.number]

    def wait_s(self, job: Job, now_s: float) -> float:
        """Of the stage that begins, in a container; one that follows another has a warm one."""
        before = job.visits[job.stage - 1].kind if job.stage else ""
        if self.setting.starts == "none" or before == "docker":
            return 0.0
        wait_s = self.setting.warm_s
        _, start_s = self._planned.pop(job.number, (0.0, math.inf))
        if start_s <= now_s:
            self.idle_s += max(now_s - start_s - wait_s, 0.0)
            wait_s = max(start_s + wait_s - now_s, 0.0)
        self.waits.append(wait_s)
        return wait_s


def _follows(job: Job) -> float:
    """How likely the stage that begins was when the one before it did; 0 of the first."""
    if not job.stage:
        return 0.0
    return job.app.stages[job.visits[job.stage - 1].stage].following.get(
        job.visits[job.stage].stage, 0.0)


def schedule(setting: Setting, policy: str) -> Window:
    """Serve a window of applications under a policy.

    Raises
    ------
    ValueError
        If the policy is not known or the model does not fit.
    """
    jobs = setting.jobs()
    scheduler = _Scheduler(setting, policy, jobs)
    containers = _Containers(setting)
    began_s: dict[int, float] = {}  # the stage of the model that was the last to begin
    waiting: dict[int, tuple[float, float]] = {}
    first_s: dict[int, float] = {}
    uses = list[Use]()
    numbers = iter(range(1 << 60))

    def enter(job: Job, now_s: float) -> Iterator[Request]:
        """Requests of the next stage of the model, behind those elsewhere."""
        job.stage += 1
        foreseen_s = began_s.get(job.number, now_s)
        while job.stage < len(job.visits) and job.visits[job.stage].kind != "llm":
            if job.visits[job.stage].kind == "docker":
                now_s += containers.wait_s(job, now_s)
            foreseen_s = now_s
            now_s += job.visits[job.stage].time_s
            job.attained_s += job.visits[job.stage].time_s
            leave(job)
            job.stage += 1
        if job.stage == len(job.visits):
            job.finish_s = now_s
            return
        job.stage_attained_s = 0.0
        scheduler.begun(job)
        containers.model_begins(job, now_s)
        began_s[job.number] = now_s
        waiting[job.number] = (
            foreseen_s if _follows(job) >= _FORESEEN else now_s, now_s)
        here = job.visits[job.stage]
        job.open = len(here.input_tokens)
        for given, answer in zip(here.input_tokens, here.output_tokens, strict=True):
            yield Request(arrival_s=now_s, input_tokens=given, output_tokens=answer,
                          group=job.number, number=next(numbers))

    def leave(job: Job) -> None:
        here = job.visits[job.stage]
        job.seen |= {(here.stage, key): z for key, z in here.latent.items()}

    def finished(request: Request, now_s: float) -> list[Request]:
        job = jobs[request.group]
        scheduler.done(request)
        first_s[job.number] = min(first_s.get(job.number, math.inf), request.first_token_s)
        job.open -= 1
        if job.open:
            return []
        foreseen_s, queued_s = waiting.pop(job.number)
        uses.append(Use(app=job.app.name, stage=job.visits[job.stage].stage, queued_s=queued_s,
                        foreseen_s=foreseen_s, served_s=first_s.pop(job.number)))
        containers.model_ends(job, now_s)
        leave(job)
        return list(enter(job, now_s))

    capacity = setting.cache_tokens()
    engine = Engine(setting.times(), PagedMemory(capacity // _BLOCK_TOKENS, _BLOCK_TOKENS),
                    scheduler.queue, max_batched_tokens=_LONGEST, on_finish=finished)
    scheduler.now_s = lambda: engine.now_s
    for job in jobs:
        engine.add(enter(job, job.arrival_s))
    served = engine.run()
    assert not served.refused
    completion = np.array([job.completion_s for job in jobs])
    met = np.array([job.finish_s <= job.deadline_s for job in jobs])
    factors = np.array([job.factor for job in jobs])
    in_time = {f"{factor:g}": float(met[factors == factor].mean())
               for factor in _DEADLINES if (factors == factor).any()}
    return Window(completion_s=completion, in_time=in_time | {"all": float(met.mean())},
                  preemptions=served.preemptions, largest_batch=served.largest_batch,
                  cache_tokens=capacity,
                  container_wait_s=float(np.mean(containers.waits)) if containers.waits else 0.0,
                  container_idle_s=containers.idle_s / max(len(containers.waits), 1),
                  uses=tuple(uses))


# Prewarming -----------------------------------------------------------------------------------


def prewarm_start_s(probability: float, stage_s: np.ndarray, warm_s: float, *,
                    threshold: float = 0.5) -> float:
    """When to begin loading what the next stage may need, after the start of the present one.

    As late as ``probability x P(stage ends after the loading would)`` still reaches the threshold;
    never (infinite) where it cannot, at once where it never does but the next stage is likely.

    Parameters
    ----------
    probability : float
        That the next stage needs it.
    stage_s : ndarray
        Durations of the present stage, of shape [n].
    warm_s : float
        Of the loading.
    threshold : float
        K of the paper, 0.5 there.
    """
    if probability < threshold:
        return math.inf
    return max(float(np.quantile(stage_s, 1 - threshold / probability)) - warm_s, 0.0)


def _prewarmed(setting: Setting, warm_s: float) -> dict[str, float]:
    """Cold and prewarmed waits for containers, over walks on an idle server."""
    rng, times = np.random.default_rng([setting.seed, 2]), setting.times()
    lengths: dict[tuple[str, str], list[float]] = {}
    ends: list[tuple[tuple[str, str], float, bool]] = []
    for name, app in applications(setting.traces).items():
        for _ in range(100):
            visits = list(walk(app, rng))
            for here, after in zip(visits, [*visits[1:], None], strict=True):
                if here.kind != "llm":
                    continue
                taken = times.iteration_s(sum(here.input_tokens), 0.0, sum(here.input_tokens), 1,
                                          0, 0) + max(here.output_tokens) * times.iteration_s(
                    0, 0.0, 0, 0, len(here.output_tokens), sum(here.input_tokens))
                key = (name, here.stage)
                lengths.setdefault(key, []).append(taken)
                ends.append((key, taken, after is not None and after.kind == "docker"))
    waits, cold, idle = list[float](), list[float](), 0.0
    starts = {key: prewarm_start_s(
        float(np.mean([needs for other, _, needs in ends if other == key])),
        np.array(values), warm_s) for key, values in lengths.items()}
    for key, taken, needs in ends:
        start = starts[key]
        if needs:
            cold.append(warm_s)
            waits.append(warm_s if start > taken else max(start + warm_s - taken, 0.0))
        if start <= taken:
            idle += max(taken - start - warm_s, 0.0) if needs else taken - start
    return {"container_wait_cold_s": float(np.mean(cold)),
            "container_wait_prewarmed_s": float(np.mean(waits)),
            "container_idle_s": idle / len(ends)}


# What is compared -----------------------------------------------------------------------------


@cache
def _window(setting: Setting, policy: str) -> Window:
    return schedule(setting, policy)


def _statistic(window: Window, statistic: str) -> float:
    if statistic == "mean":
        return float(window.completion_s.mean())
    if statistic == "max":
        return float(window.completion_s.max())
    return float(np.percentile(window.completion_s, float(statistic.removeprefix("p"))))


#: A dozen: what a window takes varies by 10 to 20 % with the arrivals that are drawn.
_SEEDS = 12


def _over_seeds(values: Sequence[float], unit: str) -> Sourced:
    """Mean over seeds, beside it the lowest and the highest; it hangs on the slowdown's point.

    That windows differ is no interval of ours: the published value is of one window as well.
    """
    mean = float(np.mean(values))
    return Sourced(mean, unit, f"{_SOURCE}, mean of {len(values)} seeds", mean, mean,
                   constant("hermes.slowdown").points, (min(values), max(values)))


def completion(policy: str, load: float, statistic: Literal["mean", "max"] | str = "mean",
               seeds: int = _SEEDS) -> Sourced:
    """Completion of applications, mean over seeds.

    Parameters
    ----------
    policy : str
        Of :data:`POLICIES`.
    load : float
        1, 2 or 3 in the paper.
    statistic : str
        ``mean``, ``max`` or a percentile such as ``p95``.
    seeds : int
        How many windows are served.

    Raises
    ------
    ValueError
        If the policy or the load is none.
    """
    return _over_seeds([_statistic(_window(Setting(load=load, seed=seed), policy), statistic)
                        for seed in range(seeds)], "s")


def reduction(over: Sequence[str], loads: Sequence[float] = (1.0, 2.0, 3.0),
              statistic: str = "mean", seeds: int = _SEEDS) -> Sourced:
    """Share of the completion under other policies that Hermes saves.

    Parameters
    ----------
    over, loads : sequence
        Policies and loads, of which each seed has the mean.
    statistic : str
        As in :func:`completion`.
    seeds : int
        How many windows of each load are served; the value is their mean.

    Raises
    ------
    ValueError
        If a policy or a load is none.
    """
    def taken(policy: str, load: float, seed: int) -> float:
        return _statistic(_window(Setting(load=load, seed=seed), policy), statistic)
    return _over_seeds([float(np.mean([
        1 - taken("hermes", load, seed) / taken(policy, load, seed)
        for load in loads for policy in over])) for seed in range(seeds)], "1")


def ablation(policy: str, load: float = 2.0, seeds: int = _SEEDS, *,
             model_name: str = _PROFILED_MODEL) -> Sourced:
    """Mean completion under a policy over that of Hermes, mean over seeds.

    Parameters
    ----------
    policy, load, seeds
        As in :func:`completion`.
    model_name : str
        Another than the profiled one is served by a roofline of an A100 of 80 GB.

    Raises
    ------
    ValueError
        If the policy, the load or the model is none.
    """
    setting = Setting(load=load) if model_name == _PROFILED_MODEL else Setting(
        load=load, model_name=model_name, device_name="a100_80gb", engine="roofline")
    windows = [replace(setting, seed=seed) for seed in range(seeds)]
    over = _over_seeds([_statistic(_window(each, policy), "mean")
                        / _statistic(_window(each, "hermes"), "mean") for each in windows], "1")
    return over if setting.engine == "profile" else replace(over, points=frozenset())


def deadlines_met(policy: str, factor: str = "all", loads: Sequence[float] = (1.0, 2.0, 3.0),
                  seeds: int = 3) -> Sourced:
    """Share of the deadlines that are met.

    Parameters
    ----------
    policy : str
        Of :data:`POLICIES`.
    factor : str
        ``1.2``, ``1.5`` or ``2`` times the demand, or ``all``.
    loads : sequence of float
        The load of the published figure is not known: the value is the mean of the loads, the band
        reaches from the lowest to the highest.
    seeds : int
        How many windows of each load are served.

    Raises
    ------
    ValueError
        If the policy or the factor is none.
    """
    known = (*(f"{each:g}" for each in _DEADLINES), "all")
    if factor not in known:
        raise ValueError(f"factor must be one of {', '.join(known)}, not {factor!r}")
    met = [[_window(Setting(load=load, seed=seed), policy).in_time[factor]
            for seed in range(seeds)] for load in loads]
    means = np.mean(met, axis=1)
    value = float(means.mean())
    return Sourced(value, "1", f"{_SOURCE}, mean of {seeds} seeds each at {len(loads)} loads",
                   min(value, float(means.min())), max(value, float(means.max())),
                   constant("hermes.slowdown").points, (float(np.min(met)), float(np.max(met))))


def more_buckets(buckets: int, than: int = 10, load: float = 1.0, seeds: int = 3) -> Sourced:
    """Mean completion of Hermes with some buckets over that with others, mean over seeds.

    Raises
    ------
    ValueError
        If buckets or load are not positive.
    """
    def taken(count: int, seed: int) -> float:
        return _statistic(_window(Setting(load=load, seed=seed, buckets=count), "hermes"), "mean")
    return _over_seeds([taken(buckets, seed) / taken(than, seed) for seed in range(seeds)], "1")


def calibrate(published_s: float, *, policy: str = "parrot", load: float = 1.0,
              seeds: int = _SEEDS, within: float = 1e-3) -> float:
    """The slowdown at which the mean completion over seeds is a published one.

    ``hermes.slowdown`` in ``devices.toml`` is ``calibrate(60 * 5.412)``, of two decimals.

    Parameters
    ----------
    published_s : float
        Mean completion, positive.
    policy, load
        Of the published point.
    seeds : int
        How many windows are served.
    within : float
        How close the bisection ends, relative to the slowdown.

    Raises
    ------
    ValueError
        If no slowdown up to 64 takes as long, or one of 1/64 takes longer.
    """
    def mean_s(slowdown: float) -> float:
        return float(np.mean([schedule(Setting(load=load, seed=seed, slowdown=slowdown),
                                       policy).completion_s.mean() for seed in range(seeds)]))
    low, high = 1 / 64, 64.0
    if not mean_s(low) <= published_s <= mean_s(high):
        raise ValueError(f"published_s must be what a slowdown from {low:g} to {high:g} takes, "
                         f"not {published_s!r}")
    while high / low > 1 + within:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if mean_s(middle) > published_s else (middle, high)
    return math.sqrt(low * high)


def _run(setting: Setting, policy: str) -> SystemRun:
    window = schedule(setting, policy)
    ordered = np.sort(window.completion_s)
    places = np.linspace(0, ordered.size - 1, min(ordered.size, 100)).astype(int)
    metrics = {f"completion_{name}_s": _statistic(window, name)
               for name in ("mean", "p50", "p90", "p95", "p99", "max")}
    metrics |= {f"deadlines_met_{key}": value for key, value in window.in_time.items()}
    metrics |= {"cache_tokens": window.cache_tokens, "preemptions": window.preemptions,
                "batch_largest": window.largest_batch}
    metrics |= {f"{what}_hits_{loading}": hit_ratio(
        window.uses, slots, setting.load_s, loading, per_stage=what == "prefix")
        for what, slots in (("adapter", setting.adapters), ("prefix", setting.prefixes))
        for loading in LOADING}
    if setting.starts != "none":
        metrics |= {"container_wait_loaded_s": window.container_wait_s,
                    "container_idle_loaded_s": window.container_idle_s}
    times = setting.times()
    speed = (f"the authors' profile, {times.slowdown:.3g} times slower"
             if isinstance(times, ProfiledTimes) else "a roofline")
    return SystemRun(
        system="hermes", metrics=metrics, not_covered=NOT_COVERED,
        assumptions=(
            (f"{setting.model_name} on {setting.ranks} x {setting.device_name}, which the paper "
             "does not name more closely: the size of its cache decides what a policy gains"),
            f"engine: {speed}",
            f"{setting.count} applications, {setting.load:g}x; "
            + (f"samples in {setting.traces}" if setting.traces else "quantiles of the samples"),
            ("a deadline is 1.2, 1.5 or 2 times the demand as the authors count it: what the "
             "paper's factors multiply is not known")),
        curves=(Curve(title="completion", x="s", y="share of the applications", series={
            policy: tuple((float(ordered[place]), (place + 1) / ordered.size)
                          for place in places.tolist())}),))


def run(*, policy: str = "hermes", device_name: str = "a100_40gb", model_name: str = "llama2_7b",
        ranks: int = 1, load: float = 1.0, count: int = 200, engine: str = "profile",
        slowdown: float = 0.0, buckets: int = 10, form: str = "code", walks: int = 300,
        starts: str = "none", warm_s: float = 10.0, adapters: int = 4, prefixes: int = 8,
        load_s: float = 1.0, traces: str = "", seed: int = 0) -> SystemRun:
    """A window of applications under a policy; options as in :class:`Setting`.

    Parameters
    ----------
    starts : str
        What starts of containers cost the applications of the window.
    warm_s : float
        Start of a container, there and on an idle server, for the waits with and without
        prewarming; the paper's is not known.
    """
    setting = Setting(device_name=device_name, model_name=model_name, ranks=ranks, load=load,
                      count=count, engine=engine, slowdown=slowdown, buckets=buckets, walks=walks,
                      traces=traces, seed=seed, warm_s=warm_s, adapters=adapters,
                      prefixes=prefixes, load_s=load_s,
                      starts=starts,  # pyright: ignore[reportArgumentType]: checked there
                      form=form)  # pyright: ignore[reportArgumentType]: checked there
    made = _run(setting, policy)
    return replace(made, metrics={**made.metrics, **_prewarmed(setting, warm_s)})


def compare(*, device_name: str = "a100_40gb", model_name: str = "llama2_7b", ranks: int = 1,
            load: float = 2.0, count: int = 200, engine: str = "profile", slowdown: float = 0.0,
            form: str = "code", starts: str = "none", warm_s: float = 10.0, traces: str = "",
            seed: int = 0) -> dict[str, SystemRun]:
    """All policies with the same applications; options as those of :func:`run`."""
    setting = Setting(device_name=device_name, model_name=model_name, ranks=ranks, load=load,
                      count=count, engine=engine, slowdown=slowdown, traces=traces, seed=seed,
                      warm_s=warm_s,
                      starts=starts,  # pyright: ignore[reportArgumentType]: checked there
                      form=form)  # pyright: ignore[reportArgumentType]: checked there
    return {policy: _run(setting, policy) for policy in POLICIES}
