"""Training steps drawn at random: shared, tied and transposed weights among products of activations.

Only two sizes occur, so that shapes give little away. Which layers there are follows from how the step was drawn.
"""

import random
from dataclasses import dataclass, field

import corpus
from net import Case, Net, layer, needed
from onnx import TensorProto
from step_net import Step

SIZES = (4, 6)


@dataclass
class Use:
    """One use of a weight, for y = a w, a wᵀ, w a or wᵀ a."""

    y: str
    a: str
    weight: str
    # Which axis of the weight runs over the input's features, and which axis of the input holds its rows.
    input_axis: int
    rows_axis: int


@dataclass
class Draw:
    """A forward pass in the making, and how to differentiate it: for each value, a function that passes its gradient on."""

    net: Net
    choose: random.Random
    shapes: dict = field(default_factory=dict)
    backward: list = field(default_factory=list)
    trained: set = field(default_factory=set)
    linears: list = field(default_factory=list)
    # Uses with the gradient of their output, as far as the loss depends on it.
    uses: list = field(default_factory=list)
    gradients: dict = field(default_factory=dict)
    count: int = 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def product(self, left, right, transposed, into):
        """left · right, each of them transposed first where it says so, as a Gemm or with Transposes."""
        if self.choose.random() < 0.5:
            flags = {key: 1 for key, is_set in zip(("transA", "transB"), transposed) if is_set}
            return self.net.op("Gemm", left, right, into=into, **flags)
        sides = [self.transposed(value) if flag else value for value, flag in zip((left, right), transposed)]
        return self.net.op("MatMul", *sides, into=into)

    def transposed(self, value):
        return self.net.op("Transpose", value, into=self.name("tr"), perm=[1, 0])

    def linear(self):
        """A new or known weight, from either side, as it is or transposed."""
        a = self.choose.choice(list(self.shapes))
        rows_axis = self.choose.randrange(2)
        features, rows = self.shapes[a][1 - rows_axis], self.shapes[a][rows_axis]
        fitting = [w for w, value in self.net.parameters.items() if features in value.shape]
        if fitting and self.choose.random() < 0.5:
            weight = self.choose.choice(fitting)
        else:
            shape = [features, self.choose.choice(SIZES)]
            self.choose.shuffle(shape)
            weight = self.net.parameter(f"w{len(self.net.parameters)}", *shape)
        shape = self.net.parameters[weight].shape
        input_axis = self.choose.choice([axis for axis in (0, 1) if shape[axis] == features])
        y = self.name("y")
        if rows_axis == 0:
            self.product(a, weight, (False, input_axis == 1), y)
            self.shapes[y] = (rows, shape[1 - input_axis])
        else:
            self.product(weight, a, (input_axis == 0, False), y)
            self.shapes[y] = (shape[1 - input_axis], rows)
        self.trained.add(y)
        use = Use(y, a, weight, input_axis, rows_axis)
        self.linears.append(use)
        self.backward.append((y, lambda dy: self.linear_gradient(use, dy)))

    def linear_gradient(self, use, dy):
        self.uses.append((use, dy))
        if use.a not in self.trained:
            return
        da = self.name("g")
        if use.rows_axis == 0:
            self.product(dy, use.weight, (False, use.input_axis == 0), da)
        else:
            self.product(use.weight, dy, (use.input_axis == 1, False), da)
        self.collect(use.a, da)

    def tanh(self):
        a = self.choose.choice(list(self.shapes))
        y = self.net.op("Tanh", a, into=self.name("y"))
        self.add(y, self.shapes[a], [a], lambda dy: self.collect(a, self.net.tanh_gradient(y, dy, self.name("g"))))

    def pair(self):
        """a ∘ b or a + b."""
        a = self.choose.choice(list(self.shapes))
        b = self.choose.choice([value for value in self.shapes if self.shapes[value] == self.shapes[a]])
        if self.choose.random() < 0.5:
            y = self.net.op("Add", a, b, into=self.name("y"))
            self.add(y, self.shapes[a], [a, b], lambda dy: [self.collect(value, dy) for value in (a, b)])
            return

        def backward(dy):
            for value, other in ((a, b), (b, a)):
                self.collect(value, self.net.op("Mul", dy, other, into=self.name("g")))

        self.add(self.net.op("Mul", a, b, into=self.name("y")), self.shapes[a], [a, b], backward)

    def activations(self):
        """a b, a product of two values that are no weights."""
        a = self.choose.choice(list(self.shapes))
        fitting = [value for value in self.shapes if self.shapes[value][0] == self.shapes[a][1]]
        if not fitting:
            return
        b, y = self.choose.choice(fitting), self.name("y")

        def backward(dy):
            self.collect(a, self.product(dy, b, (False, True), self.name("g")))
            self.collect(b, self.product(a, dy, (True, False), self.name("g")))

        self.product(a, b, (False, False), y)
        self.add(y, (self.shapes[a][0], self.shapes[b][1]), [a, b], backward)

    def add(self, y, shape, inputs, backward):
        self.shapes[y] = shape
        if self.trained & set(inputs):
            self.trained.add(y)
            self.backward.append((y, backward))

    def collect(self, value, gradient):
        self.gradients.setdefault(value, []).append(gradient)

    def total(self, terms, into):
        """Their sum under this name."""
        if len(terms) == 1:
            return self.net.op("Identity", *terms, into=into)
        if len(terms) == 2 or self.choose.random() < 0.5:
            rest = terms[1] if len(terms) == 2 else self.total(terms[1:], self.name("s"))
            return self.net.op("Add", terms[0], rest, into=into)
        return self.net.op("Sum", *terms, into=into)

    def finish(self):
        """The loss, the backward pass, and the layers."""
        last = self.backward[-1][0]
        self.collect(last, self.net.squared_error(last, *self.shapes[last]))
        for y, backward in reversed(self.backward):
            if y in self.gradients:
                backward(self.total(self.gradients[y], self.name("d")))
        used = {use.weight for use, _ in self.uses}
        return [self.deliver(weight) for weight in self.net.parameters if weight in used]

    def deliver(self, weight):
        """The products of a weight's gradient, each in a form of its own, and their sum."""
        terms, products, axes = [], [], set()
        for use, dy in (entry for entry in self.uses if entry[0].weight == weight):
            product = f"{weight}_p{len(products)}"
            as_stored = self.choose.random() < 0.7
            first = (use.a, use.rows_axis == 0) if (use.input_axis == 0) == as_stored else (dy, use.rows_axis == 0)
            second = dy if first[0] == use.a else use.a
            # The sum runs over rows: the left factor is transposed if they are its first axis, the right one if its last.
            self.product(first[0], second, (use.rows_axis == 0, use.rows_axis == 1), product)
            terms.append(product if as_stored else self.transposed(product))
            products.append(product)
            axes.add(use.input_axis)
        self.net.train(weight, self.total(terms, f"{weight}_grad"))
        return layer(weight, *products, reason=tied(axes))


def draw(net, seed):
    """A random forward pass on two inputs."""
    choose = random.Random(seed)
    drawn = Draw(net, choose)
    for i in range(2):
        shape = (choose.choice(SIZES), choose.choice(SIZES))
        drawn.shapes[net.data(f"x{i}", list(shape))] = shape
    kinds = [drawn.linear, drawn.linear, drawn.tanh, drawn.pair, drawn.activations]
    drawn.linear()
    for _ in range(choose.randrange(4, 12)):
        choose.choice(kinds)()
    return drawn


def build(seed, update="sgd", element=TensorProto.FLOAT):
    """The step of this number. With an update no name is needed to tell whose gradient is whose."""
    net = Step(update=update, seed=seed, element=element)
    layers = draw(net, seed).finish()
    return Case(f"random {seed}", net.model(), net.feeds, layers, net.loss)


def generate(seed):
    """The training graph that ONNX Runtime makes of the same forward pass. Which products its layers have is left open."""
    net = Net(seed=seed)
    net.parameter = net.weight
    drawn = draw(net, seed)
    last = drawn.backward[-1][0]
    net.op("Identity", last, into="y")
    net.output("y", list(drawn.shapes[last]))
    net.nodes, values = needed(net.nodes, ["y"])
    net.inputs = [value for value in net.inputs if value.name in values]
    net.initializers = [tensor for tensor in net.initializers if tensor.name in values]
    net.trained = [weight for weight in net.trained if weight in values]
    net.feeds = {name: feed for name, feed in net.feeds.items() if name in values}
    axes = {
        weight: {use.input_axis for use in drawn.linears if use.weight == weight and use.y in values}
        for weight in net.trained
    }
    layers = [layer(weight, reason=tied(axes[weight])) for weight in net.trained]
    shapes = {weight: net.parameters[weight].shape for weight in net.trained}
    ties = tuple({other for other in shapes if shapes[other] == shape} for shape in set(shapes.values()))
    net.parameters = {weight: net.parameters[weight] for weight in net.trained}
    return corpus.train(f"random {seed}", net, layers, ties)


def tied(input_axes):
    """The reason for which a weight is left alone whose uses have their input features on these axes."""
    return "tied-transpose" if len(input_axes) == 2 else None
