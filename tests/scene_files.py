"""Small valid scene files of every format, some of which the project itself cannot write."""

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from splatforge.scenes import Scene, save


def small_scene(gaussians: int = 40, degree: int = 3, seed: int = 0, **changes) -> Scene:
    random = np.random.default_rng(seed)
    quats = random.normal(size=(gaussians, 4))
    arrays = {
        "means": random.uniform(-2, 2, (gaussians, 3)),
        "log_scales": random.uniform(-6, -2, (gaussians, 3)),
        "quats": quats / np.linalg.norm(quats, axis=1, keepdims=True),
        "opacity_logits": random.uniform(-4, 4, gaussians),
        "sh": random.uniform(-0.9, 0.9, (gaussians, (degree + 1) ** 2, 3)),
    }
    return Scene(**{**arrays, **changes})


def webp(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    mode = "RGBA" if pixels.shape[2] == 4 else "RGB"
    Image.fromarray(pixels.astype(np.uint8), mode).save(out, "WEBP", lossless=True, exact=True)
    return out.getvalue()


def _image(values: np.ndarray, side: int = 8) -> np.ndarray:
    """Rows of up to four bytes as an RGBA image of side x side pixels, the rest of it 255."""
    image = np.full((side * side, 4), 255, np.uint8)
    image[: len(values), : values.shape[1]] = values
    return image.reshape(side, side, 4)


def sog_members(scene: Scene, version: int = 2, labels: int = 30) -> dict[str, bytes]:
    """Members of a .sog file that holds about ``scene``; SH through a palette of ``labels``."""
    n = scene.gaussians
    random = np.random.default_rng(9)
    logarithm = np.sign(scene.means) * np.log1p(np.abs(scene.means))
    low, high = logarithm.min(axis=0), logarithm.max(axis=0)
    word = np.rint((logarithm - low) / (high - low) * 65535).astype(np.uint16)
    quats = scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True)
    largest = np.abs(quats).argmax(axis=1)
    quats = quats * np.sign(quats[np.arange(n), largest])[:, None]
    small = np.stack([np.delete(q, i) for q, i in zip(quats, largest, strict=True)])
    packed = np.concatenate([np.rint((small / np.sqrt(2) + 0.5) * 255), 252 + largest[:, None]], 1)
    opacity = 1 / (1 + np.exp(-scene.opacity_logits))
    members = {
        "means_l.webp": webp(_image(word & 255)),
        "means_u.webp": webp(_image(word >> 8)),
        "quats.webp": webp(_image(packed)),
    }
    meta: dict = {
        "means": {"mins": low.tolist(), "maxs": high.tolist()},
        "scales": {},
        "quats": {},
        "sh0": {},
    }
    meta["means"]["files"] = ["means_l.webp", "means_u.webp"]
    for key in ("scales", "quats", "sh0"):
        meta[key]["files"] = [f"{key}.webp"]
    scale_range, color_range = (-8.0, 0.0), (-2.0, 2.0)
    scale = _quantize(scene.log_scales, *scale_range)
    color = _quantize(scene.sh[:, 0], *color_range)
    if version == 2:
        meta |= {"version": 2, "count": n, "antialias": scene.antialiased}
        meta["scales"]["codebook"] = np.linspace(*scale_range, 256).tolist()
        meta["sh0"]["codebook"] = np.linspace(*color_range, 256).tolist()
        alpha = np.rint(opacity * 255)
    else:
        meta["means"]["shape"] = [n, 3]
        meta["scales"] |= {"mins": [scale_range[0]] * 3, "maxs": [scale_range[1]] * 3}
        meta["sh0"] |= {
            "mins": [color_range[0]] * 3 + [-5.0],
            "maxs": [color_range[1]] * 3 + [5.0],
        }
        alpha = _quantize(scene.opacity_logits, -5.0, 5.0)
    members["scales.webp"] = webp(_image(scale))
    members["sh0.webp"] = webp(_image(np.concatenate([color, alpha[:, None]], axis=1)))
    k = scene.sh.shape[1] - 1
    if k:
        centroids = random.integers(0, 256, (-(-labels // 64), 64 * k, 3))
        chosen = np.arange(n) % labels
        members["shN_centroids.webp"] = webp(centroids)
        members["shN_labels.webp"] = webp(
            _image(np.stack([chosen & 255, chosen >> 8, 0 * chosen], axis=1))
        )
        meta["shN"] = {"files": ["shN_centroids.webp", "shN_labels.webp"]}
        if version == 2:
            meta["shN"] |= {
                "count": labels,
                "bands": scene.sh_degree,
                "codebook": np.linspace(-1, 1, 256).tolist(),
            }
        else:
            meta["shN"] |= {"mins": -1.0, "maxs": 1.0}
    members["meta.json"] = json.dumps(meta).encode()
    return members


def _quantize(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.rint((values - low) / (high - low) * 255), 0, 255)


def write_sog(path: Path, scene: Scene, version: int = 2, **changes: bytes) -> Path:
    members = {**sog_members(scene, version), **changes}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def write_compressed_ply(path: Path, scene: Scene, *, colors: bool = True) -> Path:
    n = scene.gaussians
    opacity = 1 / (1 + np.exp(-scene.opacity_logits))
    color = scene.sh[:, 0] * 0.28209479177387814 + 0.5
    chunks, words = [], []
    for start in range(0, n, 256):
        part = slice(start, start + 256)
        row: list[np.ndarray] = []
        fractions = []
        for values in (scene.means, scene.log_scales, color):
            low, high = values[part].min(axis=0), values[part].max(axis=0)
            row += [low, high]
            fractions.append((values[part] - low) / np.maximum(high - low, 1e-9))
        if not colors:
            row, fractions[2] = row[:4], np.clip(color[part], 0, 1)
        chunks.append(np.concatenate(row))
        quats = scene.quats[part] / np.linalg.norm(scene.quats[part], axis=1, keepdims=True)
        largest = np.abs(quats).argmax(axis=1)
        quats = quats * np.sign(quats[np.arange(len(quats)), largest])[:, None]
        small = np.stack([np.delete(q, i) for q, i in zip(quats, largest, strict=True)])
        bits = np.rint((small / np.sqrt(2) + 0.5) * 1023).astype(np.uint32)
        rotation = (
            largest.astype(np.uint32) << 30 | bits[:, 0] << 20 | bits[:, 1] << 10 | bits[:, 2]
        )
        rgba = np.rint(np.c_[fractions[2], opacity[part]] * 255).astype(np.uint32)
        packed_color = rgba[:, 0] << 24 | rgba[:, 1] << 16 | rgba[:, 2] << 8 | rgba[:, 3]
        words.append(
            np.stack([_pack(fractions[0]), rotation, _pack(fractions[1]), packed_color], axis=1)
        )
    bounds = [f"{s}_{q}{a}" for q in ("", "scale_") for s in ("min", "max") for a in "xyz"] + [
        f"{s}_{c}" for s in ("min", "max") for c in "rgb"
    ] * colors
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {len(chunks)}"]
    lines += [f"property float {name}" for name in bounds]
    lines += [f"element vertex {n}"]
    lines += [f"property uint packed_{q}" for q in ("position", "rotation", "scale", "color")]
    k = scene.sh.shape[1] - 1
    if k:
        lines += [f"element sh {n}", *(f"property uchar f_rest_{i}" for i in range(3 * k))]
    rest = np.clip(np.floor((scene.sh[:, 1:] / 8 + 0.5) * 256), 0, 255).astype(np.uint8)
    path.write_bytes(
        ("\n".join(lines) + "\nend_header\n").encode()
        + np.array(chunks, "<f4").tobytes()
        + np.concatenate(words).astype("<u4").tobytes()
        + rest.swapaxes(1, 2).tobytes()
    )
    return path


def _pack(fractions: np.ndarray) -> np.ndarray:
    x, y, z = np.rint(fractions * (2047, 1023, 2047)).astype(np.uint32).T
    return x << 21 | y << 11 | z


def gltf_parts(scene: Scene) -> tuple[dict, bytes]:
    """JSON and binary chunk of a GLB that holds ``scene``."""
    names = [f"SH_DEGREE_{d}_COEF_{n}" for d in range(4) for n in range(2 * d + 1)]
    columns = {
        "POSITION": scene.means,
        "KHR_gaussian_splatting:ROTATION": scene.quats[:, [1, 2, 3, 0]],
        "KHR_gaussian_splatting:SCALE": np.exp(scene.log_scales),
        "KHR_gaussian_splatting:OPACITY": 1 / (1 + np.exp(-scene.opacity_logits[:, None])),
    }
    for i, name in enumerate(names[: scene.sh.shape[1]]):
        columns[f"KHR_gaussian_splatting:{name}"] = scene.sh[:, i]
    binary, views, accessors, attributes = b"", [], [], {}
    for i, (name, values) in enumerate(columns.items()):
        data = values.astype("<f4").tobytes()
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(data)})
        accessors.append(
            {
                "bufferView": i,
                "componentType": 5126,
                "count": scene.gaussians,
                "type": {1: "SCALAR", 3: "VEC3", 4: "VEC4"}[values.shape[1]],
            }
        )
        attributes[name] = i
        binary += data
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {
        "attributes": attributes,
        "mode": 0,
        "extensions": {"KHR_gaussian_splatting": extension},
    }
    description = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_gaussian_splatting"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    return description, binary


def glb(description: dict, binary: bytes) -> bytes:
    text = json.dumps(description).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def write_every_format(folder: Path) -> dict[str, Path]:
    """Write one small valid file of each format and version; name -> path."""
    scene = small_scene()
    plain = small_scene(degree=0)
    paths = {}
    for name in ("ply.ply", "splat.splat", "spz3.spz"):
        save(scene, folder / name)
        paths[name] = folder / name
    save(scene, folder / "spz2.spz", spz_version=2)
    paths["spz2.spz"] = folder / "spz2.spz"
    paths["ascii.ply"] = write_ascii_ply(folder / "ascii.ply", plain)
    paths["packed.compressed.ply"] = write_compressed_ply(folder / "packed.compressed.ply", scene)
    for version in (1, 2):
        name = f"sog{version}.sog"
        paths[name] = write_sog(folder / name, scene, version)
    paths["khr.glb"] = folder / "khr.glb"
    paths["khr.glb"].write_bytes(glb(*gltf_parts(scene)))
    return paths


def write_ascii_ply(path: Path, scene: Scene) -> Path:
    names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    rows = np.concatenate(
        [scene.means, scene.sh[:, 0], scene.opacity_logits[:, None], scene.log_scales, scene.quats],
        axis=1,
    )
    lines = ["ply", "format ascii 1.0", f"element vertex {scene.gaussians}"]
    lines += [f"property float {name}" for name in names.split()]
    lines += ["end_header", *(" ".join(repr(float(v)) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path
