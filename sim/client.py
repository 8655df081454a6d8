"""What a streaming client takes for a frame: our RTL's cycle model, or a GPU's roofline."""

from dataclasses import dataclass

from splatforge.algos.project import project
from splatforge.algos.reference import render
from splatforge.designs.voyager import VoyagerDesign
from splatforge.scenes import Camera, Scene
from splatforge.sim.costs import Sourced
from splatforge.sim.gpu import FrameWork, devices, gpu_frame
from splatforge.sim.simulate import simulate

__all__ = ["RTL", "ClientFrame", "client_frame", "clients", "count_frame"]

#: The client that is our own hardware.
RTL = "voyager"


@dataclass(frozen=True, kw_only=True)
class ClientFrame:
    """A frame on a client.

    Parameters
    ----------
    time, energy : Sourced
        Seconds and joules, with their bands.
    """

    time: Sourced
    energy: Sourced


def clients() -> tuple[str, ...]:
    """Names of clients: that of the RTL, and GPUs."""
    return (RTL, *devices())


def count_frame(scene: Scene, camera: Camera) -> FrameWork:
    """The work of a frame, counted by the float reference."""
    statistics = render(scene, camera, statistics=True).statistics
    if statistics is None:
        raise RuntimeError("The reference must count when asked to")
    return FrameWork.from_statistics(
        statistics, gaussians=scene.gaussians, gaussians_visible=len(project(scene, camera)),
        sh_degree=scene.sh_degree, pixels=camera.width * camera.height)


def client_frame(scene: Scene, camera: Camera, client: str) -> ClientFrame:
    """Time and energy of a frame.

    Parameters
    ----------
    scene : Scene
        The Gaussians of the cut.
    camera : Camera
        The view.
    client : str
        One of :func:`clients`: ``voyager`` is the bit-true workload through the cycle model, at the
        clock that synthesis supports, with the default memory; a GPU rasterizes as Voyager's client
        does, with exponents filtered and exponentials out of a table.

    Raises
    ------
    ValueError
        If it is none of those.
    """
    if client not in clients():
        raise ValueError(f"Client must be one of {', '.join(clients())}, not {client!r}")
    if client == RTL:
        record = simulate(RTL, VoyagerDesign(), scene, [camera], gpus=(), rival=False).record()
        low, high = record["energy_band_j"]
        source = record["clock_source"]
        return ClientFrame(time=Sourced.exact(record["time_s"], "s", source), energy=Sourced(
            record["energy_j"], "J", source, low, high))
    run = gpu_frame(count_frame(scene, camera), devices()[client], "table")
    return ClientFrame(time=run.time, energy=run.energy)
