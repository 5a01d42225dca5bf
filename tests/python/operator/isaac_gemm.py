"""What the operator's tests share: one-node models, sessions of the runtime at hand, and the formula in float64."""

import os

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

PROVIDER = os.environ.get("ISAAC_PROVIDER", "CPUExecutionProvider")

NUMPY_TYPES = {TensorProto.FLOAT: np.float32, TensorProto.DOUBLE: np.float64, TensorProto.FLOAT16: np.float16}


def session_options(threads=1):
    """Options that know the operator. ISAAC_LIBRARY is the path of libisaac.so."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(os.environ["ISAAC_LIBRARY"])
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are reported as exceptions already
    return options


def session(inputs=("G", "A"), element=TensorProto.FLOAT, ranks=(2, 2, 2), shapes=None, threads=1, name="dense1", **attributes):
    """A session of one IsaacGemm node that computes Y. Shapes of G and A, and of GBar, are symbolic unless given; that of C is not
    declared. An input without a name is left out."""
    matrices = ("G", "A", "GBar")
    shapes = shapes or [[f"{matrix}{i}" for i in range(rank)] for matrix, rank in zip(matrices, ranks)]
    shapes = dict(zip(matrices, shapes))
    shapes["C"] = None
    declared = [helper.make_tensor_value_info(key, element, shapes.get(key, [])) for key in inputs if key]
    node = helper.make_node("IsaacGemm", list(inputs), ["Y"], name=name, domain="ai.isaac", **attributes)
    output = helper.make_tensor_value_info("Y", element, None)
    return load(helper.make_graph([node], "layer", declared, [output]), threads)


def load(graph, threads=1):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.isaac", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), session_options(threads), providers=[PROVIDER])


def run(session, g, a, **others):
    """The output for G, A and whatever other inputs the session has."""
    others = {key: np.asarray(value, np.asarray(g).dtype) for key, value in others.items()}
    return session.run(["Y"], {"G": g, "A": a, **others})[0]


def message(call):
    """What the error says that this call ends in."""
    try:
        call()
    except Exception as error:
        return str(error)
    raise AssertionError("the call has not failed")


class Reference:
    """The conditioned gradient of one input, by its singular value decomposition in float64.

    With a = U diag(s) Vt, (I + a aT/(b l))^-1 a = U diag(s / (1 + s^2/(b l))) Vt: nothing cancels at any damping.
    """

    def __init__(self, a):
        self.rows = len(a)  # may be none: then the result is zero
        self.u, self.s, self.vt = np.linalg.svd(np.asarray(a, np.float64), full_matrices=False)

    def for_gradients(self, g):
        """The result for these gradients, as a function of the damping."""
        projected = np.asarray(g, np.float64).T @ self.u

        def conditioned(damping):
            factors = self.s / (1 + self.s**2 / (max(self.rows, 1) * float(damping)))
            return (projected * factors) @ self.vt

        return conditioned

    def __call__(self, g, damping):
        return self.for_gradients(g)(damping)


def error(got, expected):
    """Largest of the relative errors in the Frobenius norm and in the largest element."""
    assert got.shape == expected.shape, (got.shape, expected.shape)
    difference = got.astype(np.float64) - expected
    if not difference.size:
        return 0.0
    norms = [(np.linalg.norm(difference), np.linalg.norm(expected)), (abs(difference).max(), abs(expected).max())]
    return max(float("nan") if np.isnan(d) else d / n if n else d for d, n in norms)
