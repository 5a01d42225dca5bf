"""A step in PyTorch: with the gradient, with the authors' layers (zeta*), with BackPACK's Kronecker factors (K-FAC)."""

import torch
from mlp import initial_parameters
from worker import DAMPING, LEARNING_RATE, arguments, batch, serve

args = arguments()
torch.set_num_threads(args.threads)


def network():
    layers = []
    for weight, bias in initial_parameters(args.widths, seed=0):
        fan_out, fan_in = weight.shape
        if args.method == "zeta-star":
            import isaac

            layer = isaac.Linear(fan_in, fan_out, la=DAMPING)
        else:
            layer = torch.nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


net = network()
loss = torch.nn.MSELoss() if args.loss == "mse" else torch.nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(net.parameters(), lr=LEARNING_RATE)
x, labels = map(torch.from_numpy, batch(args.widths, args.loss))


def step():
    optimizer.zero_grad()
    loss(net(x), labels).backward()
    optimizer.step()


def kfac_step():
    optimizer.zero_grad()
    with backpack(KFAC(mc_samples=1)):
        loss(net(x), labels).backward()
    with torch.no_grad():
        for parameter in net.parameters():
            for axis, factor in enumerate(parameter.kfac):
                damped = factor + DAMPING * torch.eye(len(factor))
                solve = torch.cholesky_inverse(torch.linalg.cholesky(damped))
                gradient = parameter.grad
                parameter.grad = solve @ gradient if axis == 0 else gradient @ solve
    optimizer.step()


if args.method == "kfac":
    from backpack import backpack, extend
    from backpack.extensions import KFAC

    net, loss = extend(net), extend(loss)
serve(kfac_step if args.method == "kfac" else step)
