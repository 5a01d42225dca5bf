"""Whole training steps in standard operators: loss, backward pass and, if wanted, the update, written out by hand."""

import importlib

import numpy as np
from net import Case, Net
from onnx import helper, numpy_helper

STEPS = {}


def step(**options):
    """Registers a function that draws a training step and returns its layers."""

    def register(draw):
        name = options.pop("name", draw.__name__)
        STEPS[name] = (draw, options)
        return draw

    return register


def build(name):
    """A registered training step."""
    draw, options = STEPS[name]
    options = dict(options)
    case_options = {key: options.pop(key) for key in ("ties", "tolerance", "arguments") if key in options}
    net = Step(**options)
    layers = draw(net)
    return Case(name, net.model(), net.feeds, layers, net.loss, **case_options)


class Step(Net):
    """A training step. `update` is what its outputs are: none (gradients), sgd, momentum or adam (new parameters and state)."""

    def __init__(self, update="none", defaults=False, **options):
        super().__init__(**options)
        self.update, self.defaults, self.loss = update, defaults, "loss"
        if update != "none":
            self.scalar("lr", 0.1)

    def scalar(self, name, value):
        return self.data(name, [], np.array(value, self.normal(1).dtype))

    def parameter(self, name, *shape):
        """An input; with `defaults`, its initial value is in the file."""
        value = self.normal(*shape, scale=max(shape[-2:]) ** -0.5)
        self.state(name, value)
        self.parameters[name] = value
        return name

    def state(self, name, value):
        self.inputs.append(helper.make_tensor_value_info(name, self.element, value.shape))
        self.feeds[name] = value
        if self.defaults:
            self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def transpose(self, value, *permutation):
        permutation = permutation or (1, 0)
        return self.op("Transpose", value, into=f"{value}:{''.join(map(str, permutation))}", perm=permutation)

    def squared_error(self, y, *shape, into="dy"):
        """The mean of (y - t)², and its gradient."""
        self.data(f"t:{y}", list(shape))
        difference = self.op("Sub", y, f"t:{y}", into=f"{into}.d")
        self.op("ReduceMean", self.op("Mul", difference, difference, into=f"{into}.dd"), into="loss", keepdims=0)
        self.output("loss", [])
        return self.op("Mul", difference, self.constant(f"{into}.c", 2.0 / float(np.prod(shape))), into=into)

    def tanh_gradient(self, h, dh, into):
        """dh (1 - h²)."""
        slope = self.op(
            "Sub", self.constant(f"{into}.one", 1.0), self.op("Mul", h, h, into=f"{into}.hh"), into=f"{into}.s"
        )
        return self.op("Mul", dh, slope, into=into)

    def train(self, parameter, gradient):
        """Delivers the gradient of a parameter, or what the update makes of it."""
        shape = list(self.parameters[parameter].shape)
        if self.update == "none":
            return self.output(gradient, shape)
        direction = getattr(self, self.update)(parameter, gradient)
        change = self.op("Mul", "lr", direction, into=f"{parameter}.change")
        return self.output(self.op("Sub", parameter, change, into=f"{parameter}.next"), shape)

    def sgd(self, parameter, gradient):
        """With weight decay."""
        decay = self.op("Mul", parameter, self.constant(f"{parameter}.wd", 0.01), into=f"{parameter}.decay")
        return self.op("Add", gradient, decay, into=f"{parameter}.direction")

    def moment(self, parameter, kind, value, rate):
        """rate · state + value."""
        start = self.normal(*self.parameters[parameter].shape, scale=0.1)
        state = self.state(f"{parameter}.{kind}", abs(start) if kind == "second" else start)
        kept = self.op("Mul", state, self.constant(f"{state}.rate", rate), into=f"{state}.kept")
        return self.output(self.op("Add", kept, value, into=f"{state}.next"), list(start.shape))

    def momentum(self, parameter, gradient):
        return self.moment(parameter, "velocity", gradient, 0.9)

    def adam(self, parameter, gradient):
        def weighted(value, weight, name):
            return self.op("Mul", value, self.constant(f"{name}.weight", weight), into=name)

        first = self.moment(parameter, "first", weighted(gradient, 0.1, f"{parameter}.g1"), 0.9)
        square = self.op("Mul", gradient, gradient, into=f"{parameter}.gg")
        second = self.moment(parameter, "second", weighted(square, 0.01, f"{parameter}.g2"), 0.99)
        root = self.op("Sqrt", second, into=f"{parameter}.root")
        stable = self.op("Add", root, self.constant(f"{parameter}.eps", 1e-3), into=f"{parameter}.stable")
        return self.op("Div", first, stable, into=f"{parameter}.direction")


def names():
    """All registered steps."""
    for module in ("steps", "shared_steps", "hard_steps"):
        importlib.import_module(module)
    return sorted(STEPS)
