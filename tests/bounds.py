"""How far a graph on floating words can be from real numbers."""

import numpy as np

from splatforge.designs.floating import BINARY32


def error_bounds(flow, fmt, inputs, constants):
    """Outputs of a graph in float64, and how far `evaluate` can be from them.

    The bound is that of a running error analysis (Higham, Accuracy and Stability of Numerical
    Algorithms, 2002, section 3.3): every operation hands on the errors of its operands and adds
    its own, which :mod:`splatforge.algos.floating` states. Numbers given here are real ones, whose
    words are off by `fmt.epsilon`, and wide ones by that of binary32. It holds
    where no value reaches the ends of the format; it is infinite behind a reciprocal of what might
    be zero. The rounding of float64 itself, 2^-35 times smaller, is left out.

    Returns
    -------
    dict
        (value, bound) of shape [N] of every output.
    """
    eps = fmt.epsilon
    values = {}
    for name, number in (*((name, inputs[name]) for name in flow.inputs),
                         *((name, constants[name]) for name in flow.constants), *flow.literals):
        number = np.asarray(number, np.float64)
        values[name] = number, np.abs(number) * (BINARY32.epsilon if name in flow.wide else eps)
    with np.errstate(divide="ignore", invalid="ignore"):
        for operation in flow.operations:
            operands = [values[name] for name in operation.operands]
            of_result = BINARY32.epsilon if operation.name in flow.wide_values else eps
            values[operation.name] = _bounded(operation, operands, of_result, fmt.smallest)
    return {name: values[value] for name, value in flow.outputs}


def _bounded(operation, operands, eps, smallest):
    """Value of an operation and the bound of its error."""
    (a, error_a), (b, error_b) = operands[0], operands[-1]
    kind = operation.kind
    if operation.to:
        unit, top = operation.to.resolution, operation.to.to_float(operation.to.raw_max)
        if kind == "log2":
            low = np.maximum(np.abs(a) - error_a, smallest)
            return np.log2(np.abs(a)), np.log2(np.abs(a) / low) + 0.65 * unit
        if kind == "ceil_fixed":
            return np.minimum(np.abs(a), top), error_a + unit
        return np.clip(a, -top if operation.to.signed else 0, top), error_a + unit / 2
    if kind in ("negate", "magnitude"):
        return (-a if kind == "negate" else np.abs(a)), error_a
    if kind in ("minimum", "maximum"):
        value = np.minimum(a, b) if kind == "minimum" else np.maximum(a, b)
        return value, np.maximum(error_a, error_b)
    if kind == "select":
        chosen, error_chosen = operands[1]
        value = np.where(a >= 0, chosen, b)
        error = np.where(a >= 0, error_chosen, error_b)
        # Where the sign may be wrong, so may be the choice.
        either = np.maximum(np.abs(value - chosen) + error_chosen, np.abs(value - b) + error_b)
        return value, np.where(np.abs(a) > error_a, error, either)
    if kind == "reciprocal":
        value = 1 / a
        error = np.where(error_a < np.abs(a), error_a / (np.abs(a) - error_a), np.inf)
        error = error * np.abs(value)
        return value, error + 1.25 * eps * (np.abs(value) + error) + smallest
    if kind == "reciprocal_root":
        value = 1 / np.sqrt(np.abs(a))
        low = np.abs(a) - error_a
        error = np.where(low > 0, 1 / np.sqrt(np.maximum(low, smallest)) - value, np.inf)
        return value, error + 1.25 * eps * (value + error)
    if kind == "narrow":
        return a, error_a + eps * (np.abs(a) + error_a)
    if kind in ("multiply", "wide_multiply"):
        value = a * b
        error = np.abs(a) * error_b + np.abs(b) * error_a + error_a * error_b
        return value, error + eps * (np.abs(value) + error) + smallest
    value = a + b if kind in ("add", "wide_add") else a - b
    error = error_a + error_b
    return value, error + eps * (np.abs(value) + error) + smallest
