"""Seven GPU-side systems from first principles: what they share, and a thin model of each.

Cards of devices and networks, a roofline, links, an engine that serves requests iteration by
iteration; on these stand the models that :data:`splatforge.sim.systems.run.SYSTEMS` lists.
"""
