"""Fuzz every scene reader: random damage to valid files, under a memory limit.

    python bench/fuzz_scenes.py [--seconds 60] [--seed 0] [FILE ...]

Each round damages one of the given files (or of the small files that the tests write, one of each
format) and loads it. A scene or a SceneError of one line that names the file is right; anything
else, a round over ten seconds, or memory beyond the limit is a fault: the file is kept in
build/fuzz, named in the output, and the exit code is 1.
"""

import argparse
import collections
import gzip
import io
import resource
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

import numpy as np

from splatforge.scenes import SceneError, load

ROOT = Path(__file__).parents[1]
SLOW_S = 10.0
WORDS = [
    *(b"\0", b"\xff", b"\x7f", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\xc0\x7f"),
    *(b"\0\0\x80\x7f", b"\0\0\x80\xff", b"9999999999", b"-1", b"1e999", b"nan", b"null", b'"'),
    *(b"[", b"]", b"{", b"}", b"\n", b"/../", b"\xff" * 16),
]


def damage(data: bytes, random: np.random.Generator) -> bytes:
    """Return ``data`` with a few random faults."""
    out = bytearray(data)
    for _ in range(random.integers(1, 9)):
        if not out:
            break
        # Half of the faults in the first kilobyte, where headers are.
        reach = min(len(out), 1024) if random.random() < 0.5 else len(out)
        at = int(random.integers(reach))
        size = int(random.integers(1, 256))
        match random.integers(8):
            case 0:
                out[at] ^= 1 << int(random.integers(8))
            case 1:
                out[at] = int(random.integers(256))
            case 2:
                word = WORDS[random.integers(len(WORDS))]
                out[at : at + len(word)] = word
            case 3:
                word = WORDS[random.integers(len(WORDS))]
                out[at:at] = word
            case 4:
                del out[at : at + size]
            case 5:
                out[at:at] = out[at : at + size]
            case 6:
                out[at : at + size] = random.bytes(min(size, len(out) - at))
            case _:
                digits = [i for i in range(at, min(at + 300, len(out))) if chr(out[i]).isdigit()]
                if digits:
                    out[digits[0]] = int(random.choice(list(b"0123456789-e.")))
    if random.random() < 0.1:
        del out[int(random.integers(len(out) + 1)) :]
    return bytes(out)


def damage_inside(name: str, data: bytes, random: np.random.Generator) -> bytes:
    """Damage the contents of a container instead of the container, half of the time."""
    if random.random() < 0.5:
        return damage(data, random)
    if name.endswith(".spz"):
        return gzip.compress(damage(gzip.decompress(data), random), 1)
    if name.endswith(".sog"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename: archive.read(info) for info in archive.infolist()}
        chosen = sorted(members)[random.integers(len(members))]
        members[chosen] = damage(members[chosen], random)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return out.getvalue()
    return damage(data, random)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="valid files to damage")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the damage")
    parser.add_argument("--memory-gib", type=float, default=3.0, help="limit of address space")
    options = parser.parse_args()
    limit = int(options.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    random = np.random.default_rng(options.seed)
    outcomes: collections.Counter[str] = collections.Counter()
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        valid = {path.name: path.read_bytes() for path in options.files}
        if not valid:
            sys.path.insert(0, str(ROOT / "tests"))
            from scene_files import write_every_format

            paths = write_every_format(Path(folder))
            valid = {name: path.read_bytes() for name, path in paths.items()}
        names = sorted(valid)
        end = time.monotonic() + options.seconds
        rounds = 0
        while time.monotonic() < end:
            name = names[random.integers(len(names))]
            data = damage_inside(name, valid[name], random)
            path = Path(folder) / name
            path.write_bytes(data)
            start = time.monotonic()
            fault = ""
            try:
                load(path)
                outcomes["loaded"] += 1
            except SceneError as error:
                outcomes["refused"] += 1
                message = str(error)
                if not message.startswith(f"{path}: ") or "\n" in message or len(message) > 1000:
                    fault = f"message {message[:300]!r}"
                elif "GiB of memory" in message:
                    fault = "memory limit"
            except Exception:
                fault = traceback.format_exc()
            took = time.monotonic() - start
            if not fault and took > SLOW_S:
                fault = f"{took:.1f} s"
            if fault:
                faults += 1
                kept = ROOT / "build" / "fuzz" / f"{options.seed}-{rounds}-{name}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(data)
                print(f"{kept}: {fault}")
            rounds += 1
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"rounds {rounds}, loaded {outcomes['loaded']}, refused {outcomes['refused']}, "
        f"faults {faults}, peak RSS {peak_mib:.0f} MiB"
    )
    return int(faults > 0)


if __name__ == "__main__":
    raise SystemExit(main())
